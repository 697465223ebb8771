//! Whether a running guest is well: its SSH server's answers, its panics and reboots.

use std::time::Duration;

use crn_api_types::{EventKind, WarningKind};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use super::{
    context::Context,
    probe::{self, Before, PACE, Seen},
    start::age,
    task::Task,
};
use crate::{
    db::{DbError, GuestHealth, InstanceRow, rfc3339},
    life::Phase,
};

/// What is told of a guest whose SSH server answered before.
const SILENT: &str = "the guest's SSH server has stopped to answer: the guest hangs, has no \
                      network, or ended the server";
/// What is told of a guest that panicked.
pub(super) const PANICKED: &str = "the guest's kernel panicked: see its console";

impl Task {
    /// Asks for the guest's SSH server from now on, unless that is going on.
    pub(super) fn watch_guest(&mut self, row: &InstanceRow) {
        if self.probe.is_none() {
            let before = match self.health {
                GuestHealth {
                    answered: false, ..
                } => Before::Boots,
                health if health.silent_since.is_some() => Before::Silent,
                _ => Before::Answered,
            };
            self.start_watching(row, before);
        }
    }

    /// What an agent before this one saw of the guest still is so, for all we know.
    pub(super) fn restore_health(&mut self, health: GuestHealth) {
        self.health = health;
        if let Some(since) = health.panicked_since {
            self.ctx
                .set_warning_since(WarningKind::GuestPanicked, since, PANICKED);
        }
        match health.silent_since {
            Some(since) => self
                .ctx
                .set_warning_since(WarningKind::NotAnswering, since, SILENT),
            None => self.ctx.status.send_modify(|s| s.ready = health.answered),
        }
    }

    /// Records what is known of the guest, where that has changed. Not at once: a guest may panic
    /// and reboot as often as it likes.
    pub(super) async fn keep_health(&mut self) -> Result<(), DbError> {
        let health = self.ctx.health();
        if health != self.health {
            self.ctx
                .node
                .db
                .set_guest_health(&self.ctx.id, health)
                .await?;
            self.health = health;
        }
        Ok(())
    }

    /// The guest boots again: what was told of it is over, and it has to answer anew.
    pub(super) fn watch_reboot(&mut self, row: &InstanceRow) {
        self.ctx.clear_warning(WarningKind::GuestPanicked);
        let silent = self.ctx.clear_warning(WarningKind::NotAnswering);
        let had_answered = silent || self.ctx.status.borrow().ready;
        // One that has not answered is asked for all the while.
        if had_answered && let Some(probe) = self.probe.take() {
            probe.abort();
            self.ctx.status.send_modify(|s| s.ready = false);
            let since = OffsetDateTime::now_utc();
            self.start_watching(row, Before::Reboots { since });
        }
    }

    fn start_watching(&mut self, row: &InstanceRow, before: Before) {
        let server = probe::ssh(self.ctx.node.net.guest(row).network.guest());
        let ctx = self.ctx.clone();
        let began = Instant::now();
        let mut boots = match before {
            Before::Boots => Some(age(row.process.as_ref())),
            Before::Reboots { .. } => Some(Duration::ZERO),
            Before::Answered | Before::Silent => None,
        };
        let watch = async move {
            probe::watch(server, PACE, before, |seen| {
                let booted = boots.take().map(|earlier| earlier + began.elapsed());
                ctx.guest_seen(seen, booted);
            })
            .await;
        };
        self.probe = Some(tokio::spawn(watch.in_current_span()));
    }
}

impl Context {
    /// What is known of the guest.
    fn health(&self) -> GuestHealth {
        let status = self.status.borrow();
        let since = |kind| status.warnings.get(&kind).map(|w| w.since);
        let silent_since = since(WarningKind::NotAnswering);
        GuestHealth {
            answered: status.ready || silent_since.is_some(),
            silent_since,
            panicked_since: since(WarningKind::GuestPanicked),
        }
    }

    /// Tells what became of the guest's SSH server. `booted` is how long a guest took
    /// that was waited for to boot.
    pub(super) fn guest_seen(&self, seen: Seen, booted: Option<Duration>) {
        let status = self.status.borrow().clone();
        match seen {
            Seen::Answers => {
                self.clear_warning(WarningKind::NotAnswering);
                if status.ready {
                    return;
                }
                self.status.send_modify(|s| s.ready = true);
                let at = OffsetDateTime::now_utc().unix_timestamp();
                let data = match booted {
                    Some(took) => {
                        let seconds = took.as_secs_f64();
                        info!(
                            "SSH answers, {seconds:.1} s after QEMU's launch or the guest's reboot"
                        );
                        json!({ "at": at, "ms": took.as_millis() as u64 })
                    }
                    None => {
                        info!("SSH answers again");
                        json!({ "at": at })
                    }
                };
                self.event(EventKind::Ready, data);
            }
            // Of one that is paused, or on its way out, that is no news.
            Seen::Silent { .. } if status.paused || status.phase != Phase::Running => {}
            Seen::Silent { since } => {
                warn!("SSH answers no more, since {}", rfc3339(since));
                self.status.send_modify(|s| s.ready = false);
                self.set_warning_since(WarningKind::NotAnswering, since, SILENT);
                let data = json!({ "since": rfc3339(since) });
                self.event(EventKind::NotAnswering, data);
            }
        }
    }
}
