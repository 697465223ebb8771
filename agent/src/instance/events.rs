//! What QEMU reports of a running machine, and what follows.

use crn_api_types::{EventKind, WarningKind};
use qmp::{Event, RunState};
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    context::failure,
    job::{Matched, Request},
    monitor::{RECONNECT, ask_state},
    rate_limit::peer_text,
    running::Question,
    task::Task,
    watch::PANICKED,
};
use crate::{
    life::{FailureCode, Transition},
    qemu::names::volume_of_device,
};

impl Task {
    /// QEMU said in which state the machine is, or did not answer.
    pub(super) async fn on_state(&mut self, state: Option<RunState>) -> Option<Transition> {
        let Some(state) = state else {
            let text = "QEMU does not say in which state it is";
            self.ctx.warn_rate_limited("monitor", text);
            self.ctx.set_warning(WarningKind::MonitorSilent, text);
            return None;
        };
        self.ctx.clear_warning(WarningKind::MonitorSilent);
        match state {
            RunState::Shutdown => return Some(self.powered_off()),
            RunState::IoError => self.ctx.status.send_modify(|s| s.paused = true),
            RunState::InternalError | RunState::GuestPanicked => {
                return Some(self.cannot_go_on(&state).await);
            }
            RunState::Running => self.resumed(),
            _ => {}
        }
        None
    }

    /// A guest whose virtual CPUs will never run again is restarted.
    async fn cannot_go_on(&mut self, state: &RunState) -> Transition {
        let message = format!("the guest cannot go on: QEMU's state is {state}");
        warn!("{message}");
        if let Some(vm) = &self.vm {
            vm.process.kill();
            let _ = timeout(RECONNECT, vm.process.exited()).await;
        }
        Transition::Died {
            failure: failure(FailureCode::Crashed, message),
        }
    }

    /// The guest runs, whatever paused it.
    fn resumed(&mut self) {
        if !self.ctx.status.borrow().paused {
            return;
        }
        info!("resumed");
        self.ctx.status.send_modify(|s| s.paused = false);
        self.ctx.clear_warning(WarningKind::Paused);
        self.ctx.event_rate_limited(EventKind::Resumed, json!({}));
    }

    /// What follows is the guest's own to say: it may reboot, or save what it can.
    fn panicked(&self, action: &str, text: &str) {
        self.ctx.warn_rate_limited("guest-panicked", text);
        self.ctx.set_warning(WarningKind::GuestPanicked, text);
        let data = json!({ "action": action });
        self.ctx.event_rate_limited(EventKind::GuestPanicked, data);
    }

    fn powered_off(&self) -> Transition {
        info!("the guest powered off");
        Transition::PoweredOff
    }

    /// Asks in which state the machine is; once more, if that is being asked already:
    /// the answer may be older than what made us ask.
    pub(super) fn ask(&mut self, question: &mut Option<Question>) {
        if question.is_some() {
            self.ask_again = true;
        } else if let Some(qmp) = self.monitor() {
            *question = Some(Box::pin(ask_state(qmp, false)));
        }
    }

    /// QEMU reports something. What can only be answered by asking QEMU becomes the
    /// `question`.
    pub(super) async fn on_event(
        &mut self,
        event: Event,
        question: &mut Option<Question>,
    ) -> Option<Transition> {
        match event {
            Event::Shutdown { guest: true, .. } => return Some(self.powered_off()),
            Event::Shutdown {
                guest: false,
                reason,
            } => {
                // Not by us: a stop is not served here. QEMU exits by itself now.
                let text = format!("QEMU is being ended from the host: {reason}");
                self.ctx.warn_rate_limited("shutdown", text);
            }
            Event::Reset { guest, reason } => {
                debug!(guest, "the guest reboots: {reason}");
                let data = json!({ "guest": guest, "reason": peer_text(reason.as_str()) });
                self.ctx.event_rate_limited(EventKind::Rebooted, data);
                let row = self.ctx.row().await.ok()?;
                self.watch_reboot(&row);
            }
            Event::BlockIoError {
                node,
                operation,
                action,
                reason,
                nospace,
                ..
            } => {
                let [node, operation, action, reason] = [
                    &node.unwrap_or_default(),
                    operation.as_str(),
                    action.as_str(),
                    &reason,
                ]
                .map(peer_text);
                debug!(node, operation, action, nospace, "disk error: {reason}");
                // One that is still paused only failed once more.
                if !self.ctx.status.borrow().paused {
                    let data = json!({ "node": node, "operation": operation, "action": action,
                                       "reason": reason, "nospace": nospace });
                    self.ctx.event_rate_limited(EventKind::DiskError, data);
                }
                if action == "stop" {
                    self.ctx.status.send_modify(|s| s.paused = true);
                    let text = format!("paused by a disk error: {reason}");
                    self.ctx.set_warning(WarningKind::Paused, text);
                }
            }
            Event::BlockImageCorrupted {
                node, msg, fatal, ..
            } => {
                let [node, msg] = [&node.unwrap_or_default(), &msg].map(|text| peer_text(text));
                let text = format!("a disk is damaged: {msg}");
                self.ctx.warn_rate_limited("disk-damaged", &text);
                self.ctx.set_warning(WarningKind::DiskDamaged, text);
                let data = json!({ "node": node, "message": msg, "fatal": fatal });
                self.ctx.event_rate_limited(EventKind::DiskDamaged, data);
            }
            // Not `Resume`: a disk that is full still pauses it again at once.
            Event::Stop => self.ask(question),
            Event::GuestPanicked { action, .. } => {
                let action = peer_text(&action.to_string());
                self.panicked(&action, PANICKED);
            }
            Event::GuestCrashLoaded { action } => {
                let text = "the guest's kernel panicked, and another one saves what it left";
                self.panicked(&peer_text(&action), text);
            }
            Event::Watchdog { action } => {
                let action = peer_text(&action);
                let text = format!("the guest's watchdog ran out: {action}");
                self.ctx.warn_rate_limited("watchdog", text);
                let data = json!({ "action": action });
                self.ctx.event_rate_limited(EventKind::Watchdog, data);
            }
            Event::DeviceDeleted {
                device: Some(device),
                ..
            } => {
                if let Some(volume) = volume_of_device(&device) {
                    self.jobs.push(Request::DeviceGone(volume.to_owned()));
                }
            }
            Event::Lagged { missed } => {
                let text = format!("{missed} of QEMU's events were lost");
                self.ctx.warn_rate_limited("lagged", text);
                // What they may have told is asked for, though not faster than they come.
                if self.jobs.matched == Matched::Yes {
                    self.jobs.matched = Matched::AfterTick;
                }
                self.ask(question);
            }
            other => debug!("{}", peer_text(&format!("{other:?}"))),
        }
        None
    }
}
