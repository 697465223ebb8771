//! A running guest: what QEMU reports, what is asked of it, its death.

use std::time::Duration;

use crn_api_types::EventKind;
use qmp::{Event, RunState};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{Instrument, debug, info, warn};

use super::{
    console_log, probe,
    start::age,
    task::{GOOD_RUN, Task, failure},
};
use crate::{
    db::{DbError, InstanceRow},
    fs::blocking,
    life::{FailureCode, Transition},
    paths::InstanceFile,
    qemu::plan::socket,
    tasks::Command,
};

/// Logs are measured, and a full disk is tried again, this often.
const TICK: Duration = Duration::from_secs(5);
/// A monitor that was lost is knocked at this often.
const KNOCK: Duration = Duration::from_secs(2);

/// How long QEMU may take to say in which state it is.
const ANSWER: Duration = Duration::from_secs(5);

/// What woke the task up.
enum Woken {
    Exited,
    Wake,
    Command(Option<Command>),
    Event(Option<Event>),
    Tick,
    RanWell,
}

impl Task {
    /// Rests while the guest runs.
    pub(super) async fn rest_running(
        &mut self,
        row: &InstanceRow,
    ) -> Result<Option<Transition>, DbError> {
        let Some(vm) = &self.vm else {
            return Ok(Some(Transition::Absent));
        };
        if vm.monitor.is_none() {
            if let Some(transition) = self.regain_monitor(row).await? {
                return Ok(Some(transition));
            }
            if self.vm.as_ref().is_none_or(|vm| vm.monitor.is_none()) {
                return Ok(None);
            }
        }
        // What was told when nobody listened, or lost on its way, is asked for.
        if let Some(transition) = self.look_at_state().await {
            return Ok(Some(transition));
        }
        if self.unmatched {
            self.unmatched = false;
            if let Err(e) = self.match_volumes().await? {
                warn!("volumes, to be tried again: {e}");
                self.unmatched = true;
            }
        }
        if !self.status.borrow().ready {
            self.watch_for_ssh(row);
        }
        let ran_well = Instant::now() + GOOD_RUN.saturating_sub(age(row.process.as_ref()));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            let Some(vm) = &mut self.vm else {
                return Ok(Some(Transition::Absent));
            };
            let Some((_, events)) = &mut vm.monitor else {
                return Ok(None);
            };
            // Events last: a QEMU that never stops talking is not all that is heard.
            let woken = tokio::select! {
                biased;
                () = vm.process.exited() => Woken::Exited,
                () = self.wake.notified() => Woken::Wake,
                command = self.inbox.recv() => Woken::Command(command),
                () = sleep_until(ran_well), if self.restarts > 0 => Woken::RanWell,
                _ = tick.tick() => Woken::Tick,
                event = events.next() => Woken::Event(event),
            };
            match woken {
                Woken::Wake => return Ok(None),
                Woken::Command(command) => {
                    self.serve(command, row).await;
                    return Ok(None);
                }
                Woken::Exited => return Ok(Some(self.died().await)),
                Woken::Event(Some(event)) => {
                    if let Some(transition) = self.heard(event).await {
                        return Ok(Some(transition));
                    }
                    tokio::task::yield_now().await;
                }
                Woken::Event(None) => {
                    // Its end is seen first by the socket, then by the pidfd.
                    vm.monitor = None;
                    let gone = timeout(KNOCK, vm.process.exited()).await;
                    return Ok(match gone {
                        Ok(()) => Some(self.died().await),
                        Err(_) => None,
                    });
                }
                Woken::RanWell => {
                    self.node.db.reset_restarts(&self.id).await?;
                    self.restarts = 0;
                }
                Woken::Tick => {
                    self.bound_logs().await;
                    if self.status.borrow().paused {
                        self.resume().await;
                    }
                    if self.unmatched {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Connects to the monitor again. Without success after a while, nothing is
    /// returned and the caller decides anew: a running guest is not killed because
    /// its monitor is mute, and neither are requests left unheard.
    async fn regain_monitor(&mut self, row: &InstanceRow) -> Result<Option<Transition>, DbError> {
        self.unmatched = true;
        let Some(vm) = &self.vm else {
            return Ok(Some(Transition::Absent));
        };
        let path = self.node.paths.run(&self.id).join(socket::QMP);
        let config = qmp::Config::default();
        let outcome = tokio::select! {
            outcome = qmp::Qmp::connect(&path, &config) => outcome,
            () = vm.process.exited() => return Ok(Some(self.died().await)),
            () = self.wake.notified() => return Ok(None),
            command = self.inbox.recv() => {
                self.serve(command, row).await;
                return Ok(None);
            }
        };
        let (qmp, events) = match outcome {
            Ok(monitor) => monitor,
            Err(e) => {
                let warning = format!("the monitor does not answer: {e}");
                if self.status.borrow().warning.as_deref() != Some(&warning) {
                    warn!("{warning}");
                    self.status.send_modify(|s| s.warning = Some(warning));
                }
                self.bound_logs().await;
                tokio::select! {
                    () = tokio::time::sleep(KNOCK) => {}
                    () = self.wake.notified() => {}
                    command = self.inbox.recv() => self.serve(command, row).await,
                }
                return Ok(None);
            }
        };
        if self
            .status
            .borrow()
            .warning
            .as_deref()
            .is_some_and(|w| w.starts_with("the monitor"))
        {
            self.status.send_modify(|s| s.warning = None);
        }
        if let Some(vm) = &mut self.vm {
            vm.monitor = Some((qmp, events));
        }
        Ok(None)
    }

    /// Asks QEMU what events would have told.
    async fn look_at_state(&mut self) -> Option<Transition> {
        let (qmp, _) = self.vm.as_ref()?.monitor.as_ref()?;
        match timeout(ANSWER, qmp.status()).await {
            Ok(Ok(RunState::Shutdown)) => return Some(self.powered_off()),
            Ok(Ok(RunState::IoError)) => self.status.send_modify(|s| s.paused = true),
            Ok(Ok(state @ (RunState::InternalError | RunState::GuestPanicked))) => {
                return Some(self.stuck(state).await);
            }
            Ok(Ok(RunState::Running)) => self.unpaused(),
            Ok(Ok(_)) => {}
            Ok(Err(e)) => warn!("{e}"),
            Err(_) => warn!("QEMU does not say in which state it is"),
        }
        None
    }

    /// A guest whose virtual CPUs will never run again is restarted.
    async fn stuck(&mut self, state: RunState) -> Transition {
        let message = format!("the guest cannot go on: QEMU's state is {state:?}");
        warn!("{message}");
        if let Some(vm) = &self.vm {
            vm.process.kill();
            let _ = timeout(KNOCK, vm.process.exited()).await;
        }
        Transition::Died {
            failure: failure(FailureCode::Crashed, message),
        }
    }

    /// The guest runs.
    fn unpaused(&mut self) {
        if !self.status.borrow().paused {
            return;
        }
        info!("resumed");
        self.status.send_modify(|s| {
            s.paused = false;
            s.warning = None;
        });
        self.tell_seldom(EventKind::Resumed, json!({}));
    }

    fn powered_off(&self) -> Transition {
        info!("the guest powered off");
        Transition::PoweredOff
    }

    /// QEMU told of something.
    async fn heard(&mut self, event: Event) -> Option<Transition> {
        match event {
            Event::Shutdown { guest: true, .. } => return Some(self.powered_off()),
            Event::Shutdown {
                guest: false,
                reason,
            } => {
                // Not by us: a stop is not served here. QEMU exits by itself now.
                warn!("QEMU is being ended from the host: {reason}");
            }
            Event::Reset { guest, reason } => {
                debug!(guest, "the guest reboots: {reason}");
                self.tell_seldom(
                    EventKind::Rebooted,
                    json!({ "guest": guest, "reason": reason.as_str() }),
                );
                self.status.send_modify(|s| s.ready = false);
                let row = self.node.db.instance(&self.id).await.ok()?;
                self.watch_for_ssh(&row);
            }
            Event::BlockIoError {
                node,
                operation,
                action,
                reason,
                nospace,
                ..
            } => {
                let node = node.unwrap_or_default();
                debug!(node, operation, action, nospace, "disk error: {reason}");
                let data = json!({ "node": node, "operation": operation, "action": action,
                                   "reason": reason, "nospace": nospace });
                // One that is still paused only failed once more.
                if !self.status.borrow().paused {
                    self.tell_seldom(EventKind::DiskError, data);
                }
                if action == "stop" {
                    self.status.send_modify(|s| {
                        s.paused = true;
                        s.warning = Some(format!("paused by a disk error: {reason}"));
                    });
                }
            }
            Event::BlockImageCorrupted {
                node, msg, fatal, ..
            } => {
                warn!(node, fatal, "a disk is damaged: {msg}");
                let warning = format!("a disk is damaged: {msg}");
                self.status.send_modify(|s| s.warning = Some(warning));
                self.tell_seldom(
                    EventKind::DiskDamaged,
                    json!({ "node": node, "message": msg, "fatal": fatal }),
                );
            }
            // Not `Resume`: a disk that is full still pauses it again at once.
            Event::Stop => return self.look_at_state().await,
            Event::GuestPanicked { action, .. } => {
                warn!("the guest's kernel panicked; QEMU's action is {action}");
                self.tell_seldom(EventKind::GuestPanicked, json!({ "action": action }));
            }
            Event::DeviceDeleted {
                device: Some(device),
                ..
            } => {
                if let Err(e) = self.device_gone(&device).await {
                    warn!("{device} is gone from the machine: {e}");
                }
            }
            Event::Lagged { missed } => {
                warn!("{missed} of QEMU's events were lost");
                // Looked at with the next tick.
                self.unmatched = true;
            }
            other => debug!("{other:?}"),
        }
        None
    }

    /// Lets a guest that a full disk stopped try again; one that has run since the
    /// last try is well.
    async fn resume(&mut self) {
        let Some((qmp, _)) = self.vm.as_ref().and_then(|vm| vm.monitor.as_ref()) else {
            return;
        };
        match timeout(ANSWER, qmp.status()).await {
            Ok(Ok(RunState::Running)) => self.unpaused(),
            Ok(Ok(RunState::IoError)) => {
                if let Err(e) = qmp.cont().await {
                    warn!("cannot resume: {e}");
                }
            }
            other => debug!("not resumed: {other:?}"),
        }
    }

    async fn died(&mut self) -> Transition {
        // Nobody's child: how it ended, only the kernel's log and its own words tell.
        let what = "QEMU exited without being asked (killed or crashed: see the kernel's log)";
        let message = self.obituary(what).await;
        Transition::Died {
            failure: failure(FailureCode::Crashed, message),
        }
    }

    /// Keeps the logs that the guest can grow within their bounds.
    async fn bound_logs(&self) {
        let most = self.node.config.qemu.console_log_kib.saturating_mul(1024);
        let file = |f| self.node.paths.instance_file(&self.id, f);
        let logs = [file(InstanceFile::ConsoleLog), file(InstanceFile::QemuLog)];
        let work = move || {
            for log in &logs {
                console_log::bound(log, most)?;
            }
            Ok::<_, std::io::Error>(())
        };
        if let Err(e) = blocking(work).await {
            warn!("a log cannot be kept small: {e}");
        }
    }

    /// Starts asking for the guest's SSH server, unless that is going on.
    fn watch_for_ssh(&mut self, row: &InstanceRow) {
        if self.probe.as_ref().is_some_and(|p| !p.is_finished()) {
            return;
        }
        let address = self.node.net.guest(row).network.guest();
        let (status, events, id) = (
            self.status.clone(),
            self.node.events.clone(),
            self.id.clone(),
        );
        let launched = age(row.process.as_ref());
        let began = Instant::now();
        let probe = async move {
            probe::until_ssh_answers(address).await;
            status.send_modify(|s| s.ready = true);
            let took = launched + began.elapsed();
            info!(
                "SSH answers, {:.1} s after QEMU's launch",
                took.as_secs_f64()
            );
            let at = OffsetDateTime::now_utc().unix_timestamp();
            events.emit(
                Some(&id),
                EventKind::Ready,
                json!({ "at": at, "ms": took.as_millis() as u64 }),
            );
        };
        self.probe = Some(tokio::spawn(probe.in_current_span()));
    }

    /// Gives QEMU its tap back when somebody removed it: the descriptor that it
    /// holds is attached to a new interface of the same name.
    pub(super) async fn repair_tap(&mut self, row: &InstanceRow) {
        let Some(vm) = &self.vm else { return };
        let guest = self.node.net.guest(row);
        if net::HostNet::tap_exists(&guest.tap) {
            return;
        }
        let Some(number) = row.process.as_ref().map(|p| p.tap_fd) else {
            return;
        };
        match self
            .node
            .net
            .reattach(row, vm.process.pidfd(), number)
            .await
        {
            Ok(()) => {
                info!("the tap is back");
                self.node
                    .events
                    .emit(Some(&self.id), EventKind::TapRepaired, json!({}));
            }
            Err(e) => {
                warn!("the tap cannot be repaired; a restart of the instance will: {e}");
                let warning = Some(format!("no network, the tap is gone: {e}"));
                self.status.send_modify(|s| s.warning = warning);
            }
        }
    }
}
