//! Operations on the ports of instances.

use std::{collections::BTreeSet, sync::Arc};

use crn_api_types::{EventKind, PortChange, Ports};
use net::PortRule;

use super::{
    Caller, OpError, detached, lookup,
    permission::{Operation, permit},
};
use crate::{node::Node, spec};

/// The open ports.
///
/// # Errors
/// When there is no such instance.
pub async fn show(node: &Arc<Node>, caller: &Caller, reference: &str) -> Result<Ports, OpError> {
    let row = lookup::instance(node, caller, Operation::ShowPorts, reference).await?;
    Ok(shown(&row.spec.ports))
}

fn shown(ports: &BTreeSet<PortRule>) -> Ports {
    Ports {
        ports: ports.iter().map(ToString::to_string).collect(),
    }
}

/// Changes the open ports; established connections stay.
///
/// # Errors
/// Something that is no port rule, too many, or a closed one to be closed.
pub async fn change(
    node: &Arc<Node>,
    caller: &Caller,
    reference: &str,
    change: PortChange,
) -> Result<Ports, OpError> {
    permit(caller, Operation::ChangePorts, None)?;
    let set = change.set.as_deref().map(spec::parse_ports).transpose()?;
    let (allow, deny) = (
        spec::parse_ports(&change.allow)?,
        spec::parse_ports(&change.deny)?,
    );
    if let Some(rule) = allow.intersection(&deny).next() {
        return Err(OpError::invalid(format!(
            "{rule} is to be opened and closed"
        )));
    }
    let id = lookup::instance(node, caller, Operation::ChangePorts, reference)
        .await?
        .id;
    let node = node.clone();
    detached(async move {
        let change = |before: &BTreeSet<PortRule>| {
            apply(set.unwrap_or_else(|| before.clone()), allow, &deny)
        };
        let (ports, changed) = node.net.change_ports(&id, change).await?;
        let shown = shown(&ports);
        if changed {
            let data = serde_json::json!({ "ports": shown.ports });
            node.events.emit(Some(&id), EventKind::Ports, data);
        }
        Ok(shown)
    })
    .await
}

fn apply(
    mut ports: BTreeSet<PortRule>,
    allow: BTreeSet<PortRule>,
    deny: &BTreeSet<PortRule>,
) -> Result<BTreeSet<PortRule>, OpError> {
    ports.extend(allow);
    for rule in deny {
        if !ports.remove(rule) {
            return Err(OpError::conflict(format!(
                "{rule} is not a rule of this instance"
            )));
        }
    }
    if ports.len() > spec::MAX_PORTS {
        let message = format!(
            "{} allowed ports: an instance can have {}",
            ports.len(),
            spec::MAX_PORTS
        );
        return Err(OpError::invalid(message));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use crn_api_types::{Code, ErrorCode};

    use super::*;

    fn rules(text: &str) -> BTreeSet<PortRule> {
        text.split(',')
            .filter(|t| !t.is_empty())
            .map(|t| t.parse().unwrap())
            .collect()
    }

    #[test]
    fn ports_are_opened_and_closed() {
        let table = [
            ("22", "80,443", "", Ok("22,80,443")),
            ("22,80", "80", "22", Ok("80")),
            ("22", "", "22", Ok("")),
            ("22", "53/udp", "53", Err(ErrorCode::Conflict)),
            ("8000-8010", "", "8005", Err(ErrorCode::Conflict)),
        ];
        for (before, allow, deny, after) in table {
            let got = apply(rules(before), rules(allow), &rules(deny)).map_err(|e| e.code);
            let after = after.map_err(Code::from);
            assert_eq!(got, after.map(rules), "{before} +{allow} -{deny}");
        }
    }
}
