//! `crn-agent status` and `crn-agent events`.

use std::collections::HashMap;

use crn_api_types::{Event, EventKind, InstanceView, NodeStatus};
use hyper::Method;

use super::{args::EventsArgs, exit::Failure, out::Out, table};
use crate::client::{Client, segment};

/// `crn-agent status`
pub(super) async fn status(client: &Client, out: Out) -> Result<(), Failure> {
    let status: NodeStatus = client.get("/v1/status").await?;
    if out.json {
        out.value(&status)
    } else {
        out.pairs(&rows(&status))
    }
}

/// The node for people.
pub(super) fn rows(s: &NodeStatus) -> Vec<(&'static str, String)> {
    let phases: Vec<_> = s
        .phases
        .iter()
        .map(|(phase, n)| format!("{n} {phase}"))
        .collect();
    let phases = if phases.is_empty() {
        "none".to_owned()
    } else {
        phases.join(", ")
    };
    let (used, all) = (&s.used, &s.capacity);
    let mut rows = vec![
        (
            "Agent",
            format!(
                "{}, pid {}, up for {}",
                s.version,
                s.pid,
                table::duration(s.uptime_seconds)
            ),
        ),
        ("Accelerator", format!("{}: {}", s.accel, s.accel_reason)),
        ("Prefix", s.prefix.clone()),
        ("Instances", phases),
        (
            "Promised",
            format!("{} of {} instances", used.instances, all.instances),
        ),
        ("vCPUs", format!("{} of {}", used.vcpus, all.vcpus)),
        (
            "Memory",
            format!(
                "{} of {}",
                table::bytes(used.memory_mib.saturating_mul(1 << 20)),
                table::bytes(all.memory_mib.saturating_mul(1 << 20))
            ),
        ),
        (
            "Disk",
            format!(
                "{} of {}",
                table::bytes(used.disk_mib.saturating_mul(1 << 20)),
                table::bytes(all.disk_mib.saturating_mul(1 << 20))
            ),
        ),
    ];
    rows.extend(s.warnings.iter().map(|w| ("Warning", w.message.clone())));
    rows
}

/// `crn-agent events`
pub(super) async fn events(client: &Client, out: Out, args: EventsArgs) -> Result<(), Failure> {
    let mut path = format!("/v1/events?last={}&follow={}", args.last, args.follow);
    if let Some(instance) = &args.instance {
        path.push_str(&format!("&instance={}", segment(instance)));
    }
    let instances: Vec<InstanceView> = client.get("/v1/instances").await?;
    let mut names: HashMap<String, String> =
        instances.into_iter().map(|i| (i.id, i.name)).collect();
    let mut lines = client.lines(Method::GET, &path, None::<&()>).await?;
    while let Some(event) = lines.event::<Event>().await? {
        if event.kind == EventKind::Created
            && let (Some(id), Some(name)) = (&event.instance, event.data["name"].as_str())
        {
            names.insert(id.clone(), name.to_owned());
        }
        if out.json {
            let line = serde_json::to_string(&event).map_err(std::io::Error::other)?;
            out.text(&format!("{line}\n"))?;
        } else {
            out.text(&line(&event, &names))?;
        }
    }
    Ok(())
}

/// An event in one line.
pub(super) fn line(event: &Event, names: &HashMap<String, String>) -> String {
    let at = table::time(&event.at);
    let who = match &event.instance {
        None => "node",
        Some(id) => names
            .get(id)
            .map_or_else(|| id.get(..12).unwrap_or(id), String::as_str),
    };
    let word = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
    let what = if event.kind == EventKind::Phase {
        let parts = [word("phase"), word("step"), word("stage"), word("reason")];
        let parts: Vec<_> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        parts.join(" ")
    } else if event.instance.is_none() {
        format!("{} {}", event.kind, word("name"))
    } else {
        event.kind.to_string()
    };
    let why = match event.data["failure"]["message"].as_str() {
        Some(why) => vec![why],
        // What of a user's data loses.
        None => texts(&event.data["warnings"]),
    };
    let why = match why[..] {
        [] => String::new(),
        _ => format!(": {}", why.join("; ")),
    };
    format!(
        "{at}  {:<20}  {}\n",
        table::plain(who),
        table::plain(&format!("{what}{why}"))
    )
}

fn texts(value: &serde_json::Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str()).collect()
}
