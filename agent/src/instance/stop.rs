//! The end of a QEMU, harder by the stage, and what is left of it afterwards.

use std::time::Duration;

use crn_api_types::EventKind;
use qmp::{Event, RunState};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::task::Task;
use crate::{
    cgroup::Removal,
    db::{DbError, InstanceRow},
    fs::{blocking, remove_known},
    life::Transition,
    paths::InstanceFile,
    qemu::plan::socket,
    tasks::TaskError,
};

/// A guest that is still booting, or has no ear for the button yet, gets it again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// How long a monitor that we have no connection to may take to answer.
const MONITOR_LIMIT: Duration = Duration::from_secs(5);

/// How long QEMU may take to press the button.
const ANSWER: Duration = Duration::from_secs(5);

/// What became of the button.
enum Pressed {
    Yes,
    /// No need: the guest is off.
    Off,
}

async fn button(qmp: &qmp::Qmp) -> Result<Pressed, qmp::Error> {
    if qmp.status().await? == RunState::Shutdown {
        return Ok(Pressed::Off);
    }
    qmp.power_down().await.map(|()| Pressed::Yes)
}

impl Task {
    /// Presses the power button and waits for the guest to be off.
    pub(super) async fn press_power_button(&mut self) -> Result<Transition, DbError> {
        let limit = Duration::from_secs(self.node.config.stop.power_button_seconds);
        let end = self.limit_stage(limit);
        if !self.reach_monitor().await {
            return Ok(self.escalate_unless_gone());
        }
        let mut press = Instant::now();
        loop {
            let Some(vm) = &mut self.vm else {
                return Ok(Transition::Exited);
            };
            let Some((qmp, events)) = &mut vm.monitor else {
                return Ok(self.escalate_unless_gone());
            };
            let now = Instant::now();
            if now >= end {
                warn!("the guest did not shut down within {} s", limit.as_secs());
                return Ok(Transition::Escalate);
            }
            if now >= press {
                // It may have shut down when nobody listened.
                match timeout(ANSWER.min(end - now), button(qmp)).await {
                    Ok(Ok(Pressed::Off)) => return Ok(Transition::Escalate),
                    Ok(Ok(Pressed::Yes)) => {}
                    Ok(Err(e)) => warn!("the power button cannot be pressed: {e}"),
                    Err(_) => warn!("the power button cannot be pressed: QEMU does not answer"),
                }
                press = now + PRESS_AGAIN;
            }
            tokio::select! {
                () = vm.process.exited() => return Ok(Transition::Exited),
                event = events.next() => match event {
                    Some(Event::Shutdown { .. }) => return Ok(Transition::Escalate),
                    Some(_) => {}
                    None => vm.monitor = None,
                },
                // In a hurry after all?
                () = self.wake.notified() => {
                    if self.node.db.instance(&self.id).await?.wish.force {
                        return Ok(Transition::Escalate);
                    }
                }
                () = tokio::time::sleep_until(press.min(end)) => {}
            }
        }
    }

    /// Has QEMU flush its disks and exit.
    pub(super) async fn quit(&mut self) -> Transition {
        let limit = Duration::from_secs(self.node.config.stop.quit_seconds);
        self.limit_stage(limit);
        if !self.reach_monitor().await {
            return self.escalate_unless_gone();
        }
        let Some(vm) = &self.vm else {
            return Transition::Exited;
        };
        let Some((qmp, _)) = &vm.monitor else {
            return Transition::Escalate;
        };
        let leave = async {
            if let Err(e) = qmp.quit().await {
                warn!("{e}");
            }
            vm.process.exited().await;
        };
        if timeout(limit, leave).await.is_ok() {
            Transition::Exited
        } else {
            warn!("QEMU did not exit within {} s", limit.as_secs());
            Transition::Escalate
        }
    }

    /// Kills QEMU. One that does not even die of that (it hangs in the kernel) is
    /// waited for: its disks are still open.
    pub(super) async fn kill(&mut self) -> Transition {
        let limit = Duration::from_secs(self.node.config.stop.kill_seconds);
        self.limit_stage(limit);
        let Some(vm) = &self.vm else {
            return Transition::Exited;
        };
        vm.process.kill();
        if timeout(limit, vm.process.exited()).await.is_ok() {
            return Transition::Exited;
        }
        let warning = format!("QEMU {} does not die of SIGKILL", vm.process.pid());
        tracing::error!("{warning}");
        self.status.send_modify(|s| s.warning = Some(warning));
        Transition::Escalate
    }

    /// Removes what a QEMU leaves behind, and tries until it is done.
    pub(super) async fn clean_up(&mut self, row: &InstanceRow) -> Result<Transition, DbError> {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        if let Some(vm) = self.vm.take()
            && vm.process.is_alive()
        {
            // Nothing leads here with a QEMU alive; its disks are too dear to rely on it.
            vm.process.kill();
            vm.process.exited().await;
        }
        let mut pause = Duration::from_millis(500);
        while let Err(e) = self.try_clean_up(row).await {
            warn!("cannot clean up, trying again: {e}");
            self.status
                .send_modify(|s| s.warning = Some(format!("cannot clean up: {e}")));
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
        self.release_volumes().await?;
        self.node.db.set_process(&self.id, None).await?;
        self.status.send_modify(|s| {
            s.pid = None;
            s.ready = false;
            s.paused = false;
            s.warning = None;
            s.stage_ends_at = None;
        });
        Ok(Transition::Done)
    }

    async fn try_clean_up(&self, row: &InstanceRow) -> Result<(), TaskError> {
        self.node.net.release(row).await?;
        let (run, cgroups, name) = (
            self.node.paths.run(&self.id),
            self.node.cgroups.clone(),
            self.id.to_string(),
        );
        blocking(move || {
            remove_known(&run, &socket::ALL)?;
            match cgroups.remove(&name).map_err(std::io::Error::other)? {
                Removal::Removed | Removal::Absent => Ok(()),
                Removal::Busy(pids) => {
                    let message = format!("processes {pids:?} are still in the cgroup");
                    Err(std::io::Error::other(message).into())
                }
            }
        })
        .await
    }

    /// Removes the instance's own files.
    pub(super) async fn remove_disks(&mut self) -> Result<Transition, DbError> {
        let dir = self.node.paths.instance(&self.id);
        let mut pause = Duration::from_millis(500);
        loop {
            let dir = dir.clone();
            let removed = blocking(move || remove_known(&dir, &InstanceFile::names())).await;
            match removed {
                Ok(()) => return Ok(Transition::Done),
                // Somebody else's files are in it: it stays, for a person to judge.
                Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                    warn!("{e}");
                    let data = serde_json::json!({ "kind": "directory", "error": e.to_string() });
                    self.node
                        .events
                        .emit(Some(&self.id), EventKind::UnknownLeftAlone, data);
                    return Ok(Transition::Done);
                }
                Err(e) => {
                    warn!("cannot remove disks, trying again: {e}");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
            }
        }
    }

    /// Tells how long the stage may last.
    fn limit_stage(&self, limit: Duration) -> Instant {
        let at = OffsetDateTime::now_utc() + limit;
        let text = at
            .format(&time::format_description::well_known::Rfc3339)
            .ok();
        self.status.send_modify(|s| s.stage_ends_at = text);
        Instant::now() + limit
    }

    /// Whether there is a connection to the monitor; makes one if need be.
    async fn reach_monitor(&mut self) -> bool {
        let Some(vm) = &mut self.vm else { return false };
        let lost = |(qmp, _): &(qmp::Qmp, qmp::Events)| qmp.closed_reason().is_some();
        if vm.monitor.as_ref().is_none_or(lost) {
            let path = self.node.paths.run(&self.id).join(socket::QMP);
            let config = qmp::Config {
                greeting_timeout: MONITOR_LIMIT,
                ..qmp::Config::default()
            };
            vm.monitor = match qmp::Qmp::connect(&path, &config).await {
                Ok(monitor) => Some(monitor),
                Err(e) => {
                    warn!("the monitor does not answer: {e}");
                    None
                }
            };
        }
        vm.monitor.is_some()
    }

    fn escalate_unless_gone(&self) -> Transition {
        match &self.vm {
            Some(vm) if vm.process.is_alive() => Transition::Escalate,
            _ => Transition::Exited,
        }
    }
}
