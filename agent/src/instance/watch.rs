//! Whether a running guest is well: its SSH server's answers, its panics and reboots.

use std::time::Duration;

use crn_api_types::{EventKind, WarningKind};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use super::{
    context::Context,
    probe::{self, PACE, Seen},
    start::age,
    task::Task,
};
use crate::{
    db::{InstanceRow, rfc3339},
    life::Phase,
};

impl Task {
    /// Asks for the guest's SSH server from now on, unless that is going on.
    pub(super) fn watch_guest(&mut self, row: &InstanceRow) {
        if self.probe.is_none() {
            self.start_watching(row, None);
        }
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
            self.start_watching(row, Some(OffsetDateTime::now_utc()));
        }
    }

    fn start_watching(&mut self, row: &InstanceRow, rebooted: Option<OffsetDateTime>) {
        let server = probe::ssh(self.ctx.node.net.guest(row).network.guest());
        let ctx = self.ctx.clone();
        let (began, before) = match rebooted {
            Some(_) => (Instant::now(), Duration::ZERO),
            None => (Instant::now(), age(row.process.as_ref())),
        };
        let mut boots = true;
        let watch = async move {
            probe::watch(server, PACE, rebooted, |seen| {
                let booted = boots.then(|| before + began.elapsed());
                boots = false;
                ctx.guest_seen(seen, booted);
            })
            .await;
        };
        self.probe = Some(tokio::spawn(watch.in_current_span()));
    }
}

impl Context {
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
                let text = "the guest's SSH server has stopped to answer: the guest hangs, has no \
                            network, or ended the server";
                self.set_warning_since(WarningKind::NotAnswering, since, text);
                let data = json!({ "since": rfc3339(since) });
                self.event(EventKind::NotAnswering, data);
            }
        }
    }
}
