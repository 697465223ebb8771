//! The node at a glance.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use crn_api_types::{NodeStatus, NodeWarning, NodeWarningKind, WarningKind};
use net::Problem;

use super::{
    Caller, OpError,
    permission::{Operation, permit},
    view,
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
    let mut warned = BTreeMap::<WarningKind, Vec<(String, String)>>::new();
    for row in node.db.instances().await? {
        let live = node.task(&row.id).map(|task| task.status());
        let word = view::word(live.as_ref().map_or(&row.phase, |s| &s.phase));
        *phases.entry(word).or_default() += 1;
        for (kind, warning) in live.into_iter().flat_map(|s| s.warnings) {
            // The tenant's business: nothing on the node is to be mended.
            if kind == WarningKind::UserData {
                continue;
            }
            let known = warned.entry(kind).or_default();
            known.push((row.name.to_string(), warning.message));
        }
    }
    let mut warnings = warnings(node);
    warnings.extend(warned.values().filter_map(|w| of_instances(w)));
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
        warnings,
    })
}

/// Instances with a warning of one kind, in one sentence: a node has many instances.
fn of_instances(warned: &[(String, String)]) -> Option<NodeWarning> {
    let (first, message) = warned.first()?;
    let message = match warned.len() {
        1 => format!("{first}: {message}"),
        many => format!("{first}, and {} more: {message}", many - 1),
    };
    let kind = NodeWarningKind::Instances;
    Some(NodeWarning { kind, message })
}

/// What the last comparison of the network found and could not put right.
fn warnings(node: &Node) -> Vec<NodeWarning> {
    let problems = node.net.host().problems();
    let warning = |problem: &Problem| NodeWarning {
        kind: match problem {
            Problem::UplinkMissing { .. } => NodeWarningKind::UplinkMissing,
            Problem::NoDefaultRoute { .. } => NodeWarningKind::NoUplink,
            Problem::Obstacle(_) => NodeWarningKind::OtherFirewall,
            Problem::Setting { .. } => NodeWarningKind::NetworkSetting,
            Problem::OtherPrefix { .. } => NodeWarningKind::OtherPrefix,
            Problem::Failed { .. } => NodeWarningKind::NetworkRepair,
        },
        message: problem.to_string(),
    };
    problems.iter().map(warning).collect()
}
