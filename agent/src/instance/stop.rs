//! The end of a QEMU, harder by the stage.

use std::time::Duration;

use crn_api_types::{EventKind, WarningKind};
use futures::future::BoxFuture;
use qmp::{Event, Events, Qmp, RunState};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use super::{hear::Heard, monitor::ANSWER, task::Task};
use crate::{
    db::{DbError, InstanceRow},
    life::Transition,
    qemu::plan::socket,
};

/// A guest that is still booting, or does not listen to the button yet, gets it again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// How long a monitor may take to greet, and to take the order to quit.
const MONITOR_LIMIT: Duration = Duration::from_secs(5);
/// The same, where the owner does not want to wait: QEMU is killed then. What the guest
/// has flushed is on disk, as after a power cut.
const FORCED_LIMIT: Duration = Duration::from_millis(500);

type Monitor = (Qmp, Events);

/// What became of the button.
enum Pressed {
    Yes,
    /// No need: the guest is off.
    Off,
    /// QEMU refused or did not answer.
    No,
}

/// A step on the way to the guest's end.
enum Step {
    Connected(Result<Monitor, qmp::Error>),
    Pressed(Pressed),
    TimeIsUp,
}

async fn press(qmp: Qmp, after: Duration) -> Step {
    sleep(after).await;
    let press = async {
        if qmp.status().await? == RunState::Shutdown {
            return Ok(Pressed::Off);
        }
        qmp.power_down().await.map(|()| Pressed::Yes)
    };
    Step::Pressed(match timeout(ANSWER, press).await {
        Ok(Ok(pressed)) => pressed,
        Ok(Err::<_, qmp::Error>(e)) => {
            warn!("the power button cannot be pressed: {e}");
            Pressed::No
        }
        Err(_) => {
            warn!("the power button cannot be pressed: QEMU does not answer");
            Pressed::No
        }
    })
}

impl Task {
    /// Presses the power button and waits for the guest to be off.
    pub(super) async fn press_power_button(&mut self) -> Result<Transition, DbError> {
        let limit = Duration::from_secs(self.ctx.node.config.stop.power_button_seconds);
        let end = self.limit_stage(limit);
        let mut step: BoxFuture<'static, Step> = match self.monitor() {
            Some(qmp) => Box::pin(press(qmp, Duration::ZERO)),
            None => {
                let connect = self.connect_within(MONITOR_LIMIT);
                Box::pin(async { Step::Connected(connect.await) })
            }
        };
        loop {
            let heard = {
                let work = async {
                    tokio::select! {
                        step = &mut step => step,
                        () = sleep_until(end) => Step::TimeIsUp,
                    }
                };
                let mut work = std::pin::pin!(work);
                self.hear(work.as_mut()).await
            };
            let next = match heard {
                Heard::Exited => return Ok(Transition::Exited),
                Heard::Event(Some(Event::Shutdown { .. })) => return Ok(Transition::Escalate),
                Heard::Event(Some(_)) => continue,
                Heard::Event(None) => return Ok(self.escalate_unless_gone()),
                // In a hurry after all?
                Heard::Wake => match self.other_way().await? {
                    Some(transition) => return Ok(transition),
                    None => continue,
                },
                Heard::Done(Step::TimeIsUp) => {
                    warn!("the guest did not shut down within {} s", limit.as_secs());
                    return Ok(Transition::Escalate);
                }
                // It may have shut down when nobody listened.
                Heard::Done(Step::Pressed(Pressed::Off)) => return Ok(Transition::Escalate),
                Heard::Done(Step::Pressed(Pressed::Yes | Pressed::No)) => PRESS_AGAIN,
                Heard::Done(Step::Connected(Ok(monitor))) => {
                    self.connected(monitor);
                    Duration::ZERO
                }
                Heard::Done(Step::Connected(Err(e))) => {
                    warn!("the monitor does not answer: {e}");
                    return Ok(self.escalate_unless_gone());
                }
            };
            let Some(qmp) = self.monitor() else {
                return Ok(self.escalate_unless_gone());
            };
            step = Box::pin(press(qmp, next));
        }
    }

    /// Has QEMU flush its disks and exit. One that does not take the order is asked by
    /// SIGTERM, which does the same, and given as long for that; if the owner is in a
    /// hurry it is given up on at once.
    pub(super) async fn quit(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        let limit = Duration::from_secs(self.ctx.node.config.stop.quit_seconds);
        let end = self.limit_stage(limit);
        let patience = |forced| if forced { FORCED_LIMIT } else { MONITOR_LIMIT };
        let mut forced = row.intent.force;
        let mut until = end.min(Instant::now() + patience(forced));
        let (mut answered, mut taken, mut signalled) = (false, false, false);
        let (monitor, connect) = (self.monitor(), self.connect_within(MONITOR_LIMIT));
        let order = async move {
            // The connection is kept until QEMU has taken the order.
            let (qmp, _events) = match monitor {
                Some(qmp) => (qmp, None),
                None => {
                    let (qmp, events) = connect.await?;
                    (qmp, Some(events))
                }
            };
            qmp.quit().await
        };
        let mut order: BoxFuture<'static, Result<(), qmp::Error>> = Box::pin(order);
        loop {
            let heard = {
                let work = async {
                    tokio::select! {
                        answer = &mut order, if !answered => Some(answer),
                        () = sleep_until(until) => None,
                    }
                };
                let mut work = std::pin::pin!(work);
                self.hear(work.as_mut()).await
            };
            match heard {
                Heard::Exited => return Ok(Transition::Exited),
                Heard::Done(Some(Ok(()))) => (answered, taken, until) = (true, true, end),
                Heard::Done(Some(Err(e))) => {
                    warn!("QEMU cannot be told to quit: {e}");
                    // One that is about to be gone has closed its monitor first.
                    (answered, until) = (true, end.min(Instant::now() + FORCED_LIMIT));
                }
                Heard::Done(None) if !(taken || signalled || forced) => {
                    self.end_by_signal("its monitor cannot be reached");
                    (answered, signalled, until) = (true, true, Instant::now() + limit);
                }
                Heard::Done(None) => {
                    warn!("QEMU did not quit in time");
                    return Ok(self.escalate_unless_gone());
                }
                Heard::Wake => {
                    forced |= self.ctx.row().await?.intent.force;
                    if forced && !taken {
                        until = until.min(Instant::now() + FORCED_LIMIT);
                    }
                }
                Heard::Event(Some(_)) => {}
                Heard::Event(None) => {
                    if let Some(vm) = &mut self.vm {
                        vm.monitor = None;
                    }
                }
            }
        }
    }

    /// A stop that was asked for politely does not become a hard one in silence.
    fn end_by_signal(&self, why: &str) {
        let Some(vm) = &self.vm else { return };
        warn!("QEMU is asked to end by SIGTERM, the guest is not: {why}");
        vm.process.terminate();
        let data = json!({ "why": why });
        self.ctx.event(EventKind::EndedBySignal, data);
    }

    /// Kills QEMU. One that does not even die of that (it hangs in the kernel) is
    /// waited for: its disks are still open.
    pub(super) async fn kill(&mut self) -> Transition {
        let limit = Duration::from_secs(self.ctx.node.config.stop.kill_seconds);
        let end = self.limit_stage(limit);
        let Some(vm) = &self.vm else {
            return Transition::Exited;
        };
        vm.process.kill();
        let pid = vm.process.pid();
        let mut limit = std::pin::pin!(sleep_until(end));
        loop {
            match self.hear(limit.as_mut()).await {
                Heard::Exited => return Transition::Exited,
                Heard::Done(()) => break,
                Heard::Event(None) => {
                    if let Some(vm) = &mut self.vm {
                        vm.monitor = None;
                    }
                }
                // Nothing is harder than this.
                Heard::Wake | Heard::Event(Some(_)) => {}
            }
        }
        let text = format!("QEMU {pid} does not die of SIGKILL");
        tracing::error!("{text}");
        self.ctx.set_warning(WarningKind::Unkillable, text);
        Transition::Escalate
    }

    /// Tells how long the stage may last.
    fn limit_stage(&self, limit: Duration) -> Instant {
        let at = OffsetDateTime::now_utc() + limit;
        let text = at
            .format(&time::format_description::well_known::Rfc3339)
            .ok();
        self.ctx.status.send_modify(|s| s.stage_ends_at = text);
        Instant::now() + limit
    }

    /// Connects to the monitor, beside everything else.
    fn connect_within(
        &self,
        limit: Duration,
    ) -> impl Future<Output = Result<Monitor, qmp::Error>> + Send + 'static {
        let path = self.ctx.node.paths.run(&self.ctx.id).join(socket::QMP);
        let config = qmp::Config {
            greeting_timeout: limit,
            ..qmp::Config::default()
        };
        async move { Qmp::connect(&path, &config).await }
    }

    fn escalate_unless_gone(&self) -> Transition {
        match &self.vm {
            Some(vm) if vm.process.is_alive() => Transition::Escalate,
            _ => Transition::Exited,
        }
    }
}
