//! Volumes of a live instance: attached, detached and grown while it runs.
//!
//! What is wanted is in the database; [`Task::match_volumes`] makes QEMU have it.
//! A volume is detached from QEMU first and from the record then, so that no
//! other instance can get a file that a QEMU still has open. A guest may take its
//! time to let go of one, or never do it: the record says `detaching` until QEMU
//! tells that the device is gone, as it does at the guest's next reset, or ends.

use std::time::Duration;

use crn_api_types::EventKind;
use serde_json::json;
use tracing::{info, warn};

use super::{
    hotplug::{self, Has},
    prepare::{create_volume, seed, volume_size},
    task::Task,
};
use crate::{
    db::{DbError, VolumeRow, VolumeState},
    fault,
    fs::blocking,
    life::Phase,
    qemu::plan::MAX_VOLUMES,
    tasks::TaskError,
};

/// So long a guest is waited for to let go of a volume; one that takes longer is
/// not waited for, and heard when it has.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);
/// The same, where nobody waits for the answer.
const UNPLUG_GLANCE: Duration = Duration::from_secs(1);

impl Task {
    /// Attaches a volume, to a running guest at once. What fails leaves the record as
    /// it was.
    pub(super) async fn attach_volume(
        &mut self,
        id: &str,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let before = self.node.db.volume(id).await?;
        self.check_seed_with(&before, mount).await?;
        self.node
            .db
            .attach_volume(id, &self.id, mount, MAX_VOLUMES)
            .await?;
        fault::point("recorded", "attach");
        let result = self.make_and_plug(&before).await;
        if let Err(e) = &result {
            warn!("volume {} cannot be attached: {e}", before.name);
            self.take_back(&before).await?;
        }
        result
    }

    async fn make_and_plug(&self, volume: &VolumeRow) -> Result<(), TaskError> {
        if volume.state == VolumeState::Creating
            && let Err(e) = create_volume(&self.node, volume).await?
        {
            return Err(TaskError::Refused(e.message));
        }
        match self.live_monitor() {
            Some(qmp) => self.plug(&qmp, volume).await,
            None => Ok(()),
        }
    }

    /// Makes the record say what it said before a failed attachment.
    async fn take_back(&self, before: &VolumeRow) -> Result<(), TaskError> {
        let db = &self.node.db;
        if before.instance.as_ref() == Some(&self.id) {
            let (id, mount) = (before.id.as_str(), before.mount.as_deref());
            return Ok(db.attach_volume(id, &self.id, mount, MAX_VOLUMES).await?);
        }
        if let Some(qmp) = self.live_monitor()
            && hotplug::unplug(&qmp, &before.id, UNPLUG_LIMIT)
                .await
                .is_err()
        {
            // QEMU may have it: nobody else can, until it is known to be gone.
            return Ok(db.begin_detach(&before.id).await?);
        }
        Ok(db.detach_volume(&before.id).await?)
    }

    /// Refuses what the next start could not tell the guest: a mount point that is
    /// taken, by another volume or in the user's own cloud-init.
    async fn check_seed_with(
        &self,
        candidate: &VolumeRow,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let row = self.node.db.instance(&self.id).await?;
        let mut volumes = self.node.db.volumes_of(&self.id).await?;
        volumes.retain(|v| v.id != candidate.id && v.state != VolumeState::Detaching);
        volumes.push(VolumeRow {
            mount: mount.map(str::to_owned),
            ..candidate.clone()
        });
        let user_data = self.node.db.user_data(&self.id).await?;
        match seed(&self.node, &row, &volumes, user_data.as_deref()) {
            Ok(_) => Ok(()),
            Err(e) => Err(TaskError::Refused(e.message)),
        }
    }

    /// Detaches a volume, from a running guest when it lets go of it.
    pub(super) async fn detach_volume(&mut self, id: &str) -> Result<(), TaskError> {
        let volume = self.node.db.volume(id).await?;
        match &volume.instance {
            None => return Ok(()),
            Some(holder) if *holder != self.id => {
                let message = format!("volume {} is attached to another instance", volume.name);
                return Err(TaskError::Refused(message));
            }
            Some(_) => {}
        }
        self.node.db.begin_detach(&volume.id).await?;
        fault::point("begun", "detach");
        match self.live_monitor() {
            Some(qmp) => hotplug::unplug(&qmp, &volume.id, UNPLUG_LIMIT).await?,
            None if self.vm.is_some() => {
                let message = "QEMU does not answer: the volume is detached when it does, at the \
                               latest when the instance stops";
                return Err(TaskError::Pending(message.into()));
            }
            None => {}
        }
        fault::point("unplugged", "detach");
        Ok(self.released(&volume).await?)
    }

    /// A volume that no QEMU has open any more is nobody's.
    async fn released(&self, volume: &VolumeRow) -> Result<(), DbError> {
        self.node.db.detach_volume(&volume.id).await?;
        info!("volume {} is detached", volume.name);
        let data = json!({ "name": volume.name.as_str() });
        let events = &self.node.events;
        events.emit(Some(&self.id), EventKind::VolumeDetached, data);
        Ok(())
    }

    /// Without a QEMU no guest holds what it was to let go of.
    pub(super) async fn release_volumes(&self) -> Result<(), DbError> {
        for volume in self.node.db.volumes_of(&self.id).await? {
            if volume.state == VolumeState::Detaching {
                self.released(&volume).await?;
            }
        }
        Ok(())
    }

    /// QEMU told that a device is gone.
    pub(super) async fn device_gone(&mut self, device: &str) -> Result<(), TaskError> {
        let volumes = self.node.db.volumes_of(&self.id).await?;
        let (Some(volume), Some(qmp)) = (
            volumes
                .iter()
                .find(|v| hotplug::device_name(&v.id) == device),
            self.live_monitor(),
        ) else {
            return Ok(());
        };
        let has = hotplug::inventory(&qmp).await?;
        if has.get(&volume.id).is_some_and(|has| has.device) {
            // Old news: it has come back since.
            return Ok(());
        }
        if volume.state == VolumeState::Detaching {
            hotplug::close(&qmp, &volume.id).await?;
            return Ok(self.released(volume).await?);
        }
        // A guest may eject what it likes. That it still has the volume is the
        // user's word, and not undone by the guest's.
        warn!("the guest ejected volume {}", volume.name);
        self.tell_seldom(
            EventKind::VolumeEjected,
            json!({ "name": volume.name.as_str() }),
        );
        Ok(())
    }

    /// Grows a volume; a running guest sees it at once.
    pub(super) async fn grow_volume(&mut self, id: &str, mib: u64) -> Result<(), TaskError> {
        let volume = self.node.db.volume(id).await?;
        self.node
            .db
            .grow_volume(&volume.id, mib, self.node.capacity)
            .await?;
        let volume = VolumeRow { mib, ..volume };
        let size = volume_size(&volume);
        match self.live_monitor() {
            Some(qmp) => hotplug::resize(&qmp, &volume.id, size).await,
            // QEMU has it open and does not answer: it gets its size on the next
            // occasion, at the latest with the next start.
            None if self.vm.is_some() => Ok(()),
            None => {
                let path = self.node.paths.volume(&volume.id);
                blocking(move || match disk::grow(&path, disk::Format::Qcow2, size) {
                    // Not created yet: it is created with its new size.
                    Err(disk::Error::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound =>
                    {
                        Ok(())
                    }
                    other => Ok(other?),
                })
                .await
            }
        }
    }

    /// Makes a running QEMU have the volumes of the record, with their sizes: what
    /// a killed agent began is finished.
    pub(super) async fn match_volumes(&mut self) -> Result<Result<(), TaskError>, DbError> {
        let Some(qmp) = self.live_monitor() else {
            return Ok(Ok(()));
        };
        let wanted = self.node.db.volumes_of(&self.id).await?;
        Ok(self.try_match_volumes(&qmp, &wanted).await)
    }

    /// One volume that cannot be matched does not keep the others from it. Gives the
    /// first failure.
    async fn try_match_volumes(
        &self,
        qmp: &qmp::Qmp,
        wanted: &[VolumeRow],
    ) -> Result<(), TaskError> {
        let mut has = hotplug::inventory(qmp).await?;
        let mut outcome = Ok(());
        for volume in wanted {
            let has = has.remove(&volume.id).unwrap_or_default();
            let matched = self.match_volume(qmp, volume, has).await;
            outcome = outcome.and(matched);
        }
        for id in has.keys() {
            warn!("QEMU has volume {id}, which is not the instance's");
            outcome = outcome.and(hotplug::unplug(qmp, id, UNPLUG_GLANCE).await);
        }
        outcome
    }

    async fn match_volume(
        &self,
        qmp: &qmp::Qmp,
        volume: &VolumeRow,
        has: Has,
    ) -> Result<(), TaskError> {
        match volume.state {
            VolumeState::Detaching => match hotplug::unplug(qmp, &volume.id, UNPLUG_GLANCE).await {
                Ok(()) => Ok(self.released(volume).await?),
                // It is heard of when it is gone.
                Err(TaskError::Pending(_)) => Ok(()),
                Err(e) => Err(e),
            },
            VolumeState::Creating => {
                if let Err(e) = create_volume(&self.node, volume).await? {
                    return Err(TaskError::Refused(e.message));
                }
                self.plug(qmp, volume).await
            }
            VolumeState::Ready if !has.device => {
                info!("volume {} is attached", volume.name);
                self.plug(qmp, volume).await
            }
            VolumeState::Ready => {
                let size = volume_size(volume);
                if has.bytes.is_none_or(|bytes| bytes >= size.bytes()) {
                    return Ok(());
                }
                info!("volume {} gets its new size", volume.name);
                hotplug::resize(qmp, &volume.id, size).await
            }
            VolumeState::Deleting => Ok(()),
        }
    }

    /// The monitor of a running guest.
    fn live_monitor(&self) -> Option<qmp::Qmp> {
        let (qmp, _) = self.vm.as_ref()?.monitor.as_ref()?;
        (self.phase == Phase::Running && qmp.closed_reason().is_none()).then(|| qmp.clone())
    }

    async fn plug(&self, qmp: &qmp::Qmp, volume: &VolumeRow) -> Result<(), TaskError> {
        let path = self.node.paths.volume(&volume.id);
        hotplug::plug(qmp, &volume.id, path, volume_size(volume)).await
    }
}
