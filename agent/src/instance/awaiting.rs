//! An instance that waits for its owner: for a launch session, a secret, or the key of
//! its disk. It rests. It is never destroyed for waiting.

use time::OffsetDateTime;

use super::{hear::Heard, rest::sleep_until, task::Task};
use crate::{
    db::DbError,
    life::{Awaited, Transition},
};

impl Task {
    /// Waits for the owner, until that time if there is one.
    pub(super) async fn rest_awaiting_owner(
        &mut self,
        what: Awaited,
        until: Option<OffsetDateTime>,
    ) -> Result<Option<Transition>, DbError> {
        if !what.has_qemu() {
            return Ok(self.rest_until(until).await);
        }
        if self.vm.is_none() {
            return Ok(Some(Transition::Absent));
        }
        if self.monitor().is_none() {
            return self.regain_monitor().await;
        }
        let mut due = std::pin::pin!(sleep_until(until));
        loop {
            match self.hear(due.as_mut()).await {
                // What follows is decided by the caller.
                Heard::Done(()) | Heard::Wake => return Ok(None),
                Heard::Exited => return Ok(Some(self.died().await)),
                Heard::Event(None) => return Ok(self.monitor_lost().await),
                Heard::Event(Some(qmp::Event::Shutdown { guest: true, .. })) => {
                    return Ok(Some(Transition::PoweredOff));
                }
                Heard::Event(Some(_)) => tokio::task::yield_now().await,
            }
        }
    }
}
