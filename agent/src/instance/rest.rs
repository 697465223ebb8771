//! Resting without a QEMU, or until a time.

use std::time::Duration;

use time::OffsetDateTime;

use super::{hear::Heard, task::Task};
use crate::life::Transition;

impl Task {
    /// Rests without a QEMU: until that time, if there is one, or a changed intent.
    pub(super) async fn rest_until(&mut self, until: Option<OffsetDateTime>) -> Option<Transition> {
        let mut due = std::pin::pin!(sleep_until(until));
        loop {
            match self.hear(due.as_mut()).await {
                Heard::Done(()) | Heard::Wake => return None,
                // There is no QEMU.
                Heard::Exited | Heard::Event(_) => {}
            }
        }
    }
}

/// Returns at that time; never without one. It is looked at again every minute: the
/// clock may be set, and timers do not count while the host sleeps.
pub(super) async fn sleep_until(until: Option<OffsetDateTime>) {
    let Some(until) = until else {
        return std::future::pending().await;
    };
    let most = Duration::from_secs(60);
    while let Ok(left) = Duration::try_from(until - OffsetDateTime::now_utc())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(most)).await;
    }
}
