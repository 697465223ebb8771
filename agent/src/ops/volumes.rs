//! Operations on volumes.

use std::sync::Arc;

use crn_api_types::{AttachVolume, CreateVolume, EventKind, FileSystem, ResizeVolume, VolumeView};

use super::{
    Caller, OpError, detached, live, lookup,
    permission::{Operation, permit},
};
use crate::{
    db::{About, DbError, NewVolume, Scope, VolumeRow, VolumeState},
    ids::{InstanceId, Name},
    node::Node,
    spec::{self, MAX_VOLUMES},
    tasks::Command,
};

/// The volumes that the caller may see, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list(node: &Arc<Node>, caller: &Caller) -> Result<Vec<VolumeView>, OpError> {
    permit(caller, Operation::ListVolumes, None)?;
    let rows = node.db.volumes_in(caller.scope()).await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// One volume, by its name or its whole id.
///
/// # Errors
/// When there is none.
pub async fn get(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
) -> Result<VolumeView, OpError> {
    let row = lookup::volume(node, caller, Operation::ShowVolume, reference).await?;
    Ok(row.into())
}

/// The volume as it is now.
pub(super) async fn view(node: &Arc<Node>, id: &str) -> Result<VolumeView, OpError> {
    Ok(node.db.volume(id).await?.into())
}

/// Creates an empty volume. A creation that was cut off is finished by the same
/// request.
///
/// # Errors
/// A bad name or size, a taken name, no room.
pub async fn create(
    node: &Arc<Node>,
    caller: &Caller,
    request: CreateVolume,
) -> Result<VolumeView, OpError> {
    permit(caller, Operation::CreateVolume, None)?;
    let owner = caller.owner().ok_or_else(OpError::nobody)?;
    let name = Name::of_new(&request.name)?;
    let mib = request.size_mib.unwrap_or(node.config.volumes.default_mib);
    spec::volume_size(mib, &node.config.limits)?;
    let file_system = request.file_system.unwrap_or(FileSystem::Ext4);
    spec::has_room_for(file_system, mib)?;
    let node = node.clone();
    detached(async move {
        let new = NewVolume {
            file_system,
            ..NewVolume::empty(&name, mib)
        };
        let inserted = node.db.insert_volume(&owner, new, node.capacity);
        let row = match inserted.await {
            Ok(row) => row,
            Err(DbError::NameTaken(taken)) => {
                let own = Scope::Of(owner.clone());
                let row = node.db.find_volume(own, name.as_str()).await?;
                let unfinished = row.state == VolumeState::Creating && row.instance.is_none();
                if !unfinished || (row.mib, row.file_system) != (mib, file_system) {
                    return Err(DbError::NameTaken(taken).into());
                }
                row
            }
            Err(e) => return Err(e.into()),
        };
        node.volumes.make(&row).await?;
        let data = serde_json::json!({ "name": name.as_str(), "size_mib": mib });
        let about = About::Of(owner);
        node.events
            .emit_about(about, EventKind::VolumeCreated, data);
        view(&node, &row.id).await
    })
    .await
}

/// Deletes a volume and all that is on it.
///
/// # Errors
/// When it is attached.
pub async fn delete(node: &Arc<Node>, caller: &Caller, reference: &str) -> Result<(), OpError> {
    let row = lookup::volume(node, caller, Operation::DeleteVolume, reference).await?;
    if let Some(id) = &row.instance {
        let holder = row.instance_name.as_ref();
        return Err(DbError::VolumeInUse {
            volume: row.name.to_string(),
            instance: holder.map_or_else(|| id.to_string(), ToString::to_string),
        }
        .into());
    }
    refuse_importing(&row)?;
    let node = node.clone();
    detached(async move {
        node.db
            .set_volume_state(&row.id, VolumeState::Deleting)
            .await?;
        node.volumes.erase(&row).await?;
        let data = serde_json::json!({ "name": row.name.as_str() });
        let about = About::Of(row.owner);
        node.events
            .emit_about(about, EventKind::VolumeDeleted, data);
        Ok(())
    })
    .await
}

/// Attaches a volume to an instance, running or not. Attached there already, it
/// stays, and its mount point is the new one.
///
/// # Errors
/// A bad mount point, a volume in use, an instance that has too many.
pub async fn attach(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    request: AttachVolume,
) -> Result<VolumeView, OpError> {
    permit(caller, Operation::AttachVolume, None)?;
    let mount = request
        .mount
        .as_deref()
        .map(spec::parse_mount)
        .transpose()?;
    let to = lookup::instance(node, caller, Operation::AttachVolume, &request.instance).await?;
    let row = lookup::volume(node, caller, Operation::AttachVolume, reference).await?;
    let id = to.id;
    refuse_same_mount(node, &id, &row, mount.as_deref()).await?;
    let node = node.clone();
    detached(async move {
        let task = super::instances::task(&node, &id)?;
        let command = |reply| Command::Attach {
            volume: row.id.clone(),
            mount,
            reply,
        };
        live("the attachment", task.ask(command)).await?;
        let data = serde_json::json!({ "name": row.name.as_str() });
        node.events.emit(Some(&id), EventKind::VolumeAttached, data);
        view(&node, &row.id).await
    })
    .await
}

fn refuse_importing(row: &VolumeRow) -> Result<(), OpError> {
    if row.state == VolumeState::Importing {
        let message = format!("volume {} is being imported", row.name);
        return Err(OpError::conflict(message));
    }
    Ok(())
}

async fn refuse_same_mount(
    node: &Arc<Node>,
    id: &InstanceId,
    row: &VolumeRow,
    mount: Option<&str>,
) -> Result<(), OpError> {
    let others = node.db.volumes_of(id).await?;
    let others: Vec<_> = others.into_iter().filter(|v| v.id != row.id).collect();
    if others.len() >= MAX_VOLUMES {
        return Err(OpError::conflict(format!(
            "an instance can have {MAX_VOLUMES} volumes"
        )));
    }
    if mount.is_some()
        && let Some(other) = others.iter().find(|v| v.mount.as_deref() == mount)
    {
        let message = format!("volume {} is mounted there", other.name);
        return Err(OpError::conflict(message));
    }
    Ok(())
}

/// Detaches a volume. Attached to nobody, it stays so.
///
/// # Errors
/// When the guest does not let go of it yet; the detachment goes on then.
pub async fn detach(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
) -> Result<VolumeView, OpError> {
    let row = lookup::volume(node, caller, Operation::DetachVolume, reference).await?;
    let Some(id) = row.instance.clone() else {
        return Ok(row.into());
    };
    let node = node.clone();
    detached(async move {
        let task = super::instances::task(&node, &id)?;
        let command = |reply| Command::Detach {
            volume: row.id.clone(),
            reply,
        };
        live("the detachment", task.ask(command)).await?;
        view(&node, &row.id).await
    })
    .await
}

/// Grows a volume; a running guest sees it at once. The same size is no change.
///
/// # Errors
/// A size that is smaller or out of range, no room.
pub async fn resize(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    request: ResizeVolume,
) -> Result<VolumeView, OpError> {
    permit(caller, Operation::ResizeVolume, None)?;
    let mib = request.size_mib;
    spec::volume_size(mib, &node.config.limits)?;
    let row = lookup::volume(node, caller, Operation::ResizeVolume, reference).await?;
    refuse_importing(&row)?;
    let node = node.clone();
    detached(async move {
        match row.instance.as_ref().and_then(|id| node.task(id)) {
            Some(task) => {
                let command = |reply| Command::Grow {
                    volume: row.id.clone(),
                    mib,
                    reply,
                };
                live("the growth", task.ask(command)).await?;
            }
            None => {
                if row.state == VolumeState::Deleting {
                    return Err(OpError::conflict(format!(
                        "volume {} is being deleted",
                        row.name
                    )));
                }
                node.db.grow_volume(&row.id, mib, node.capacity).await?;
                node.volumes.grow(&VolumeRow { mib, ..row.clone() }).await?;
            }
        }
        let data = serde_json::json!({ "name": row.name.as_str(), "size_mib": mib });
        let about = match &row.instance {
            Some(id) => About::Instance(id.clone()),
            None => About::Of(row.owner.clone()),
        };
        node.events
            .emit_about(about, EventKind::VolumeResized, data);
        view(&node, &row.id).await
    })
    .await
}

/// After the agent's start, and asked for by nobody else: finishes what was cut off
/// on volumes that no instance has. Those of instances are their tasks' business.
///
/// # Errors
/// Those of the database. A volume that cannot be finished is logged and left.
pub async fn settle(node: &Arc<Node>) -> Result<(), OpError> {
    for row in node.db.volumes().await? {
        if row.instance.is_some() {
            continue;
        }
        let done = match row.state {
            VolumeState::Creating => node.volumes.make(&row).await,
            // An import that was cut off has no file, or one that nobody was told of.
            VolumeState::Importing | VolumeState::Deleting => node.volumes.erase(&row).await,
            VolumeState::Ready | VolumeState::Detaching => node.volumes.grow(&row).await,
        };
        if let Err(e) = done {
            tracing::warn!(volume = %row.name, "left as it is: {e}");
        }
    }
    Ok(())
}
