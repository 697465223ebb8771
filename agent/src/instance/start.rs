//! From a prepared instance to a QEMU whose monitor answers.

use std::{
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use time::OffsetDateTime;
use tracing::info;

use super::{
    launch::launch,
    prepare::{Step, make_private_dir, volume_size},
    task::{Task, Vm, failure},
};
use crate::{
    cgroup::{Applied, CgroupPlan},
    db::{DbError, InstanceRow, ProcessRow, VolumeRow, now},
    fault,
    fs::blocking,
    guest_net::GuestNetError,
    host::qemu::MINIMUM,
    life::{Desired, FailureCode, Transition},
    paths::InstanceFile,
    qemu::{
        launch::{Held, LaunchError, launch as start},
        plan::{self, DiskFormat, socket},
        process::{Process, boot_id},
    },
    tasks::TaskError,
};

/// QEMU's monitor must answer this long after its start. With hundreds of starts
/// at once, or on a slow disk, seconds are normal.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);
/// As much of QEMU's own last words goes into a failure, bytes.
const LAST_WORDS: u64 = 400;

impl Task {
    /// Firewall, tap, disks as wanted, then QEMU.
    pub(super) async fn launch(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        // A fresh start: what was known of the last QEMU is of no use.
        self.vm = None;
        let (held, tap_fd, log_from) = match self.try_launch(row).await? {
            Ok(held) => held,
            Err(failure) => return Ok(Transition::Failed { failure }),
        };
        fault::point("held", self.phase.path());
        self.record_process(held.process(), tap_fd).await?;
        fault::point("recorded", self.phase.path());
        let process = held.release().await;
        info!(pid = process.pid(), "QEMU is launched");
        self.status.send_modify(|s| s.pid = Some(process.pid()));
        self.vm = Some(Vm {
            process,
            monitor: None,
            log_from: Some(log_from),
        });
        Ok(Transition::Done)
    }

    /// The process that waits to be QEMU, the number of its tap's descriptor, and
    /// where its words begin in the log.
    async fn try_launch(&mut self, row: &InstanceRow) -> Step<(Held, i32, u64)> {
        let fail = |code, e: &dyn std::fmt::Display| Ok(Err(failure(code, e)));
        // Volumes and seed as they are wanted now: both may have changed since.
        self.release_volumes().await?;
        for outcome in [self.create_volumes().await?, self.write_seed(row).await?] {
            if let Err(e) = outcome {
                return Ok(Err(e));
            }
        }
        let volumes = self.node.db.volumes_of(&self.id).await?;
        let base = match self.base(row).await {
            Ok(base) => base,
            Err(e) => return Ok(Err(e)),
        };
        if let Err(e) = self.grow_offline(&volumes).await {
            return fail(FailureCode::Disk, &e);
        }
        let limits = match self.limits(row).await {
            Ok(limits) => limits,
            Err(e) => return fail(FailureCode::Launch, &e),
        };
        let format = match base.format {
            disk::Format::Qcow2 => DiskFormat::Qcow2,
            disk::Format::Raw => DiskFormat::Raw,
        };
        let base = (base.path, format);
        let launch = launch(&self.node, row, base, &volumes, limits.procs);
        let plan = plan::plan(&launch);
        let tap_fd = plan.tap_fd;
        // Last of all: from here on there is something of the guest in the kernel.
        let tap = match self.node.net.admit(&self.id).await {
            Ok(tap) => tap,
            Err(GuestNetError::Db(e)) => return Err(e),
            Err(e) => return fail(FailureCode::Network, &e),
        };
        let run = self.node.paths.run(&self.id);
        let log = self
            .node
            .paths
            .instance_file(&self.id, InstanceFile::QemuLog);
        let work = move || {
            make_private_dir(&run).map_err(|source| LaunchError::Open { path: run, source })?;
            let log_from = std::fs::metadata(&log).map_or(0, |m| m.len());
            Ok((start(&plan, tap, &log)?, log_from))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok((held, log_from))) => Ok(Ok((held, tap_fd, log_from))),
            Ok(Err::<_, LaunchError>(e)) => fail(FailureCode::Launch, &e),
            Err(e) => fail(FailureCode::Internal, &e),
        }
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
        let warning = (!missing.is_empty()).then(|| format!("not limited: {}", missing.join(", ")));
        if let Some(first) = applied.missing.first() {
            tracing::debug!("{}: {}", missing.join(", "), first.why);
        }
        self.status.send_modify(|s| s.warning = warning);
        Ok(applied)
    }

    /// Gives volumes that were grown while nobody had them open their size.
    async fn grow_offline(&self, volumes: &[VolumeRow]) -> Result<(), TaskError> {
        let wanted: Vec<_> = volumes
            .iter()
            .map(|v| (self.node.paths.volume(&v.id), volume_size(v)))
            .collect();
        blocking(move || {
            for (path, size) in wanted {
                disk::grow(&path, disk::Format::Qcow2, size)?;
            }
            Ok(())
        })
        .await
    }

    /// Records which QEMU is this instance's.
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
            launched_at: now(),
        };
        self.node.db.set_process(&self.id, Some(row)).await
    }

    /// The number that the tap's descriptor has in a QEMU that was launched but
    /// not recorded: the plan is a pure function, so it can be asked again.
    pub(super) async fn planned_tap_fd(&self, row: &InstanceRow) -> Result<i32, DbError> {
        let volumes = self.node.db.volumes_of(&self.id).await?;
        let base = (PathBuf::new(), DiskFormat::Qcow2);
        Ok(plan::plan(&launch(&self.node, row, base, &volumes, None)).tap_fd)
    }

    /// Connects to the monitor of a QEMU that was just launched or found.
    pub(super) async fn connect_monitor(&mut self) -> Result<Transition, DbError> {
        let Some(vm) = &self.vm else {
            return Ok(Transition::Absent);
        };
        let path = self.node.paths.run(&self.id).join(socket::QMP);
        let config = qmp::Config {
            greeting_timeout: MONITOR_LIMIT,
            ..qmp::Config::default()
        };
        let connected = qmp::Qmp::connect(&path, &config);
        tokio::pin!(connected);
        let outcome = loop {
            tokio::select! {
                outcome = &mut connected => break outcome,
                () = vm.process.exited() => {
                    let message = self.obituary("QEMU exited while it started").await;
                    let failure = failure(FailureCode::Launch, message);
                    return Ok(Transition::Died { failure });
                }
                // A stop need not wait for a QEMU that hangs.
                () = self.wake.notified() => {
                    let wish = self.node.db.instance(&self.id).await?.wish;
                    if wish.desired != Desired::Running {
                        return Ok(Transition::Stop { force: wish.force });
                    }
                }
            }
        };
        match outcome {
            Ok((qmp, _)) if !qmp.version().at_least(MINIMUM.major, MINIMUM.minor) => {
                let found = qmp.version();
                let message = format!("QEMU {found} is too old: {MINIMUM} or later is needed");
                Ok(Transition::Failed {
                    failure: failure(FailureCode::Launch, message),
                })
            }
            Ok(monitor) => {
                if let Some(vm) = &mut self.vm {
                    vm.monitor = Some(monitor);
                }
                Ok(Transition::Done)
            }
            Err(e) => {
                let message = self
                    .obituary(&format!("the monitor does not answer: {e}"))
                    .await;
                Ok(Transition::Failed {
                    failure: failure(FailureCode::Launch, message),
                })
            }
        }
    }

    /// `what` happened, and the last line that QEMU wrote about it, if it did.
    pub(super) async fn obituary(&self, what: &str) -> String {
        let Some(from) = self.vm.as_ref().and_then(|vm| vm.log_from) else {
            return what.to_owned();
        };
        let path = self
            .node
            .paths
            .instance_file(&self.id, InstanceFile::QemuLog);
        let read = move || {
            let mut file = std::fs::File::open(path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_WORDS))))?;
            let mut bytes = Vec::new();
            file.take(LAST_WORDS).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = blocking(read).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        match text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
        {
            Some(line) => {
                // It may hold what a guest had QEMU say.
                let line: String = line
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                format!("{what}: {line}")
            }
            None => what.to_owned(),
        }
    }
}

/// How long ago a process was launched, as recorded.
pub(super) fn age(process: Option<&ProcessRow>) -> Duration {
    process
        .and_then(|p| (OffsetDateTime::now_utc() - p.launched_at).try_into().ok())
        .unwrap_or_default()
}
