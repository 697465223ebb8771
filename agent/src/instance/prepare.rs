//! What the first start needs: base image, root disk, volumes, seed.
//!
//! Every step may be repeated: it finds what an earlier run left and goes on.

use std::{io, time::Duration};

use crn_api_types::{EventKind, Firmware, WarningKind};
use disk::{
    BaseRef, ByteSize, Digest, OverlaySpec, Sha256, StoredImage,
    seed::{NetworkSpec, Seed, SeedSpec, SeedVolume},
};

use serde_json::json;
use tracing::warn;

use super::{
    context::{Context, StepError, failure},
    hear::Heard,
    rate_limit::peer_text,
    task::Task,
};
use crate::{
    db::{DbError, InstanceRow, VolumeRow, VolumeState},
    fs::{blocking, make_private_dir, write_atomically},
    images::{self, ImageError},
    life::{Failure, FailureCode, PrepareStep, Transition},
    node::Node,
    paths::InstanceFile,
    spec,
    tasks::{Status, TaskError},
};

/// A server that sends nothing for so long is told of, while it is waited for.
const SILENCE: Duration = Duration::from_secs(5);

impl Task {
    /// Carries out one step of the preparation. Fetching an image, which can take an
    /// hour, is given up when the instance is not wanted any more; what was
    /// downloaded stays for the next one. The other steps take moments.
    pub(super) async fn prepare(&mut self, step: PrepareStep) -> Result<Transition, DbError> {
        let mut work = std::pin::pin!(self.ctx.clone().prepare(step));
        loop {
            match self.hear(work.as_mut()).await {
                Heard::Done(Ok(())) => return Ok(Transition::Done),
                Heard::Done(Err(StepError::Db(e))) => return Err(e),
                Heard::Done(Err(StepError::Failed(failure))) => {
                    return Ok(Transition::Failed { failure });
                }
                Heard::Wake if step == PrepareStep::Image => {
                    if let Some(transition) = self.other_way().await? {
                        return Ok(transition);
                    }
                }
                // What changed is looked at after the step; there is no QEMU.
                Heard::Wake | Heard::Exited | Heard::Event(_) => {}
            }
        }
    }
}

impl Context {
    async fn prepare(self, step: PrepareStep) -> Result<(), StepError> {
        let row = self.row().await?;
        match step {
            PrepareStep::Image => self.fetch_image(&row).await,
            PrepareStep::RootDisk => self.create_root(&row).await,
            PrepareStep::Volumes => self.create_volumes().await,
            PrepareStep::Seed => self.write_seed(&row).await,
        }
    }

    /// Fetches the base image and records its digest. What may pass is waited for.
    async fn fetch_image(&self, row: &InstanceRow) -> Result<(), StepError> {
        let mut attempt = 0;
        let image = loop {
            let mut named = std::pin::pin!(self.node.images.named());
            // One that gets a name during the attempt counts, too.
            named.as_mut().enable();
            match self.try_fetch(row).await {
                Ok(image) => break image,
                Err(e) if e.may_pass() => {
                    attempt += 1;
                    let pause = images::RETRY.after(attempt);
                    self.image_unavailable(row, &e, pause);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = named => {}
                    }
                }
                Err(e) => {
                    self.clear_warning(WarningKind::ImageUnavailable);
                    return Err(failure(FailureCode::Image, e).into());
                }
            }
        };
        self.clear_warning(WarningKind::ImageUnavailable);
        let digest = image.digest.hex();
        Ok(self.node.db.set_image(&self.id, &digest).await?)
    }

    /// One attempt. A server that sends nothing for a while is told of meanwhile.
    async fn try_fetch(&self, row: &InstanceRow) -> Result<StoredImage, ImageError> {
        let status = self.status.clone();
        let mut first = None;
        let progress = move |p: disk::Progress| {
            let arrives = p.done > *first.get_or_insert(p.done);
            status.send_modify(|s| {
                if arrives {
                    s.warnings.remove(&WarningKind::ImageUnavailable);
                }
                s.progress = Some((p.done.bytes(), p.total.map(ByteSize::bytes)));
            });
        };
        let mut fetching = std::pin::pin!(self.node.images.ensure(&row.spec.image, progress));
        tokio::select! {
            fetched = fetching.as_mut() => return fetched,
            () = tokio::time::sleep(SILENCE) => {}
        }
        let untold = |s: &Status| {
            s.progress.is_none() && !s.warnings.contains_key(&WarningKind::ImageUnavailable)
        };
        if untold(&self.status.borrow()) {
            let (image, seconds) = (&row.spec.image, SILENCE.as_secs());
            let text = format!("image {image}: its server has sent nothing for {seconds} s");
            self.set_warning(WarningKind::ImageUnavailable, text);
        }
        fetching.await
    }

    /// Tells of an image that cannot be had: always where the instance is looked at, in the log
    /// and as an event when there is something new.
    fn image_unavailable(&self, row: &InstanceRow, error: &ImageError, pause: Duration) {
        let (why, seconds) = (error.to_string(), pause.as_secs());
        self.status.send_modify(|s| s.progress = None);
        self.set_warning(WarningKind::ImageUnavailable, &why);
        warn!("{why}; trying again in {seconds} s");
        let image = row.spec.image.as_str();
        let data = json!({ "image": image, "why": peer_text(&why), "retry_seconds": seconds });
        self.event(EventKind::ImageUnavailable, data);
    }

    /// Creates the root overlay and, for UEFI, the instance's own variables.
    async fn create_root(&self, row: &InstanceRow) -> Result<(), StepError> {
        let base = self.base(row).await?;
        let file = |f| self.node.paths.instance_file(&self.id, f);
        let (root, vars) = (file(InstanceFile::Root), file(InstanceFile::UefiVars));
        let template =
            (row.spec.firmware == Firmware::Uefi).then(|| self.node.config.qemu.uefi_vars.clone());
        let dir = self.node.paths.instance(&self.id);
        let spec = OverlaySpec::new(base, ByteSize::from_mib(row.spec.disk.0));
        let work = move || {
            make_private_dir(&dir)?;
            disk::create_overlay(&root, &spec)?;
            if let Some(template) = template
                && !vars.exists()
            {
                write_atomically(&vars, &std::fs::read(template)?, 0o600)?;
            }
            Ok::<_, TaskError>(())
        };
        let created = blocking(work).await;
        Ok(created.map_err(|e| failure(FailureCode::Disk, e))?)
    }

    /// Creates the files of volumes that have none yet.
    pub(super) async fn create_volumes(&self) -> Result<(), StepError> {
        for volume in self.node.db.volumes_of(&self.id).await? {
            if volume.state == VolumeState::Creating {
                self.node.volumes.make(&volume).await?;
            }
        }
        Ok(())
    }

    /// Writes the seed, unless the same one is there.
    pub(super) async fn write_seed(&self, row: &InstanceRow) -> Result<(), StepError> {
        let path = self.node.paths.instance_file(&self.id, InstanceFile::Seed);
        let seed = current_seed(&self.node, row).await?;
        let warnings: Vec<_> = seed.warnings.iter().map(ToString::to_string).collect();
        self.tell_of_user_data(&warnings);
        let iso = seed.iso;
        let write = move || {
            if std::fs::read(&path).is_ok_and(|old| old == iso) {
                return Ok(false);
            }
            write_atomically(&path, &iso, 0o600).map(|()| true)
        };
        let written: Result<bool, io::Error> = blocking(write).await;
        let is_new = written.map_err(|e| failure(FailureCode::Seed, e))?;
        if is_new && !warnings.is_empty() {
            for warning in &warnings {
                tracing::warn!("cloud-init: {warning}");
            }
            let data = serde_json::json!({ "warnings": warnings });
            self.event(EventKind::CloudInitWarnings, data);
        }
        Ok(())
    }

    /// Tells again, after the agent's start, what the seed was told of.
    pub(super) async fn recall_user_data(&self, row: &InstanceRow) {
        self.tell_of_user_data(&user_data_warnings(&self.node, row).await);
    }

    fn tell_of_user_data(&self, warnings: &[String]) {
        if warnings.is_empty() {
            self.clear_warning(WarningKind::UserData);
        } else {
            self.set_warning(WarningKind::UserData, warnings.join("; "));
        }
    }

    /// The base image that is recorded for the instance.
    pub(super) async fn base(&self, row: &InstanceRow) -> Result<BaseRef, Failure> {
        let fail = |m: String| failure(FailureCode::Image, m);
        let hex = row
            .image
            .as_deref()
            .ok_or_else(|| fail("no base image is recorded".into()))?;
        let digest = Sha256::from_hex(hex).map_err(|e| fail(e.to_string()))?;
        let store = self.node.images.store.clone();
        let get = move || store.get(&Digest::from(digest)).map_err(TaskError::from);
        match blocking(get).await {
            Ok(Some(image)) => Ok(base_of(image)),
            Ok(None) => Err(fail(format!(
                "base image sha256:{hex} is not in the store any more"
            ))),
            Err(e) => Err(fail(e.to_string())),
        }
    }
}

fn base_of(image: StoredImage) -> BaseRef {
    BaseRef {
        path: image.path,
        format: image.info.format,
        virtual_size: image.info.virtual_size,
    }
}

/// What of the user's cloud-init data loses, or may undo the agent's. Nothing of data that makes
/// no seed: the step that writes it says why.
pub(crate) async fn user_data_warnings(node: &Node, row: &InstanceRow) -> Vec<String> {
    match current_seed(node, row).await {
        Ok(seed) => seed.warnings.iter().map(ToString::to_string).collect(),
        Err(_) => Vec::new(),
    }
}

/// The seed that the next start would write.
async fn current_seed(node: &Node, row: &InstanceRow) -> Result<Seed, StepError> {
    let volumes = node.db.volumes_of(&row.id).await?;
    let user_data = node.db.user_data(&row.id).await?;
    let mtu = node.net.host().guests_mtu().await;
    Ok(seed(node, row, &volumes, user_data.as_deref(), mtu)?)
}

/// The seed of an instance with these volumes, on a link with this MTU (bytes). Pure.
pub(super) fn seed(
    node: &Node,
    row: &InstanceRow,
    volumes: &[VolumeRow],
    user_data: Option<&str>,
    mtu: u32,
) -> Result<Seed, Failure> {
    let spec = seed_of(node, row, volumes, user_data, mtu)?;
    disk::seed::build(&spec).map_err(|e| failure(FailureCode::Seed, e))
}

/// What every interface has that is told nothing.
const DEFAULT_MTU: u32 = 1500;

/// What the guest is told. Pure.
fn seed_of(
    node: &Node,
    row: &InstanceRow,
    volumes: &[VolumeRow],
    user_data: Option<&str>,
    mtu: u32,
) -> Result<SeedSpec, Failure> {
    let fail = |e: &dyn std::fmt::Display| failure(FailureCode::Seed, e);
    let guest = node.net.guest(row);
    let spec = &row.spec;
    let mut mounted = Vec::new();
    for volume in volumes {
        if let Some(mount) = &volume.mount {
            mounted.push(SeedVolume {
                serial: volume.id.clone(),
                mount: mount.parse().map_err(|e| fail(&e))?,
                fs: spec::file_system(volume.file_system),
            });
        }
    }
    Ok(SeedSpec {
        instance_id: row.id.to_string(),
        hostname: spec.hostname.parse().map_err(|e| fail(&e))?,
        ssh_keys: spec
            .ssh_keys
            .iter()
            .map(|k| k.parse())
            .collect::<Result<_, _>>()
            .map_err(|e| fail(&e))?,
        network: NetworkSpec {
            mac: guest.mac.0,
            ipv6: (guest.network.guest(), 124),
            gateway6: guest.network.gateway(),
            ipv4: guest.ipv4.map(|v4| (v4.guest, 24, v4.gateway)),
            nameservers: node.config.network.nameservers.clone(),
            mtu: (mtu != DEFAULT_MTU).then_some(mtu),
        },
        volumes: mounted,
        user_data: user_data
            .map(str::parse)
            .transpose()
            .map_err(|e| fail(&e))?,
    })
}
