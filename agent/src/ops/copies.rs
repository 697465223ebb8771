//! Volumes and root disks in and out, as files of this host. Only root may: the agent reads and
//! writes them with its own rights.

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crn_api_types::{
    EventKind, ExportRequest, ExportView, ImportVolume, Update, VolumeState, VolumeView,
};
use disk::Format;
use futures::Stream;
use tracing::warn;

use super::{
    Caller, OpError, detached, instances, lookup,
    permission::{Operation, permit},
    progress::{Reporter, updates},
    volumes,
};
use crate::{
    copying::Copying,
    db::{About, NewVolume},
    fs::blocking,
    ids::Name,
    node::Node,
    spec,
    tasks::Command,
};

/// Tells a copy to end when nobody waits for it any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Waiting {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn copying(&self, reporter: Reporter) -> Copying {
        Copying {
            stop: self.0.clone(),
            tell: Box::new(move |progress| reporter.report(progress)),
        }
    }
}

fn absolute(path: &str) -> Result<PathBuf, OpError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(OpError::invalid("path must be absolute"));
    }
    Ok(path.into())
}

/// Makes a volume of a file of this host. A copy that is cut off leaves none.
///
/// # Errors
/// Before it begins: what is wrong with the request. In the stream: with the file.
pub async fn import_volume(
    node: &Arc<Node>,
    caller: &Caller,
    request: ImportVolume,
) -> Result<impl Stream<Item = Update<VolumeView>> + Send + use<>, OpError> {
    permit(caller, Operation::ImportVolume, None)?;
    let owner = caller.owner().ok_or_else(OpError::nobody)?;
    let name = Name::of_new(&request.name)?;
    let source = absolute(&request.path)?;
    let format = request.format.map(|f| f.parse::<Format>()).transpose();
    let format = format.map_err(|e| OpError::invalid(e.to_string()))?;
    let limits = &node.config.limits;
    request
        .size_mib
        .map(|mib| spec::volume_size(mib, limits))
        .transpose()?;
    let (node, wanted) = (node.clone(), request.size_mib);
    Ok(updates(move |reporter| async move {
        let waiting = Waiting::new();
        let copying = waiting.copying(reporter);
        // To its end, also when nobody waits: a record must not stay without a file.
        detached(async move {
            let file = source.clone();
            let found = move || disk::size_of(&file, format).map_err(OpError::from);
            let found = blocking(found).await?.mib_ceil();
            let mib = wanted.unwrap_or(found.max(spec::MIN_VOLUME_MIB));
            spec::volume_size(mib, &node.config.limits)?;
            if mib < found {
                return Err(OpError::invalid(format!(
                    "the disk has {found} MiB, more than the {mib} asked for"
                )));
            }
            let new = NewVolume {
                state: VolumeState::Importing,
                ..NewVolume::empty(&name, mib)
            };
            let row = node.db.insert_volume(&owner, new, node.capacity).await?;
            if let Err(e) = node.volumes.make_from(&row, source, format, copying).await {
                if let Err(left) = node.volumes.erase(&row).await {
                    warn!("volume {name}: {left}; it is removed at the agent's next start");
                }
                return Err(e.into());
            }
            let data = serde_json::json!({ "name": name.as_str(), "size_mib": mib });
            let about = About::Of(owner);
            node.events
                .emit_about(about, EventKind::VolumeCreated, data);
            volumes::view(&node, &row.id).await
        })
        .await
    }))
}

/// Copies a volume that no process has open into a new file of this host.
///
/// # Errors
/// Before it begins: what is wrong with the request. In the stream: a volume in use; those of
/// the files.
pub async fn export_volume(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    request: ExportRequest,
) -> Result<impl Stream<Item = Update<ExportView>> + Send + use<>, OpError> {
    let row = lookup::volume(node, caller, Operation::ExportVolume, reference).await?;
    let target = absolute(&request.path)?;
    if row.state != VolumeState::Ready {
        let message = format!("volume {} is {}", row.name, row.state);
        return Err(OpError::conflict(message));
    }
    let node = node.clone();
    Ok(updates(move |reporter| async move {
        let waiting = Waiting::new();
        let copying = waiting.copying(reporter);
        node.volumes.export(&row, target.clone(), copying).await?;
        exported(target).await
    }))
}

/// Copies the root disk of a stopped instance into a new file of this host.
///
/// # Errors
/// Before it begins: what is wrong with the request. In the stream: an instance that is not
/// stopped; those of the files.
pub async fn export_instance(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    request: ExportRequest,
) -> Result<impl Stream<Item = Update<ExportView>> + Send + use<>, OpError> {
    let row = lookup::instance(node, caller, Operation::ExportInstance, reference).await?;
    let target = absolute(&request.path)?;
    let task = instances::task(node, &row.id)?;
    Ok(updates(move |reporter| async move {
        let waiting = Waiting::new();
        let copying = waiting.copying(reporter);
        let file = target.clone();
        let command = |reply| Command::Export {
            target: file,
            copying,
            reply,
        };
        task.ask(command).await?;
        exported(target).await
    }))
}

/// What came of an export.
async fn exported(target: PathBuf) -> Result<ExportView, OpError> {
    let look = move || {
        let info = disk::info(&target, Format::Qcow2, None)?;
        let meta = std::fs::metadata(&target)?;
        Ok::<_, OpError>(ExportView {
            path: target.display().to_string(),
            virtual_size: info.virtual_size.bytes(),
            file_size: meta.blocks().saturating_mul(512),
        })
    };
    blocking(look).await
}
