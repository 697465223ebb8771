//! The ears of an instance's task: whatever it waits for, everything else is heard
//! meanwhile.

use std::{future::pending, pin::Pin, time::Duration};

use qmp::Event;
use time::OffsetDateTime;

use super::{job::Request, task::Task};
use crate::{
    db::DbError,
    life::{Decision, Transition, decide},
    tasks::Command,
};

/// What a task that waited has heard.
pub(super) enum Heard<T> {
    /// What it waited for.
    Done(T),
    /// QEMU has ended.
    Exited,
    /// What is wanted of the instance may have changed.
    Wake,
    /// QEMU's monitor reports something; `None` when the connection is gone.
    Event(Option<Event>),
}

impl Task {
    /// Waits for `work`, and hears everything else: QEMU's end first, then a changed
    /// intent, then requests and the end of their job. Those two are served here and
    /// do not end the wait; `work` can be waited for again after all others.
    pub(super) async fn hear<T>(
        &mut self,
        mut work: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    ) -> Heard<T> {
        enum Inner {
            Command(Option<Command>),
            Job(super::job::Purpose, Result<(), crate::tasks::TaskError>),
        }
        loop {
            self.start_next_job();
            let (process, events) = match &mut self.vm {
                Some(vm) => (Some(&vm.process), vm.monitor.as_mut().map(|(_, e)| e)),
                None => (None, None),
            };
            let exited = async {
                match process {
                    Some(process) => process.exited().await,
                    None => pending().await,
                }
            };
            let event = async {
                match events {
                    Some(events) => events.next().await,
                    None => pending().await,
                }
            };
            let has_room = self.inbox_is_open && self.jobs.has_room();
            // Events last: a QEMU that never stops talking is not all that is heard.
            let inner = tokio::select! {
                biased;
                () = exited => return Heard::Exited,
                () = self.wake.notified() => return Heard::Wake,
                command = self.inbox.recv(), if has_room => Inner::Command(command),
                (purpose, result) = self.jobs.done() => Inner::Job(purpose, result),
                done = work.as_mut() => return Heard::Done(done),
                event = event => return Heard::Event(event),
            };
            match inner {
                Inner::Command(Some(Command::RepairTap)) => self.repair_tap().await,
                Inner::Command(Some(command)) => self.jobs.push(Request::Command(command)),
                // The handles are gone: the agent is shutting down.
                Inner::Command(None) => self.inbox_is_open = false,
                Inner::Job(purpose, result) => self.job_done(purpose, result),
            }
        }
    }

    /// Waits for `limit` whatever happens, and hears requests meanwhile.
    pub(super) async fn pause(&mut self, limit: Duration) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(limit));
        while !matches!(self.hear(sleep.as_mut()).await, Heard::Done(())) {
            if self.vm.as_ref().is_some_and(|vm| !vm.process.is_alive()) {
                // Its end would be heard again and again.
                return sleep.await;
            }
        }
    }

    /// Where the instance is to go instead of going on with its step, if what is
    /// wanted of it has changed so.
    pub(super) async fn other_way(&self) -> Result<Option<Transition>, DbError> {
        let row = self.ctx.row().await?;
        Ok(
            match decide(&self.phase, row.intent, OffsetDateTime::now_utc()) {
                Decision::Go(transition) => Some(transition),
                Decision::Work | Decision::Wait | Decision::End => None,
            },
        )
    }
}
