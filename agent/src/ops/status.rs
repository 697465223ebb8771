//! The node at a glance.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::{
    Caller, NodeStatus, OpError,
    permission::{Operation, permit},
};
use crate::node::Node;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// The agent's start, for its uptime: the first call counts.
pub fn started() -> Instant {
    *STARTED.get_or_init(Instant::now)
}

/// The node at a glance.
///
/// # Errors
/// Those of the database.
pub async fn get(node: &Arc<Node>, caller: &Caller) -> Result<NodeStatus, OpError> {
    permit(caller, Operation::ShowStatus, None)?;
    let mut phases = BTreeMap::new();
    for row in node.db.instances().await? {
        let live = node.task(&row.id).map(|task| task.status());
        let word = live.map_or(row.phase.word(), |s| s.phase.word());
        *phases.entry(word.to_owned()).or_default() += 1;
    }
    Ok(NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: started().elapsed().as_secs(),
        accel: node.accel.word().to_owned(),
        accel_reason: node.accel_reason.clone(),
        prefix: node.net.host().spec().prefix.to_string(),
        phases,
        used: node.db.totals().await?,
        capacity: node.capacity,
    })
}
