//! From what a caller writes to the record that it means, if the caller may.

use std::sync::Arc;

use crn_api_types::Subject;

use super::{
    Caller, OpError,
    permission::{Denied, Operation, permit},
};
use crate::{
    db::{DbError, InstanceRow, VolumeRow},
    fs::blocking,
    ids::clip,
    node::Node,
};

/// The instance that `reference` names, if the caller may do `operation` with it.
pub(super) async fn instance(
    node: &Arc<Node>,
    caller: &Caller,
    operation: Operation,
    reference: &str,
) -> Result<InstanceRow, OpError> {
    permit(caller, operation, None)?;
    let row = node.db.find_instance(caller.scope(), reference).await?;
    let permitted = permit(caller, operation, Some(&row.owner));
    permitted.map_err(|denied| unseen(denied, Subject::Instance, reference))?;
    make_room(node, operation).await;
    Ok(row)
}

/// The volume that `reference` names, if the caller may do `operation` with it.
pub(super) async fn volume(
    node: &Arc<Node>,
    caller: &Caller,
    operation: Operation,
    reference: &str,
) -> Result<VolumeRow, OpError> {
    permit(caller, operation, None)?;
    let row = node.db.find_volume(caller.scope(), reference).await?;
    let permitted = permit(caller, operation, Some(&row.owner));
    permitted.map_err(|denied| unseen(denied, Subject::Volume, reference))?;
    make_room(node, operation).await;
    Ok(row)
}

/// On a full disk, gives what must work there the room that is kept for it.
pub(super) async fn make_room(node: &Node, operation: Operation) {
    if !operation.must_work_when_full() {
        return;
    }
    let reserve = node.reserve.clone();
    if let Err(e) = blocking(move || reserve.give_up_if_full()).await {
        tracing::warn!("the disk's reserve cannot be given up: {e}");
    }
}

/// The same answer for what is somebody else's as for what does not exist.
fn unseen(denied: Denied, what: Subject, reference: &str) -> OpError {
    match denied {
        Denied::Unseen => {
            let key = clip(reference);
            DbError::NotFound { what, key }.into()
        }
        denied @ Denied::Forbidden(_) => denied.into(),
    }
}
