//! Serving requests: which one is next, what follows from its end, and when it is not
//! wanted any more.

use tracing::debug;

use super::{
    job::{Matched, Purpose, Request},
    task::Task,
};
use crate::{
    life::{DeleteStep, Phase, PrepareStep, StartStep, StopStage},
    tasks::{Command, TaskError},
};

impl Task {
    /// Starts the next request, if nothing is in its way.
    pub(super) fn start_next_job(&mut self) {
        if self.jobs.running.is_some() || !serves_requests(&self.phase) {
            return;
        }
        let volumes = self.volumes();
        match self.jobs.queue.pop_front() {
            Some(Request::Command(Command::Attach {
                volume,
                mount,
                reply,
            })) => {
                let work = async move { volumes.attach(&volume, mount.as_deref()).await };
                self.jobs.start(Purpose::Request(reply), work);
            }
            Some(Request::Command(Command::Detach { volume, reply })) => {
                let work = async move { volumes.detach(&volume).await };
                self.jobs.start(Purpose::Request(reply), work);
            }
            Some(Request::Command(Command::Grow { volume, mib, reply })) => {
                let work = async move { volumes.grow(&volume, mib).await };
                self.jobs.start(Purpose::Request(reply), work);
            }
            Some(Request::Command(Command::Export {
                target,
                copying,
                reply,
            })) => {
                let (ctx, rests) = (self.ctx.clone(), self.rests());
                let work = async move { ctx.export(rests, target, copying).await };
                self.jobs.start(Purpose::Request(reply), work);
            }
            Some(Request::Command(Command::RepairTap)) => {}
            Some(Request::DeviceGone(volume)) => {
                let work = async move { volumes.device_gone(&volume).await };
                self.jobs.start(Purpose::DeviceGone, work);
            }
            None if self.jobs.matched == Matched::Due && volumes.is_live() => {
                let work = async move { volumes.match_records().await };
                self.jobs.start(Purpose::MatchVolumes, work);
            }
            None => {}
        }
    }

    /// A job has come to its end.
    pub(super) fn job_done(&mut self, purpose: Purpose, result: Result<(), TaskError>) {
        match (purpose, result) {
            (Purpose::Request(reply), result) => drop(reply.send(result)),
            (Purpose::MatchVolumes, Ok(())) => self.jobs.matched = Matched::Yes,
            (Purpose::MatchVolumes, Err(e)) => {
                self.ctx
                    .warn_rate_limited("volumes", format!("volumes, to be tried again: {e}"));
                self.jobs.matched = Matched::AfterTick;
            }
            (Purpose::DeviceGone, Ok(())) => {}
            (Purpose::DeviceGone, Err(e)) => {
                self.ctx
                    .warn_rate_limited("device-gone", format!("a device is gone: {e}"));
                self.jobs.matched = Matched::AfterTick;
            }
        }
    }

    /// Before the instance goes to another phase. One whose guest runs no longer has
    /// no use for what waits for its QEMU; all else is a matter of moments, or of a copy
    /// that somebody waits for and can end, and is brought to its end, so that it does not
    /// meet the next phase.
    pub(super) async fn settle_job(&mut self, next: &Phase) {
        if self.jobs.running.is_none() {
            return;
        }
        if self.phase == Phase::Running && *next != Phase::Running {
            if let Some(mut job) = self.jobs.running.take() {
                job.task.abort();
                // It has come to rest before anything else is done to its volume.
                let result = (&mut job.task).await;
                match (job.purpose.take(), result) {
                    (Some(purpose), Ok(result)) => self.job_done(purpose, result),
                    (Some(purpose), Err(_)) => cancelled(purpose),
                    (None, _) => {}
                }
            }
            self.jobs.matched = Matched::Due;
        } else if !serves_requests(next) {
            let (purpose, result) = self.jobs.done().await;
            self.job_done(purpose, result);
        }
    }
}

/// Whoever waits for the job is told.
fn cancelled(purpose: Purpose) {
    if let Purpose::Request(reply) = purpose {
        let message = "the instance stopped before this was done: ask again";
        let _ = reply.send(Err(TaskError::Refused(message.into())));
    } else {
        debug!("the volumes of the record and of QEMU are compared after the next start");
    }
}

/// Whether requests are served in this phase. In the others the phase's own step works
/// on the same files; it takes moments, and requests wait for it. Pure.
pub(super) fn serves_requests(phase: &Phase) -> bool {
    match phase {
        Phase::Preparing { step } => *step == PrepareStep::Image,
        Phase::Starting { step } => *step == StartStep::Monitor,
        Phase::Stopping { stage, .. } => *stage != StopStage::CleanUp,
        Phase::Deleting { step } => match step {
            DeleteStep::CleanUp | DeleteStep::Disks | DeleteStep::Record => false,
        },
        Phase::Running
        | Phase::AwaitingOwner { .. }
        | Phase::Stopped { .. }
        | Phase::BackingOff { .. }
        | Phase::Failed { .. } => true,
    }
}
