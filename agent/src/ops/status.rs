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
    let mut warned = BTreeMap::<WarningKind, Causes>::new();
    for row in node.db.instances().await? {
        let live = node.task(&row.id).map(|task| task.status());
        let word = view::word(live.as_ref().map_or(&row.phase, |s| &s.phase));
        *phases.entry(word).or_default() += 1;
        for (kind, warning) in live.into_iter().flat_map(|s| s.warnings) {
            // The tenant's business: nothing on the node is to be mended.
            if kind == WarningKind::UserData {
                continue;
            }
            let names = warned.entry(kind).or_default().entry(warning.message);
            names.or_default().push(row.name.to_string());
        }
    }
    let mut warnings = warnings(node);
    warnings.extend(warned.values().flat_map(of_instances));
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

/// Who has a warning of one kind, by its message.
type Causes = BTreeMap<String, Vec<String>>;

/// So many causes of one kind are told: a node has many instances.
const MOST_CAUSES: usize = 3;

/// Instances with a warning of one kind, a sentence for each cause.
fn of_instances(causes: &Causes) -> Vec<NodeWarning> {
    let told = causes.iter().take(MOST_CAUSES).map(|(message, names)| {
        let names = match names.as_slice() {
            [first, more @ ..] if !more.is_empty() => format!("{first}, and {} more", more.len()),
            _ => names.concat(),
        };
        format!("{names}: {message}")
    });
    let untold: usize = causes.values().skip(MOST_CAUSES).map(Vec::len).sum();
    let untold =
        (untold > 0).then(|| format!("{untold} more instances: see `crn-agent instance list`"));
    let warning = |message| NodeWarning {
        kind: NodeWarningKind::Instances,
        message,
    };
    told.chain(untold).map(warning).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_instances_are_few() {
        let causes = |causes: &[(&str, &[&str])]| -> Vec<_> {
            let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            let causes = causes.iter().map(|(m, n)| ((*m).to_owned(), names(n)));
            of_instances(&causes.collect())
                .into_iter()
                .map(|w| w.message)
                .collect()
        };
        assert!(causes(&[]).is_empty());
        assert_eq!(
            causes(&[("a", &["web"]), ("b", &["db", "mail", "www"])]),
            ["web: a", "db, and 2 more: b"]
        );
        let many = [
            ("a", &["1"][..]),
            ("b", &["2"]),
            ("c", &["3"]),
            ("d", &["4", "5"]),
            ("e", &["6"]),
        ];
        assert_eq!(
            causes(&many),
            [
                "1: a",
                "2: b",
                "3: c",
                "3 more instances: see `crn-agent instance list`"
            ]
        );
    }
}
