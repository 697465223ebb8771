//! Volumes of a live instance: attached, detached and grown while it runs.
//!
//! What is wanted is in the database; [`LiveVolumes::match_records`] makes QEMU have
//! it. A volume is detached from QEMU first and from the record then, so that no
//! other instance can get a file that a QEMU still has open. A guest may take its
//! time to let go of one, or never do it: the record says `detaching` until QEMU
//! tells that the device is gone, as it does at the guest's next reset, or ends.

use std::time::Duration;

use crn_api_types::EventKind;
use disk::OpenFile;
use serde_json::json;
use tracing::{info, warn};

use super::{
    context::Context,
    hotplug::{self, OpenVolume},
    launch::longest_file,
    prepare::seed,
    task::Task,
};
use crate::{
    db::{DbError, VolumeRow, VolumeState},
    fault,
    life::Phase,
    qemu::{file_limit, names::MAX_VOLUMES, process::Process},
    tasks::TaskError,
    volume,
};

/// So long a guest is waited for to let go of a volume; one that takes longer is
/// not waited for, and heard when it has.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);
/// The same, where nobody waits for the answer.
const UNPLUG_SHORT: Duration = Duration::from_secs(1);

/// An instance's volumes, as its QEMU was when a job began.
pub(super) struct LiveVolumes {
    ctx: Context,
    /// The monitor of a running guest.
    monitor: Option<qmp::Qmp>,
    /// There is a QEMU, whether it answers or not.
    has_qemu: bool,
}

impl Task {
    pub(super) fn volumes(&self) -> LiveVolumes {
        let runs = self.phase == Phase::Running;
        LiveVolumes {
            ctx: self.ctx.clone(),
            monitor: self.monitor().filter(|_| runs),
            has_qemu: self.vm.is_some(),
        }
    }
}

impl LiveVolumes {
    /// Whether QEMU can be asked.
    pub(super) fn is_live(&self) -> bool {
        self.monitor.is_some()
    }

    /// Attaches a volume, to a running guest at once. What fails leaves the record as
    /// it was.
    pub(super) async fn attach(&self, id: &str, mount: Option<&str>) -> Result<(), TaskError> {
        let db = &self.ctx.node.db;
        let before = db.volume(id).await?;
        self.check_seed_with(&before, mount).await?;
        db.attach_volume(id, &self.ctx.id, mount, MAX_VOLUMES)
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
        if volume.state == VolumeState::Creating {
            self.ctx.node.volumes.make(volume).await?;
        }
        match &self.monitor {
            Some(qmp) => {
                self.allow_file_length().await?;
                hotplug::plug(qmp, &self.ctx.node.volumes, volume).await
            }
            None => Ok(()),
        }
    }

    /// Makes the record say what it said before a failed attachment.
    async fn take_back(&self, before: &VolumeRow) -> Result<(), TaskError> {
        let db = &self.ctx.node.db;
        if before.instance.as_ref() == Some(&self.ctx.id) {
            let (id, mount) = (before.id.as_str(), before.mount.as_deref());
            return Ok(db
                .attach_volume(id, &self.ctx.id, mount, MAX_VOLUMES)
                .await?);
        }
        if let Some(qmp) = &self.monitor
            && hotplug::unplug(qmp, &before.id, UNPLUG_LIMIT)
                .await
                .is_err()
        {
            // QEMU may have it: nobody else can, until it is known to be gone.
            return Ok(db.begin_detach(&before.id).await?);
        }
        db.begin_detach(&before.id).await?;
        match self.release(before).await {
            // It is nobody's once it is closed.
            Err(TaskError::Pending(_)) => Ok(()),
            other => other,
        }
    }

    /// Refuses what the next start could not tell the guest: a mount point that is
    /// taken, by another volume or in the user's own cloud-init.
    async fn check_seed_with(
        &self,
        candidate: &VolumeRow,
        mount: Option<&str>,
    ) -> Result<(), TaskError> {
        let node = &self.ctx.node;
        let row = self.ctx.row().await?;
        let mut volumes = node.db.volumes_of(&self.ctx.id).await?;
        volumes.retain(|v| v.id != candidate.id && v.state != VolumeState::Detaching);
        volumes.push(VolumeRow {
            mount: mount.map(str::to_owned),
            ..candidate.clone()
        });
        let user_data = node.db.user_data(&self.ctx.id).await?;
        let mtu = node.net.host().guests_mtu().await;
        match seed(node, &row, &volumes, user_data.as_deref(), mtu) {
            Ok(_) => Ok(()),
            Err(e) => Err(TaskError::Refused(e.message)),
        }
    }

    /// Detaches a volume, from a running guest when it lets go of it.
    pub(super) async fn detach(&self, id: &str) -> Result<(), TaskError> {
        let db = &self.ctx.node.db;
        let volume = db.volume(id).await?;
        match &volume.instance {
            None => return Ok(()),
            Some(holder) if *holder != self.ctx.id => {
                let message = format!("volume {} is attached to another instance", volume.name);
                return Err(TaskError::Refused(message));
            }
            Some(_) => {}
        }
        db.begin_detach(&volume.id).await?;
        fault::point("begun", "detach");
        match &self.monitor {
            Some(qmp) => hotplug::unplug(qmp, &volume.id, UNPLUG_LIMIT).await?,
            None if self.has_qemu => {
                let message = "QEMU does not answer: the volume is detached when it does, at the \
                               latest when the instance stops";
                return Err(TaskError::Pending(message.into()));
            }
            None => {}
        }
        fault::point("unplugged", "detach");
        self.release(&volume).await
    }

    /// Records that nobody has a volume that QEMU let go of.
    ///
    /// That it is closed is the kernel's to say: a QEMU that its guest took over may say
    /// so and keep it.
    ///
    /// # Errors
    /// [`TaskError::Pending`] while some process has its file open, or where that cannot
    /// be known (a file system without leases) while QEMU runs.
    async fn release(&self, volume: &VolumeRow) -> Result<(), TaskError> {
        let name = &volume.name;
        let wait = match self.ctx.node.volumes.is_open(volume).await? {
            OpenFile::No => None,
            OpenFile::Unknown if !self.has_qemu => None,
            OpenFile::Unknown => Some(format!(
                "volume {name} is detached when the instance stops: its file system cannot tell \
                 whether QEMU has closed it"
            )),
            OpenFile::Yes => Some(format!(
                "volume {name} is still open in a process, though QEMU says that it closed it: it \
                 is detached when it is closed, at the latest when the instance stops"
            )),
        };
        match wait {
            None => Ok(self.released(volume).await?),
            Some(message) => {
                self.ctx.warn_rate_limited("volume-open", message.clone());
                Err(TaskError::Pending(message))
            }
        }
    }

    /// No process has the volume open any more: others may have it.
    async fn released(&self, volume: &VolumeRow) -> Result<(), DbError> {
        self.ctx.node.db.detach_volume(&volume.id).await?;
        info!("volume {} is detached", volume.name);
        let data = json!({ "name": volume.name.as_str() });
        self.ctx.event(EventKind::VolumeDetached, data);
        Ok(())
    }

    /// Without a QEMU no guest holds what it was to let go of. What some other process
    /// has open stays `detaching`.
    pub(super) async fn release_detaching(&self) -> Result<(), DbError> {
        for volume in self.ctx.node.db.volumes_of(&self.ctx.id).await? {
            if volume.state != VolumeState::Detaching {
                continue;
            }
            match self.release(&volume).await {
                Ok(()) => {}
                Err(TaskError::Db(e)) => return Err(e),
                Err(e) => warn!("{e}"),
            }
        }
        Ok(())
    }

    /// QEMU told that the device of the volume with this id is gone.
    pub(super) async fn device_gone(&self, id: &str) -> Result<(), TaskError> {
        let volumes = self.ctx.node.db.volumes_of(&self.ctx.id).await?;
        let (Some(volume), Some(qmp)) = (volumes.iter().find(|v| v.id == id), &self.monitor) else {
            return Ok(());
        };
        let open = hotplug::inventory(qmp).await?;
        if open.get(id).is_some_and(|open| open.device) {
            // Old news: it has come back since.
            return Ok(());
        }
        if volume.state == VolumeState::Detaching {
            hotplug::close(qmp, id).await?;
            return self.release(volume).await;
        }
        // A guest may eject what it likes. That it still has the volume is the
        // user's word, and not undone by the guest's.
        let name = volume.name.as_str();
        let text = format!("the guest ejected volume {name}");
        self.ctx.warn_rate_limited("volume-ejected", text);
        let data = json!({ "name": name });
        self.ctx.event_rate_limited(EventKind::VolumeEjected, data);
        Ok(())
    }

    /// Grows a volume; a running guest sees it at once.
    pub(super) async fn grow(&self, id: &str, mib: u64) -> Result<(), TaskError> {
        let node = &self.ctx.node;
        let volume = node.db.volume(id).await?;
        node.db.grow_volume(&volume.id, mib, node.capacity).await?;
        let volume = VolumeRow { mib, ..volume };
        match &self.monitor {
            Some(qmp) => {
                self.allow_file_length().await?;
                hotplug::resize(qmp, &volume.id, volume::size(&volume)).await
            }
            // QEMU has it open and does not answer: it gets its size on the next
            // occasion, at the latest with the next start.
            None if self.has_qemu => Ok(()),
            None => Ok(node.volumes.grow(&volume).await?),
        }
    }

    /// Makes a running QEMU have the volumes of the record, with their sizes: what a
    /// killed agent began is finished. One that cannot be matched does not keep the
    /// others from it.
    ///
    /// # Errors
    /// The first failure.
    pub(super) async fn match_records(&self) -> Result<(), TaskError> {
        let Some(qmp) = &self.monitor else {
            return Ok(());
        };
        let wanted = self.ctx.node.db.volumes_of(&self.ctx.id).await?;
        let mut open = hotplug::inventory(qmp).await?;
        let mut outcome = Ok(());
        for volume in &wanted {
            let open = open.remove(&volume.id).unwrap_or_default();
            let matched = self.match_record(qmp, volume, open).await;
            outcome = outcome.and(matched);
        }
        for id in open.keys() {
            let text = format!("QEMU has volume {id}, which is not the instance's");
            self.ctx.warn_rate_limited("foreign-volume", text);
            outcome = outcome.and(hotplug::unplug(qmp, id, UNPLUG_SHORT).await);
        }
        outcome
    }

    /// Lets QEMU make its files as long as the volumes on record may get.
    async fn allow_file_length(&self) -> Result<(), TaskError> {
        if !self.ctx.node.limits_files {
            return Ok(());
        }
        let row = self.ctx.row().await?;
        let Some(recorded) = &row.process else {
            return Ok(());
        };
        let volumes = self.ctx.node.db.volumes_of(&self.ctx.id).await?;
        match Process::reopen(recorded.pid, recorded.start_ticks)? {
            Some(process) => Ok(file_limit::set(&process, longest_file(&row, &volumes))?),
            None => Ok(()),
        }
    }

    async fn match_record(
        &self,
        qmp: &qmp::Qmp,
        volume: &VolumeRow,
        open: OpenVolume,
    ) -> Result<(), TaskError> {
        let volumes = &self.ctx.node.volumes;
        match volume.state {
            VolumeState::Detaching => match hotplug::unplug(qmp, &volume.id, UNPLUG_SHORT).await {
                Ok(()) => self.release(volume).await,
                // QEMU tells when it is gone.
                Err(TaskError::Pending(_)) => Ok(()),
                Err(e) => Err(e),
            },
            VolumeState::Creating => {
                volumes.make(volume).await?;
                self.allow_file_length().await?;
                hotplug::plug(qmp, volumes, volume).await
            }
            VolumeState::Ready if !open.device => {
                info!("volume {} is attached", volume.name);
                self.allow_file_length().await?;
                hotplug::plug(qmp, volumes, volume).await
            }
            VolumeState::Ready => {
                let size = volume::size(volume);
                if open.bytes.is_none_or(|bytes| bytes >= size.bytes()) {
                    return Ok(());
                }
                info!("volume {} gets its new size", volume.name);
                self.allow_file_length().await?;
                hotplug::resize(qmp, &volume.id, size).await
            }
            VolumeState::Deleting | VolumeState::Importing => Ok(()),
        }
    }
}
