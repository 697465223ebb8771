//! The loop of an instance's task.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crn_api_types::EventKind;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tracing::{Instrument, error, info, info_span, warn};

use crate::{
    db::{DbError, InstanceRow, ProcessRow},
    fault,
    ids::InstanceId,
    life::{
        Circumstances, Decision, DeleteStep, Desired, Failure, FailureCode, Phase, Settled,
        StartStep, StopStage, Transition, decide,
    },
    node::Node,
    qemu::process::{Process, boot_id},
    tasks::{Command, Handle, Status},
};

/// Requests that may wait for an instance before the next one has to.
const INBOX: usize = 64;
/// A guest that ran this long ran well: its next restart is its first again.
pub(super) const GOOD_RUN: Duration = Duration::from_secs(60);

/// The least time between two events of one word that a guest can cause.
const SELDOM: Duration = Duration::from_secs(2);

/// A QEMU and what we hold of it.
pub(super) struct Vm {
    pub(super) process: Process,
    pub(super) monitor: Option<(qmp::Qmp, qmp::Events)>,
    /// Where this QEMU's own words begin in the log, if we were there.
    pub(super) log_from: Option<u64>,
}

/// The state of an instance's task.
pub(super) struct Task {
    pub(super) node: Arc<Node>,
    pub(super) id: InstanceId,
    pub(super) phase: Phase,
    pub(super) restarts: u32,
    pub(super) vm: Option<Vm>,
    pub(super) inbox: mpsc::Receiver<Command>,
    /// The wish in the database changed.
    pub(super) wake: Arc<Notify>,
    pub(super) status: watch::Sender<Status>,
    pub(super) probe: Option<tokio::task::JoinHandle<()>>,
    /// QEMU may have other volumes than the record.
    pub(super) unmatched: bool,
    /// When something that a guest can cause was last told of, by its word.
    pub(super) told: HashMap<EventKind, Instant>,
}

/// Starts the task of a recorded instance. `found` is the pid of a QEMU that
/// carries its marker, when the agent comes back.
pub(crate) fn spawn(node: &Arc<Node>, row: &InstanceRow, found: Option<i32>) -> Handle {
    let (inbox, requests) = mpsc::channel(INBOX);
    let (status, watcher) = watch::channel(Status {
        phase: row.phase.clone(),
        ready: false,
        pid: None,
        progress: None,
        stage_ends_at: None,
        paused: false,
        warning: None,
    });
    let wake = Arc::new(Notify::new());
    let handle = Handle::new(inbox, wake.clone(), watcher);
    let task = Task {
        node: node.clone(),
        id: row.id.clone(),
        phase: row.phase.clone(),
        restarts: row.restarts,
        vm: None,
        inbox: requests,
        wake,
        status,
        probe: None,
        unmatched: false,
        told: HashMap::new(),
    };
    node.tasks.insert(row.id.clone(), handle.clone());
    let span = info_span!("instance", name = %row.name, id = row.id.short());
    let row = row.clone();
    tokio::spawn(task.run(row, found).instrument(span));
    handle
}

impl Task {
    async fn run(mut self, row: InstanceRow, found: Option<i32>) {
        // Of a new instance: whoever wrote its record wrote this phase.
        fault::point("persisted", self.phase.path());
        while let Err(e) = self.take_up(&row, found).await {
            self.complain(&e).await;
        }
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => self.complain(&e).await,
            }
        }
        self.node.tasks.remove(&self.id);
        self.node
            .events
            .emit(Some(&self.id), EventKind::Deleted, serde_json::json!({}));
        info!("deleted");
    }

    /// The database refused: nothing was done, and it will be tried again.
    async fn complain(&self, e: &DbError) {
        error!("{e}; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// After the agent's start: finds out whether this instance's QEMU lives.
    async fn take_up(&mut self, row: &InstanceRow, found: Option<i32>) -> Result<(), DbError> {
        let boot = boot_id();
        let recorded = row.process.as_ref().filter(|p| p.boot_id == boot);
        let process = self.hold(recorded, found).await;
        let expected = self.phase.may_have_qemu();
        match process {
            Some(process) if expected => {
                info!(pid = process.pid(), phase = self.phase.path(), "adopted");
                let pid = process.pid();
                if recorded.is_none_or(|p| p.pid != pid) {
                    self.record_process(&process, self.planned_tap_fd(row).await?)
                        .await?;
                }
                self.vm = Some(Vm {
                    process,
                    monitor: None,
                    log_from: None,
                });
                self.status.send_modify(|s| s.pid = Some(pid));
                // The plan may be another one's since an upgrade; and what cannot be
                // limited is to be said again.
                if let Err(e) = self.limits(row).await {
                    warn!("{e}");
                }
                let data = serde_json::json!({ "pid": pid });
                self.node
                    .events
                    .emit(Some(&self.id), EventKind::Adopted, data);
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
                self.release_volumes().await?;
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
    async fn hold(&self, recorded: Option<&ProcessRow>, found: Option<i32>) -> Option<Process> {
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
    async fn step(&mut self) -> Result<bool, DbError> {
        let row = self.node.db.instance(&self.id).await?;
        match decide(&self.phase, row.wish, OffsetDateTime::now_utc()) {
            Decision::Go(transition) => self.go(&transition, &row).await?,
            Decision::Work => {
                let transition = self.work(&row).await?;
                fault::point("effected", self.phase.path());
                self.go(&transition, &row).await?;
            }
            Decision::Wait => {
                if let Some(transition) = self.wait(&row).await? {
                    // The wish may have changed while we waited.
                    let row = self.node.db.instance(&self.id).await?;
                    self.go(&transition, &row).await?;
                }
            }
            Decision::End => {
                self.node.db.remove_instance(&self.id).await?;
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
            wanted: row.wish.desired == Desired::Running,
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
        let restarts = match &next {
            Phase::BackingOff { attempt, .. } => *attempt,
            Phase::Stopped { .. } => 0,
            _ => self.restarts,
        };
        let event = self
            .node
            .db
            .set_phase(&self.id, &next, Settled::by(transition, &next), restarts)
            .await?;
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
        self.status.send_modify(|s| {
            s.ready &= next == Phase::Running;
            if !matches!(next, Phase::Stopping { .. }) {
                s.stage_ends_at = None;
            }
            s.phase = next;
        });
        self.node.events.publish(event);
        Ok(())
    }

    /// Tells of something that the guest can cause as often as it likes: at most
    /// once in a while is it recorded.
    pub(super) fn tell_seldom(&mut self, kind: EventKind, data: serde_json::Value) {
        let now = Instant::now();
        if self.told.get(&kind).is_some_and(|at| now - *at < SELDOM) {
            return;
        }
        self.told.insert(kind, now);
        self.node.events.emit(Some(&self.id), kind, data);
    }

    /// Carries out what the phase names.
    async fn work(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        match self.phase.clone() {
            Phase::Preparing { step } => Ok(match self.prepare(step, row).await? {
                Ok(()) => Transition::Done,
                Err(_) if self.is_unwanted().await => Transition::Delete,
                Err(failure) => Transition::Failed { failure },
            }),
            Phase::Starting {
                step: StartStep::Launch,
            } => self.launch(row).await,
            Phase::Starting {
                step: StartStep::Monitor,
            } => self.connect_monitor().await,
            Phase::Stopping {
                stage: StopStage::PowerButton,
                ..
            } => self.press_power_button().await,
            Phase::Stopping {
                stage: StopStage::Quit,
                ..
            } => Ok(self.quit().await),
            Phase::Stopping {
                stage: StopStage::Kill,
                ..
            } => Ok(self.kill().await),
            Phase::Stopping {
                stage: StopStage::CleanUp,
                ..
            }
            | Phase::Deleting {
                step: DeleteStep::CleanUp,
            } => self.clean_up(row).await,
            Phase::Deleting {
                step: DeleteStep::Disks,
            } => self.remove_disks().await,
            _ => Ok(Transition::Done),
        }
    }

    pub(super) async fn is_unwanted(&self) -> bool {
        let row = self.node.db.instance(&self.id).await;
        row.is_ok_and(|row| row.wish.desired == Desired::Deleted)
    }

    /// Rests until something happens.
    async fn wait(&mut self, row: &InstanceRow) -> Result<Option<Transition>, DbError> {
        match &self.phase {
            Phase::Running => self.rest_running(row).await,
            Phase::BackingOff { until, .. } => {
                let left = *until - OffsetDateTime::now_utc();
                let left = left.try_into().unwrap_or(Duration::ZERO);
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    () = self.wake.notified() => {}
                    command = self.inbox.recv() => self.serve(command, row).await,
                }
                Ok(None)
            }
            _ => {
                tokio::select! {
                    () = self.wake.notified() => {}
                    command = self.inbox.recv() => self.serve(command, row).await,
                }
                Ok(None)
            }
        }
    }

    /// Serves one request.
    pub(super) async fn serve(&mut self, command: Option<Command>, row: &InstanceRow) {
        match command {
            // The handles are gone: the agent is shutting down.
            None => std::future::pending().await,
            Some(Command::Attach {
                volume,
                mount,
                reply,
            }) => {
                let _ = reply.send(self.attach_volume(&volume, mount.as_deref()).await);
            }
            Some(Command::Detach { volume, reply }) => {
                let _ = reply.send(self.detach_volume(&volume).await);
            }
            Some(Command::Grow { volume, mib, reply }) => {
                let _ = reply.send(self.grow_volume(&volume, mib).await);
            }
            Some(Command::RepairTap) => self.repair_tap(row).await,
        }
    }
}

fn failure_of(phase: &Phase) -> Option<&Failure> {
    match phase {
        Phase::Failed { failure } | Phase::BackingOff { failure, .. } => Some(failure),
        _ => None,
    }
}

/// A failure with its word.
pub(super) fn failure(code: FailureCode, message: impl ToString) -> Failure {
    Failure {
        code,
        message: message.to_string(),
    }
}
