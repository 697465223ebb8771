//! The loop of an instance's task.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crn_api_types::EventKind;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{Instrument, error, info, info_span, warn};

use super::{context::Context, job::Jobs};
use crate::{
    db::{DbError, GuestHealth, InstanceRow, ProcessRow},
    fault,
    life::{
        Circumstances, Decision, DeleteStep, Desired, Failure, Phase, Settled, StartStep,
        StopStage, Transition, decide,
    },
    node::Node,
    qemu::{
        plan::TAP_FD,
        process::{Process, boot_id},
    },
    tasks::{Command, Handle, Status},
};

/// Requests that may wait for an instance before the next one has to.
const INBOX: usize = 64;

/// A QEMU and what we hold of it.
pub(super) struct Vm {
    pub(super) process: Process,
    pub(super) monitor: Option<(qmp::Qmp, qmp::Events)>,
    /// Where this QEMU's own words begin in the log, if we were there.
    pub(super) log_from: Option<u64>,
}

/// The state of an instance's task.
pub(super) struct Task {
    pub(super) ctx: Context,
    pub(super) phase: Phase,
    /// Restarts in a row since the last good run.
    pub(super) restarts: u32,
    pub(super) vm: Option<Vm>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) inbox_is_open: bool,
    /// What is wanted changed in the database.
    pub(super) wake: Arc<Notify>,
    pub(super) jobs: Jobs,
    /// Asks for the guest's SSH server.
    pub(super) probe: Option<tokio::task::JoinHandle<()>>,
    /// What is on record of the guest.
    pub(super) health: GuestHealth,
    /// Keeps the logs short.
    pub(super) log_bounder: Option<tokio::task::JoinHandle<()>>,
    /// QEMU is to be asked for the machine's state once more.
    pub(super) ask_again: bool,
}

/// Starts the task of a recorded instance. `found` is the pid of a QEMU that
/// carries its marker, when the agent comes back.
pub(crate) fn spawn(node: &Arc<Node>, row: &InstanceRow, found: Option<i32>) -> Handle {
    let (task, handle) = Task::new(node, row);
    node.tasks.insert(row.id.clone(), handle.clone());
    let span = info_span!("instance", name = %row.name, id = row.id.short());
    let row = row.clone();
    tokio::spawn(task.run(row, found).instrument(span));
    handle
}

impl Task {
    pub(super) fn new(node: &Arc<Node>, row: &InstanceRow) -> (Self, Handle) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (status, watcher) = watch::channel(Status {
            phase: row.phase.clone(),
            ready: false,
            pid: None,
            progress: None,
            stage_ends_at: None,
            paused: false,
            warnings: BTreeMap::new(),
        });
        let wake = Arc::new(Notify::new());
        let handle = Handle::new(sender, wake.clone(), watcher);
        let task = Self {
            ctx: Context::new(node.clone(), row.id.clone(), status),
            phase: row.phase.clone(),
            restarts: row.restarts,
            vm: None,
            inbox,
            inbox_is_open: true,
            wake,
            jobs: Jobs::new(),
            probe: None,
            health: GuestHealth::default(),
            log_bounder: None,
            ask_again: false,
        };
        (task, handle)
    }

    async fn run(mut self, row: InstanceRow, found: Option<i32>) {
        // Of a new instance: whoever wrote its record wrote this phase.
        fault::point("persisted", self.phase.path());
        while let Err(e) = self.adopt(&row, found).await {
            self.database_failed(&e).await;
        }
        self.ctx.recall_user_data(&row).await;
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => self.database_failed(&e).await,
            }
        }
        self.ctx.node.tasks.remove(&self.ctx.id);
        self.ctx.event(EventKind::Deleted, serde_json::json!({}));
        info!("deleted");
    }

    /// Nothing was done, and it will be tried again.
    async fn database_failed(&self, e: &DbError) {
        error!("{e}; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// After the agent's start: finds out whether this instance's QEMU lives, and
    /// takes charge of it.
    async fn adopt(&mut self, row: &InstanceRow, found: Option<i32>) -> Result<(), DbError> {
        let boot = boot_id();
        let recorded = row.process.as_ref().filter(|p| p.boot_id == boot);
        let expected = self.phase.may_have_qemu();
        match Self::hold(recorded, found).await {
            Some(process) if expected => {
                info!(pid = process.pid(), phase = self.phase.path(), "adopted");
                let pid = process.pid();
                if recorded.is_none_or(|p| p.pid != pid) {
                    self.ctx.record_process(&process, TAP_FD).await?;
                } else if let Some(recorded) = recorded {
                    self.restore_health(recorded.guest);
                }
                self.vm = Some(Vm {
                    process,
                    monitor: None,
                    log_from: None,
                });
                self.ctx.status.send_modify(|s| s.pid = Some(pid));
                // The plan may be another one's since an upgrade; and what cannot be
                // limited is to be said again.
                if let Err(e) = self.ctx.limits(row).await {
                    warn!("{e}");
                }
                self.ctx
                    .event(EventKind::Adopted, serde_json::json!({ "pid": pid }));
                self.go(&Transition::Found, row).await
            }
            Some(process) => {
                warn!(
                    pid = process.pid(),
                    phase = self.phase.path(),
                    "a QEMU that should not be"
                );
                process.kill();
                process.exited().await;
                Ok(())
            }
            None => {
                self.volumes().release_detaching().await?;
                if expected {
                    self.go(&Transition::Absent, row).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes hold of this instance's QEMU, the recorded or the found one. One of
    /// which it cannot be known whether it lives is asked after again: to take it for
    /// dead would give its disks to a second one.
    async fn hold(recorded: Option<&ProcessRow>, found: Option<i32>) -> Option<Process> {
        loop {
            let recorded = recorded.map(|p| Process::reopen(p.pid, p.start_ticks));
            let held = match recorded.transpose() {
                Ok(Some(Some(process))) => Ok(Some(process)),
                Ok(_) => found.map_or(Ok(None), Process::find),
                Err(e) => Err(e),
            };
            match held {
                Ok(process) => return process,
                Err(e) => error!("cannot tell whether its QEMU lives; trying again: {e}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// One decision. False when the instance is gone.
    pub(super) async fn step(&mut self) -> Result<bool, DbError> {
        let row = self.ctx.row().await?;
        match decide(&self.phase, row.intent, OffsetDateTime::now_utc()) {
            Decision::Go(transition) => self.go(&transition, &row).await?,
            Decision::Work => {
                let transition = self.work(&row).await?;
                fault::point("effected", self.phase.path());
                // What is wanted may have changed while we worked.
                let row = self.ctx.row().await?;
                self.go(&transition, &row).await?;
            }
            Decision::Wait => {
                if let Some(transition) = self.rest(&row).await? {
                    let row = self.ctx.row().await?;
                    self.go(&transition, &row).await?;
                }
            }
            Decision::End => {
                self.ctx.node.db.remove_instance(&self.ctx.id).await?;
                fault::point("effected", self.phase.path());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Follows a transition: the new phase is on disk before anything comes of it.
    pub(super) async fn go(
        &mut self,
        transition: &Transition,
        row: &InstanceRow,
    ) -> Result<(), DbError> {
        let launched = row.process.as_ref().map(|p| p.boot_id.as_str());
        let circumstances = Circumstances {
            now: OffsetDateTime::now_utc(),
            restarts: self.restarts,
            wanted: row.intent.desired == Desired::Running,
            rebooted: launched.is_some_and(|launched| launched != boot_id()),
        };
        let next = match self.phase.apply(transition, circumstances) {
            Ok(next) => next,
            Err(e) => {
                // A defect of ours. Staying where we are is safe; looping is not.
                error!("{e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(());
            }
        };
        if next == self.phase {
            // Found again as it was recorded, or one more try of the last stage.
            return Ok(());
        }
        self.settle_job(&next).await;
        let restarts = match &next {
            Phase::BackingOff { attempt, .. } => *attempt,
            Phase::Stopped { .. } => 0,
            _ => self.restarts,
        };
        let settled = Settled::by(transition, &next);
        let db = &self.ctx.node.db;
        let event = db.set_phase(&self.ctx.id, &next, settled, restarts).await?;
        info!(
            transition = transition.word(),
            from = self.phase.path(),
            "{}",
            next.path()
        );
        if let Some(failure) = failure_of(&next) {
            warn!(code = ?failure.code, "{}", failure.message);
        }
        fault::point("persisted", next.path());
        self.restarts = restarts;
        self.phase = next.clone();
        self.ctx.status.send_modify(|s| {
            s.ready &= next == Phase::Running;
            if !matches!(next, Phase::Stopping { .. }) {
                s.stage_ends_at = None;
            }
            s.progress = None;
            s.phase = next;
        });
        self.ctx.node.events.publish(event);
        Ok(())
    }

    /// Carries out what the phase names, or finds that something else is wanted.
    async fn work(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        match self.phase.clone() {
            Phase::Preparing { step } => self.prepare(step).await,
            Phase::Starting { step } => match step {
                StartStep::Launch => self.launch(row).await,
                StartStep::Monitor => self.connect_monitor().await,
            },
            Phase::Stopping { stage, .. } => match stage {
                StopStage::PowerButton => self.press_power_button().await,
                StopStage::Quit => self.quit(row).await,
                StopStage::Kill => Ok(self.kill().await),
                StopStage::CleanUp => self.clean_up(row).await,
            },
            Phase::Deleting { step } => match step {
                DeleteStep::CleanUp => self.clean_up(row).await,
                DeleteStep::Disks => Ok(self.remove_disks().await),
                DeleteStep::Record => Ok(Transition::Done),
            },
            _ => Ok(Transition::Done),
        }
    }

    /// Rests until something happens.
    async fn rest(&mut self, row: &InstanceRow) -> Result<Option<Transition>, DbError> {
        match self.phase.clone() {
            Phase::Running => self.rest_running(row).await,
            Phase::AwaitingOwner { what, until, .. } => self.rest_awaiting_owner(what, until).await,
            Phase::BackingOff { until, .. } => Ok(self.rest_until(Some(until)).await),
            _ => Ok(self.rest_until(None).await),
        }
    }
}

fn failure_of(phase: &Phase) -> Option<&Failure> {
    match phase {
        Phase::Failed { failure } | Phase::BackingOff { failure, .. } => Some(failure),
        _ => None,
    }
}
