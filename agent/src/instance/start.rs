//! From a prepared instance to a QEMU whose monitor answers.

use std::time::Duration;

use crn_api_types::{EventKind, WarningKind};
use serde_json::json;
use time::OffsetDateTime;
use tracing::info;

use super::{
    context::{Context, StepError, failure},
    hear::Heard,
    launch::launch,
    task::{Task, Vm},
};
use crate::{
    cgroup::{Applied, CgroupPlan},
    db::{DbError, GuestHealth, InstanceRow, ProcessRow, VolumeState},
    fault,
    fs::{blocking, make_private_dir},
    guest_net::GuestNetError,
    host::qemu::MINIMUM,
    life::{FailureCode, Transition},
    paths::InstanceFile,
    qemu::{
        launch::{Held, LaunchError, launch as hold},
        plan::{DiskFormat, TAP_FD, plan, socket},
        process::{Process, boot_id},
    },
    tasks::TaskError,
};

/// QEMU's monitor must answer this long after its start. With hundreds of starts
/// at once, or on a slow disk, seconds are normal.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);

impl Task {
    /// Firewall, tap, disks as wanted, then QEMU.
    pub(super) async fn launch(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        // A fresh start: what was known of the last QEMU is of no use.
        self.vm = None;
        let (held, log_from) = match self.try_launch(row).await {
            Ok(held) => held,
            Err(StepError::Db(e)) => return Err(e),
            Err(StepError::Failed(failure)) => return Ok(Transition::Failed { failure }),
        };
        fault::point("held", self.phase.path());
        self.ctx.record_process(held.process(), TAP_FD).await?;
        fault::point("recorded", self.phase.path());
        let process = held.release().await;
        info!(pid = process.pid(), "QEMU is launched");
        let pid = process.pid();
        self.ctx.status.send_modify(|s| s.pid = Some(pid));
        self.vm = Some(Vm {
            process,
            monitor: None,
            log_from: Some(log_from),
        });
        Ok(Transition::Done)
    }

    /// The process that waits to be QEMU, and where its words begin in the log.
    async fn try_launch(&self, row: &InstanceRow) -> Result<(Held, u64), StepError> {
        let ctx = &self.ctx;
        let row = &ctx.renumbered(row).await?;
        // Volumes and seed as they are wanted now: both may have changed since.
        self.volumes().release_detaching().await?;
        ctx.create_volumes().await?;
        ctx.write_seed(row).await?;
        let mut volumes = ctx.node.db.volumes_of(&ctx.id).await?;
        // One that some other process has open is no guest's.
        volumes.retain(|v| v.state != VolumeState::Detaching);
        let base = ctx.base(row).await?;
        // Those that were grown while no QEMU had them open.
        for volume in &volumes {
            ctx.node.volumes.grow(volume).await?;
        }
        let hardware = ctx.hardware(row).await?;
        let limits = ctx.limits(row).await;
        let limits = limits.map_err(|e| failure(FailureCode::Launch, e))?;
        let format = match base.format {
            disk::Format::Qcow2 => DiskFormat::Qcow2,
            disk::Format::Raw => DiskFormat::Raw,
        };
        let base = (base.path, format);
        let mtu = ctx.node.net.host().guests_mtu().await;
        let plan = plan(&launch(
            &ctx.node,
            row,
            hardware,
            base,
            &volumes,
            limits.procs,
            mtu,
        ));
        // Last of all: from here on there is something of the guest in the kernel.
        let tap = match ctx.node.net.admit(&ctx.id).await {
            Ok(tap) => tap,
            Err(GuestNetError::Db(e)) => return Err(e.into()),
            Err(e) => return Err(failure(FailureCode::Network, e).into()),
        };
        let run = ctx.node.paths.run(&ctx.id);
        let log = ctx.node.paths.instance_file(&ctx.id, InstanceFile::QemuLog);
        let work = move || {
            make_private_dir(&run).map_err(|source| LaunchError::Open { path: run, source })?;
            let log_from = std::fs::metadata(&log).map_or(0, |m| m.len());
            Ok((hold(&plan, tap, &log)?, log_from))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err::<_, LaunchError>(e)) => Err(failure(FailureCode::Launch, e).into()),
            Err(e) => Err(failure(FailureCode::Internal, e).into()),
        }
    }

    /// Connects to the monitor of a QEMU that was just launched or found. A stop need
    /// not wait for one that hangs.
    pub(super) async fn connect_monitor(&mut self) -> Result<Transition, DbError> {
        let Some(vm) = &self.vm else {
            return Ok(Transition::Absent);
        };
        let log_from = vm.log_from;
        let path = self.ctx.node.paths.run(&self.ctx.id).join(socket::QMP);
        let config = qmp::Config {
            greeting_timeout: MONITOR_LIMIT,
            ..qmp::Config::default()
        };
        let mut connected = std::pin::pin!(qmp::Qmp::connect(&path, &config));
        let outcome = loop {
            match self.hear(connected.as_mut()).await {
                Heard::Done(outcome) => break outcome,
                Heard::Exited => {
                    let what = "QEMU exited while it started";
                    let message = self.ctx.with_last_words(what, log_from).await;
                    let failure = failure(FailureCode::Launch, message);
                    return Ok(Transition::Died { failure });
                }
                Heard::Wake => {
                    if let Some(transition) = self.other_way().await? {
                        return Ok(transition);
                    }
                }
                Heard::Event(_) => {}
            }
        };
        let refused = match outcome {
            Ok((qmp, _)) if !qmp.version().at_least(MINIMUM.major, MINIMUM.minor) => {
                let found = qmp.version();
                format!("QEMU {found} is too old: {MINIMUM} or later is needed")
            }
            Ok(monitor) => {
                self.connected(monitor);
                return Ok(Transition::Done);
            }
            Err(e) => {
                let what = format!("the monitor does not answer: {e}");
                self.ctx.with_last_words(&what, log_from).await
            }
        };
        Ok(Transition::Failed {
            failure: failure(FailureCode::Launch, refused),
        })
    }
}

impl Context {
    /// The record with a network of the node's prefix: what it was started with before may be of
    /// another one, which was configured then. Seed and firewall follow from it.
    async fn renumbered(&self, row: &InstanceRow) -> Result<InstanceRow, StepError> {
        let plan = self.node.addresses.clone();
        let renumbered = match self.node.db.renumber(&self.id, plan).await {
            Err(e @ DbError::Capacity(_)) => return Err(failure(FailureCode::Network, e).into()),
            other => other?,
        };
        if let Some(network) = renumbered {
            let (from, to) = (row.network.guest(), network.guest());
            info!("renumbered from {from} to {to}");
            let data = json!({ "from": from.to_string(), "to": to.to_string() });
            self.event(EventKind::Renumbered, data);
        }
        Ok(self.row().await?)
    }

    /// Makes the instance's cgroup; what the host cannot limit is a warning.
    pub(super) async fn limits(&self, row: &InstanceRow) -> Result<Applied, TaskError> {
        let plan = CgroupPlan::new(row.spec.vcpus, row.spec.memory.0.into(), self.node.accel);
        let (cgroups, name) = (self.node.cgroups.clone(), self.id.to_string());
        let prepare = move || {
            cgroups
                .prepare(&name, &plan)
                .map_err(|e| std::io::Error::other(e).into())
        };
        let applied = blocking::<_, TaskError, _>(prepare).await?;
        let missing: Vec<_> = applied.missing.iter().map(|m| m.file.as_str()).collect();
        match applied.missing.first() {
            Some(first) => {
                let missing = missing.join(", ");
                tracing::debug!("{missing}: {}", first.why);
                self.set_warning(WarningKind::NotLimited, format!("not limited: {missing}"));
            }
            None => {
                self.clear_warning(WarningKind::NotLimited);
            }
        }
        Ok(applied)
    }

    /// Records which QEMU is this instance's, and the number that its tap's
    /// descriptor has.
    pub(super) async fn record_process(
        &self,
        process: &Process,
        tap_fd: i32,
    ) -> Result<(), DbError> {
        let row = ProcessRow {
            pid: process.pid(),
            start_ticks: process.start_ticks(),
            boot_id: boot_id(),
            tap_fd,
            accel: self.node.accel.word().to_owned(),
            launched_at: OffsetDateTime::now_utc(),
            guest: GuestHealth::default(),
        };
        self.node.db.set_process(&self.id, Some(row)).await
    }
}

/// How long ago a process was launched, as recorded.
pub(super) fn age(process: Option<&ProcessRow>) -> Duration {
    process
        .and_then(|p| (OffsetDateTime::now_utc() - p.launched_at).try_into().ok())
        .unwrap_or_default()
}
