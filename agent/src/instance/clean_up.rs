//! What is left of a QEMU, and at last of an instance: removed, and tried until it is.

use std::{io, time::Duration};

use crn_api_types::{EventKind, WarningKind};
use tracing::warn;

use super::task::Task;
use crate::{
    backoff::Backoff,
    cgroup::Removal,
    db::{DbError, InstanceRow},
    fs::{blocking, remove_known},
    life::Transition,
    paths::InstanceFile,
    qemu::plan::socket,
    tasks::TaskError,
};

/// Most of what is left behind is free within moments.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};

impl Task {
    /// Removes what a QEMU leaves behind: its part of the network, sockets, cgroup,
    /// and the volumes that it still held.
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
        let mut failures = 0;
        while let Err(e) = self.try_clean_up(row).await {
            let text = format!("cannot clean up, trying again: {e}");
            warn!("{text}");
            self.ctx.set_warning(WarningKind::CleanUp, text);
            failures += 1;
            self.pause(RETRY.after(failures)).await;
        }
        self.volumes().release_detaching().await?;
        self.ctx.node.db.set_process(&self.ctx.id, None).await?;
        self.ctx.status.send_modify(|s| {
            s.pid = None;
            s.ready = false;
            s.paused = false;
            s.stage_ends_at = None;
            // All others were about this QEMU.
            s.warnings.retain(|kind, _| *kind == WarningKind::UserData);
        });
        Ok(Transition::Done)
    }

    async fn try_clean_up(&self, row: &InstanceRow) -> Result<(), TaskError> {
        let node = &self.ctx.node;
        node.net.release(row).await?;
        let (run, cgroups, name) = (
            node.paths.run(&self.ctx.id),
            node.cgroups.clone(),
            self.ctx.id.to_string(),
        );
        blocking(move || {
            remove_known(&run, &socket::ALL)?;
            match cgroups.remove(&name).map_err(io::Error::other)? {
                Removal::Removed | Removal::Absent => Ok(()),
                Removal::Busy(pids) => {
                    let message = format!("processes {pids:?} are still in the cgroup");
                    Err(io::Error::other(message).into())
                }
            }
        })
        .await
    }

    /// Removes the instance's own files.
    pub(super) async fn remove_disks(&mut self) -> Transition {
        let dir = self.ctx.node.paths.instance(&self.ctx.id);
        let mut failures = 0;
        loop {
            let dir = dir.clone();
            let removed = blocking(move || remove_known(&dir, &InstanceFile::names())).await;
            match removed {
                Ok(()) => return Transition::Done,
                // Somebody else's files are in it: it stays, for a person to judge.
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    warn!("{e}");
                    let data = serde_json::json!({ "kind": "directory", "error": e.to_string() });
                    self.ctx.event(EventKind::UnknownLeftAlone, data);
                    return Transition::Done;
                }
                Err(e) => {
                    let text = format!("cannot remove disks, trying again: {e}");
                    warn!("{text}");
                    self.ctx.set_warning(WarningKind::CleanUp, text);
                    failures += 1;
                    self.pause(RETRY.after(failures)).await;
                }
            }
        }
    }
}
