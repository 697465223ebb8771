//! A running guest: what wakes its task, and what follows.

use std::time::Duration;

use crn_api_types::{EventKind, WarningKind::NoNetwork};
use futures::future::BoxFuture;
use qmp::RunState;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{Instrument, info, warn};

use super::{
    context::failure,
    hear::Heard,
    job::Matched,
    monitor::{RECONNECT, ask_offloads, ask_state},
    start::age,
    task::Task,
};
use crate::{
    db::{DbError, InstanceRow},
    life::{FailureCode, Transition},
};

/// Logs are measured, and a full disk is tried again, this often.
const TICK: Duration = Duration::from_secs(5);
/// A guest that ran this long ran well: its next restart is its first again.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// A question to QEMU about the machine's state, under way.
pub(super) type Question = BoxFuture<'static, Option<RunState>>;

/// What the guest's time has come for.
enum Due {
    State(Option<RunState>),
    Tick,
    RanWell,
}

impl Task {
    /// Rests while the guest runs.
    pub(super) async fn rest_running(
        &mut self,
        row: &InstanceRow,
    ) -> Result<Option<Transition>, DbError> {
        if self.vm.is_none() {
            return Ok(Some(Transition::Absent));
        }
        let Some(qmp) = self.monitor() else {
            return self.regain_monitor().await;
        };
        self.watch_guest(row);
        if row.hardware.is_none() {
            self.learn_hardware(qmp.clone());
        }
        // What was told when nobody listened, or lost on its way, is asked for.
        let mut question: Option<Question> = Some(Box::pin(ask_state(qmp, false)));
        let ran_well = Instant::now() + GOOD_RUN.saturating_sub(age(row.process.as_ref()));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            let counts = self.restarts > 0;
            let heard = {
                let due = async {
                    tokio::select! {
                        state = answered(&mut question) => Due::State(state),
                        () = sleep_until(ran_well), if counts => Due::RanWell,
                        _ = tick.tick() => Due::Tick,
                    }
                };
                let mut due = std::pin::pin!(due);
                self.hear(due.as_mut()).await
            };
            match heard {
                Heard::Exited => return Ok(Some(self.died().await)),
                Heard::Wake => return Ok(None),
                Heard::Done(Due::State(state)) => {
                    if let Some(transition) = self.on_state(state).await {
                        return Ok(Some(transition));
                    }
                    if std::mem::take(&mut self.ask_again) {
                        self.ask(&mut question);
                    }
                }
                Heard::Done(Due::RanWell) => {
                    self.ctx.node.db.reset_restarts(&self.ctx.id).await?;
                    self.restarts = 0;
                }
                Heard::Done(Due::Tick) => {
                    self.bound_logs();
                    self.keep_health().await?;
                    if self.jobs.matched == Matched::AfterTick {
                        self.jobs.matched = Matched::Due;
                    }
                    let paused = self.ctx.status.borrow().paused;
                    if question.is_none()
                        && paused
                        && let Some(qmp) = self.monitor()
                    {
                        question = Some(Box::pin(ask_state(qmp, true)));
                    }
                }
                Heard::Event(Some(event)) => {
                    if let Some(transition) = self.on_event(event, &mut question).await {
                        return Ok(Some(transition));
                    }
                    // A flood of them is not all that the thread has to do.
                    tokio::task::yield_now().await;
                }
                Heard::Event(None) => return Ok(self.monitor_lost().await),
            }
        }
    }

    /// QEMU's end is seen first by the socket, then by the pidfd.
    pub(super) async fn monitor_lost(&mut self) -> Option<Transition> {
        let vm = self.vm.as_mut()?;
        vm.monitor = None;
        let wake = self.wake.clone();
        let gone = tokio::select! {
            gone = timeout(RECONNECT, vm.process.exited()) => gone.is_ok(),
            () = wake.notified() => {
                // It is still to be heard.
                wake.notify_one();
                false
            }
        };
        match gone {
            true => Some(self.died().await),
            false => None,
        }
    }

    /// QEMU has ended though nobody asked. Nobody's child: how, only the kernel's log
    /// and its own words tell.
    pub(super) async fn died(&mut self) -> Transition {
        let what = "QEMU exited without being asked (killed or crashed: see the kernel's log)";
        let log_from = self.vm.as_ref().and_then(|vm| vm.log_from);
        let message = self.ctx.with_last_words(what, log_from).await;
        Transition::Died {
            failure: failure(FailureCode::Crashed, message),
        }
    }

    /// Keeps the logs short, beside everything else.
    pub(super) fn bound_logs(&mut self) {
        if self.log_bounder.as_ref().is_none_or(|b| b.is_finished()) {
            let work = self.ctx.clone().bound_logs().in_current_span();
            self.log_bounder = Some(tokio::spawn(work));
        }
    }

    /// Gives QEMU its tap back when somebody removed it: the descriptor that it
    /// holds is attached to a new interface of the same name.
    pub(super) async fn repair_tap(&mut self) {
        let Some(vm) = &self.vm else { return };
        let Ok(row) = self.ctx.row().await else {
            return;
        };
        let net = &self.ctx.node.net;
        if net::HostNet::tap_exists(&net.guest(&row).tap) {
            return;
        }
        // QEMUs that an earlier agent launched have it at another number.
        let Some(number) = row.process.as_ref().map(|p| p.tap_fd) else {
            return;
        };
        let offloads = match self.monitor() {
            Some(qmp) => ask_offloads(&qmp).await,
            None => net::Offloads::unknown(),
        };
        match net
            .reattach(&row, vm.process.pidfd(), number, offloads)
            .await
        {
            Ok(()) => {
                info!("the tap is back");
                self.ctx.clear_warning(NoNetwork);
                self.ctx.event(EventKind::TapRepaired, json!({}));
            }
            Err(e) => {
                warn!("the tap cannot be repaired; a restart of the instance will: {e}");
                let text = format!("no network, the tap is gone: {e}");
                self.ctx.set_warning(NoNetwork, text);
            }
        }
    }
}

/// Waits for the answer, if there is a question. Cancel-safe.
async fn answered(question: &mut Option<Question>) -> Option<RunState> {
    let state = match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    };
    *question = None;
    state
}
