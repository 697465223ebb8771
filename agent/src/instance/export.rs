//! The root disk of an instance that rests, copied into a file of the host.

use std::path::PathBuf;

use disk::{Content, Format};

use super::{context::Context, task::Task};
use crate::{copying::Copying, fs::blocking, life::Phase, paths::InstanceFile, tasks::TaskError};

impl Task {
    /// Whether nothing but a request can change the disks.
    pub(super) fn rests(&self) -> bool {
        self.vm.is_none() && matches!(self.phase, Phase::Stopped { .. } | Phase::Failed { .. })
    }
}

impl Context {
    /// Copies what the guest saw of its root disk. A start or a deletion that is asked for
    /// meanwhile waits for the end.
    pub(super) async fn export(
        &self,
        rests: bool,
        target: PathBuf,
        copying: Copying,
    ) -> Result<(), TaskError> {
        let row = self.row().await?;
        if !rests {
            return Err(TaskError::Refused(format!(
                "instance {} is not stopped: a copy of a disk in use would be torn",
                row.name
            )));
        }
        let base = self.base(&row).await;
        let base = base.map_err(|failure| TaskError::Refused(failure.message))?;
        let content = Content {
            path: self.node.paths.instance_file(&self.id, InstanceFile::Root),
            format: Format::Qcow2,
            base: Some(base),
        };
        blocking(move || {
            let Copying { stop, tell } = copying;
            disk::export(&content, &target, &stop, tell)?;
            Ok(())
        })
        .await
    }
}
