//! Operations on instances.

use std::{collections::HashMap, sync::Arc};

use crn_api_types::{
    CreateRequest, ErrorCode, EventKind, Firmware, InstanceView, Owner, StopOptions, Subject,
    Warning, WarningKind,
};

use super::{
    Caller, OpError, detached, lookup,
    permission::{Operation, permit},
    view,
};
use crate::{
    db::{InstanceRow, NewInstance, VolumeRow},
    fault,
    fs::blocking,
    ids::InstanceId,
    images::ImageError,
    instance,
    life::{Desired, Intent, Phase, Then},
    node::Node,
    spec::{self, InstanceSpec},
    tasks::Handle,
};

/// Longest key of a request that must not be carried out twice, in bytes.
const MAX_KEY: usize = 200;

/// An instance's task.
pub(super) fn task(node: &Arc<Node>, id: &InstanceId) -> Result<Handle, OpError> {
    let gone = || OpError::new(ErrorCode::NotFound, format!("there is no instance {id}"));
    node.task(id).ok_or_else(|| gone().about(Subject::Instance))
}

async fn shown_now(node: &Arc<Node>, row: &InstanceRow) -> Result<InstanceView, OpError> {
    let live = node.task(&row.id).map(|task| task.status());
    let volumes = node.db.volumes_of(&row.id).await?;
    Ok(view::instance(node, row, live.as_ref(), &volumes))
}

/// The instances that the caller may see, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list(node: &Arc<Node>, caller: &Caller) -> Result<Vec<InstanceView>, OpError> {
    permit(caller, Operation::ListInstances, None)?;
    let rows = node.db.instances_in(caller.scope()).await?;
    let mut volumes: HashMap<InstanceId, Vec<VolumeRow>> = HashMap::new();
    for volume in node.db.volumes_in(caller.scope()).await? {
        if let Some(id) = &volume.instance {
            volumes.entry(id.clone()).or_default().push(volume);
        }
    }
    let views = rows.iter().map(|row| {
        let live = node.task(&row.id).map(|task| task.status());
        let volumes = volumes.get(&row.id).map_or(&[][..], Vec::as_slice);
        view::instance(node, row, live.as_ref(), volumes)
    });
    Ok(views.collect())
}

/// One instance, by its name or its id; the operator may write the first 6 or more
/// digits of the id.
///
/// # Errors
/// When there is none, or several begin so.
pub async fn get(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
) -> Result<InstanceView, OpError> {
    let row = lookup::instance(node, caller, Operation::ShowInstance, reference).await?;
    shown_now(node, &row).await
}

/// The identity of an instance that a request with this key creates: each owner's
/// keys are its own.
fn keyed_id(owner: &Owner, key: &str) -> Result<InstanceId, OpError> {
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters");
        return Err(OpError::invalid(message));
    }
    // No key has a space: no two texts are the same.
    let text = match owner {
        Owner::Operator => format!("crn-agent instance {key}"),
        Owner::Tenant(address) => format!("crn-agent instance of {address} {key}"),
    };
    Ok(disk::Sha256::of(text.as_bytes()).hex().parse()?)
}

/// Creates an instance and returns at once; its task prepares and starts it.
/// With a key, the same request again finds the instance that the first one made:
/// the boolean says whether it is new.
///
/// # Errors
/// Everything that can be known beforehand; nothing is created then.
pub async fn create(
    node: &Arc<Node>,
    caller: &Caller,
    request: CreateRequest,
    key: Option<&str>,
) -> Result<(InstanceView, bool), OpError> {
    permit(caller, Operation::CreateInstance, None)?;
    let owner = caller.owner().ok_or_else(OpError::nobody)?;
    let keyed = key.map(|key| keyed_id(&owner, key)).transpose()?;
    let config = &node.config;
    let checked = spec::check(request, &config.limits, config.volumes.default_mib)?;
    if let Some(id) = &keyed
        && let Ok(row) = node.db.instance(id).await
    {
        return repeated(node, &row, &owner, &checked.spec).await;
    }
    super::images::may_use(node, caller, &checked.spec.image).map_err(unusable)?;
    preflight(node, &checked.spec).await?;
    let id = match keyed {
        Some(id) => id,
        None => InstanceId::random().map_err(|e| OpError::internal(e.to_string()))?,
    };
    let (node, keyed) = (node.clone(), key.is_some());
    detached(async move {
        let asked = checked.spec.clone();
        let new = NewInstance {
            owner: owner.clone(),
            checked,
            id: id.clone(),
            plan: node.addresses.clone(),
            capacity: node.capacity,
            slots: node.config.qemu.uid_count,
        };
        let row = match node.db.insert_instance(new).await {
            Ok(row) => row,
            Err(e) => {
                // The same request may have been quicker than this one.
                return match node.db.instance(&id).await {
                    Ok(row) if keyed => repeated(&node, &row, &owner, &asked).await,
                    _ => Err(e.into()),
                };
            }
        };
        fault::point("persisted", row.phase.path());
        instance::spawn(&node, &row, None);
        let data = serde_json::json!({ "name": row.name.as_str() });
        node.events.emit(Some(&id), EventKind::Created, data);
        let mut view = shown_now(&node, &row).await?;
        tell_of_user_data(&node, &row, &mut view).await;
        Ok((view, true))
    })
    .await
}

/// Says in the answer what of the user's data loses, which the new task has not come to yet.
async fn tell_of_user_data(node: &Arc<Node>, row: &InstanceRow, view: &mut InstanceView) {
    let kind = WarningKind::UserData;
    if view.warnings.iter().any(|w| w.kind == kind) {
        return;
    }
    let told = instance::user_data_warnings(node, row).await;
    if !told.is_empty() {
        view.warnings.push(Warning {
            kind,
            message: told.join("; "),
            since: view.created_at.clone(),
        });
    }
}

/// What a key stands for was created before.
async fn repeated(
    node: &Arc<Node>,
    row: &InstanceRow,
    owner: &Owner,
    asked: &InstanceSpec,
) -> Result<(InstanceView, bool), OpError> {
    // The hostname of a nameless instance is given to it later.
    let same = |a: &InstanceSpec| {
        let mut a = serde_json::to_value(a).unwrap_or_default();
        if let Some(fields) = a.as_object_mut() {
            fields.remove("hostname");
            fields.remove("ports");
        }
        a
    };
    if row.owner != *owner || same(&row.spec) != same(asked) {
        let message = "another request with this Idempotency-Key created an instance";
        return Err(OpError::conflict(message));
    }
    Ok((shown_now(node, row).await?, false))
}

/// The request names an image that it cannot have.
fn unusable(e: ImageError) -> OpError {
    OpError::invalid(e.to_string()).about(Subject::Image)
}

/// Refuses what could only fail later.
async fn preflight(node: &Arc<Node>, spec: &InstanceSpec) -> Result<(), OpError> {
    // What is recorded of a named image is enough: its file is looked at later.
    let size = match node.db.image(spec.image.as_str()).await? {
        Some(row) => Some(row.virtual_size),
        None => {
            let image = node.images.stored(&spec.image).await?;
            image.map(|image| image.info.virtual_size.bytes())
        }
    };
    match size {
        Some(need) if need > u64::from(spec.disk.0) << 20 => {
            let (image, need) = (&spec.image, need.div_ceil(1 << 20));
            let message = format!("disk: image {image} needs {need} MiB, not {}", spec.disk.0);
            return Err(OpError::invalid(message));
        }
        Some(_) => {}
        None if node.images.catalogue.get(&spec.image).is_some() => {}
        None => {
            let name = spec.image.clone();
            return Err(unusable(ImageError::Unknown { name }));
        }
    }
    if spec.firmware == Firmware::Uefi {
        let qemu = &node.config.qemu;
        let files = [qemu.uefi_code.clone(), qemu.uefi_vars.clone()];
        blocking(move || match files.iter().find(|file| !file.is_file()) {
            Some(missing) => {
                let message = format!("firmware: this node has no UEFI ({})", missing.display());
                Err(OpError::invalid(message))
            }
            None => Ok(()),
        })
        .await?;
    }
    Ok(())
}

/// Writes what is wanted and wakes the task.
async fn want(
    node: &Arc<Node>,
    caller: &Caller,
    operation: Operation,
    reference: &str,
    decide: impl FnOnce(&InstanceRow) -> Intent + Send + 'static,
) -> Result<InstanceView, OpError> {
    let id = lookup::instance(node, caller, operation, reference)
        .await?
        .id;
    let node = node.clone();
    detached(async move {
        let row = node.db.update_intent(&id, decide).await?;
        if let Some(task) = node.task(&id) {
            task.wake();
        }
        shown_now(&node, &row).await
    })
    .await
}

/// Towards `desired`, where no guest runs. A hurry that somebody is in already stays.
fn end(desired: Desired, asked: StopOptions) -> impl FnOnce(&InstanceRow) -> Intent + Send {
    move |row| Intent {
        desired,
        restart: false,
        force: asked.force || (row.intent.desired == desired && row.intent.force),
    }
}

/// Starts an instance; one that failed is tried again, one that waits for its
/// next restart is started at once. Running, it stays so.
///
/// # Errors
/// When it is being deleted.
pub async fn start(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
) -> Result<InstanceView, OpError> {
    want(node, caller, Operation::StartInstance, reference, |row| {
        let again = matches!(row.phase, Phase::Failed { .. } | Phase::BackingOff { .. });
        Intent {
            desired: Desired::Running,
            restart: again || row.intent.restart,
            force: false,
        }
    })
    .await
}

/// Stops an instance: the guest is asked, then QEMU, then nobody.
///
/// # Errors
/// When it is being deleted.
pub async fn stop(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    m: StopOptions,
) -> Result<InstanceView, OpError> {
    let decide = end(Desired::Stopped, m);
    want(node, caller, Operation::StopInstance, reference, decide).await
}

/// Stops an instance and starts it again; one that is stopped is started.
///
/// # Errors
/// When it is being deleted.
pub async fn restart(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    m: StopOptions,
) -> Result<InstanceView, OpError> {
    want(
        node,
        caller,
        Operation::RestartInstance,
        reference,
        move |row| {
            let phase = &row.phase;
            let rests = matches!(phase, Phase::Stopped { .. } | Phase::Preparing { .. });
            let starts = matches!(phase, Phase::Starting { .. });
            // One that has begun is escalated, not followed by another.
            let restarts = matches!(
                phase,
                Phase::Stopping {
                    then: Then::Restart,
                    ..
                }
            );
            Intent {
                desired: Desired::Running,
                restart: !(rests || starts || restarts),
                force: m.force && !(rests || starts),
            }
        },
    )
    .await
}

/// Deletes an instance with its root disk; its volumes are detached and kept.
///
/// # Errors
/// When there is none.
pub async fn delete(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    m: StopOptions,
) -> Result<InstanceView, OpError> {
    let decide = end(Desired::Deleted, m);
    want(node, caller, Operation::DeleteInstance, reference, decide).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_become_ids() {
        let tenant = |byte| Owner::Tenant(crn_api_types::Address::ethereum([byte; 20]));
        let id = |owner: &Owner, key: &str| keyed_id(owner, key).unwrap();
        assert_eq!(id(&Owner::Operator, "a"), id(&Owner::Operator, "a"));
        // As all agents have computed the operator's.
        assert!(
            id(&Owner::Operator, "a")
                .as_str()
                .starts_with("06062d15f06309a5"),
        );
        let all = [
            id(&Owner::Operator, "a"),
            id(&Owner::Operator, "b"),
            id(&tenant(1), "a"),
            id(&tenant(1), "b"),
            id(&tenant(2), "a"),
        ];
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(
                keyed_id(&Owner::Operator, bad).map_err(|e| e.code),
                Err(ErrorCode::Invalid.into()),
                "{bad:?}"
            );
        }
    }
}
