//! `crn-agent instance`.

use std::{
    io::{IsTerminal, Read, Write as _},
    path::Path,
};

use crn_api_types::{
    CreateRequest, ErrorCode, Firmware, InstanceView, Phase, PortChange, Ports, StopOptions,
    Subject, VolumeRequest, Warning, WarningKind,
};
use hyper::Method;
use serde_json::json;

use super::{
    args::{CreateArgs, FirewallArgs, InstanceCommand, LogsArgs, Wait},
    console,
    exit::{Failure, Status},
    follow,
    out::Out,
    parse, table,
    wait::{Goal, wait},
};
use crate::{
    api::MAX_BODY,
    client::{Client, segment},
};

/// Carries out an `instance` command.
pub(super) async fn run(
    client: &Client,
    out: Out,
    command: InstanceCommand,
) -> Result<(), Failure> {
    match command {
        InstanceCommand::Create(args) => create(client, out, *args).await,
        InstanceCommand::List => list(client, out).await,
        InstanceCommand::Show(one) => {
            let view: InstanceView = client
                .get(&path(&one.instance, ""))
                .await
                .map_err(refused)?;
            if out.json {
                out.value(&view)
            } else {
                out.pairs(&describe(&view))
            }
        }
        InstanceCommand::Start(args) => {
            let view = act(client, &args.one.instance, "start", None).await?;
            // Running and ready already is as good.
            finish(
                client,
                out,
                view,
                Goal::Ready { not: None },
                &args.wait,
                "starting",
            )
            .await
        }
        InstanceCommand::Stop(args) => {
            let view = act(client, &args.one.instance, "stop", Some(args.force)).await?;
            finish(client, out, view, Goal::Stopped, &args.wait, "stopping").await
        }
        InstanceCommand::Restart(args) => {
            let before: InstanceView = client
                .get(&path(&args.one.instance, ""))
                .await
                .map_err(refused)?;
            let view = act(client, &before.id, "restart", Some(args.force)).await?;
            let goal = Goal::Ready {
                not: before.started_at,
            };
            finish(client, out, view, goal, &args.wait, "restarting").await
        }
        InstanceCommand::Delete(args) => {
            let path = path(&args.one.instance, "");
            let options = StopOptions { force: args.force };
            let view = client
                .send(Method::DELETE, &path, Some(&options))
                .await
                .map_err(refused)?;
            finish(client, out, view, Goal::Gone, &args.wait, "deleting").await
        }
        InstanceCommand::Export { instance, file } => {
            let path = path(&instance, "/export");
            follow::export(client, out, &path, &instance, &file, refused).await
        }
        InstanceCommand::Console(one) => {
            let line = client
                .console(&path(&one.instance, "/console/attach"))
                .await;
            console::run(line.map_err(refused)?, out).await
        }
        InstanceCommand::Logs(args) => logs(client, out, args).await,
        InstanceCommand::Firewall(args) => firewall(client, out, args).await,
    }
}

fn path(instance: &str, rest: &str) -> String {
    format!("/v1/instances/{}{rest}", segment(instance))
}

fn refused(e: crate::client::ClientError) -> Failure {
    let failure = Failure::from(e);
    match failure.status {
        Status::NotFound => failure.or_try("crn-agent instance list"),
        _ => failure,
    }
}

async fn act(
    client: &Client,
    instance: &str,
    verb: &str,
    force: Option<bool>,
) -> Result<InstanceView, Failure> {
    let options = force.map(|force| StopOptions { force });
    let path = path(instance, &format!("/{verb}"));
    client
        .send(Method::POST, &path, options.as_ref())
        .await
        .map_err(refused)
}

/// Waits if that was asked for, and tells the outcome.
async fn finish(
    client: &Client,
    out: Out,
    view: InstanceView,
    goal: Goal,
    args: &Wait,
    doing: &str,
) -> Result<(), Failure> {
    if !args.wait {
        return if out.json {
            out.value(&view)
        } else {
            out.text(&format!("{}: {doing}\n", table::plain(&view.name)))
        };
    }
    let (id, name) = (view.id.clone(), view.name.clone());
    match wait(client, out, view, goal, args.timeout.0).await? {
        Some(view) if out.json => out.value(&view),
        Some(view) => out.text(&format!("{}: {}\n", table::plain(&view.name), state(&view))),
        None if out.json => out.value(&json!({ "id": id, "name": name, "deleted": true })),
        None => out.text(&format!("{}: deleted\n", table::plain(&name))),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Status::Usage, message)
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let wrong = |e: std::io::Error| usage(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    let most = MAX_BODY as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(wrong)?;
    } else {
        let file = std::fs::File::open(path).map_err(wrong)?;
        file.take(most).read_to_end(&mut bytes).map_err(wrong)?;
    }
    if bytes.len() > MAX_BODY {
        return Err(usage(format!(
            "{} has more than {MAX_BODY} bytes",
            path.display()
        )));
    }
    String::from_utf8(bytes).map_err(|_| usage(format!("{} is not text (UTF-8)", path.display())))
}

fn request(args: &CreateArgs) -> Result<CreateRequest, Failure> {
    let mut ssh_keys = args.ssh_key.clone();
    for file in &args.ssh_key_file {
        let found = parse::keys(&read_file(file)?);
        if found.is_empty() {
            return Err(usage(format!("{} has no key", file.display())));
        }
        ssh_keys.extend(found);
    }
    Ok(CreateRequest {
        name: args.name.clone(),
        vcpus: args.cpu,
        memory_mib: args.memory.mib,
        disk_mib: args.disk.mib,
        image: args.image.clone(),
        ssh_keys,
        allowed_ports: Some(parse::ports(&args.allowed_ports)),
        volumes: args
            .volume
            .iter()
            .map(|v| VolumeRequest {
                name: v.name.clone(),
                mount: v.mount.clone(),
                size_mib: v.size.map(|s| s.mib),
            })
            .collect(),
        cloud_init: args.cloud_init.as_deref().map(read_file).transpose()?,
        firmware: if args.uefi {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        watchdog: args.watchdog,
        start: !args.no_start,
    })
}

async fn create(client: &Client, out: Out, args: CreateArgs) -> Result<(), Failure> {
    let request = request(&args)?;
    let key = args.idempotency_key.as_deref();
    let view: InstanceView = client.create(&request, key).await.map_err(|e| {
        let failure = Failure::from(e);
        match (failure.code, failure.about) {
            (Some(code), _) if code == ErrorCode::NameTaken => failure.or_try("another --name"),
            (_, Some(Subject::Image)) => failure.or_try("crn-agent image list"),
            _ => failure,
        }
    })?;
    let view = if args.wait.wait {
        let goal = if args.no_start {
            Goal::Stopped
        } else {
            Goal::Ready { not: None }
        };
        wait(client, out, view.clone(), goal, args.wait.timeout.0)
            .await?
            .unwrap_or(view)
    } else {
        view
    };
    let mut warnings = view.warnings.iter();
    if let Some(warning) = warnings.find(|w| w.kind == WarningKind::UserData) {
        out.note(&format!("note: {}", warning.message));
    }
    if out.json {
        return out.value(&view);
    }
    let rows = [
        ("Name", view.name.clone()),
        ("State", state(&view)),
        ("IPv6", view.ipv6.clone()),
        ("Id", view.id.clone()),
        ("SSH", format!("ssh root@{}", view.ipv6)),
    ];
    out.pairs(&rows)
}

/// The phase in a few words.
fn state(view: &InstanceView) -> String {
    let percent = view.progress.and_then(|p| {
        let total = p.total.filter(|t| *t > 0)?;
        Some(u128::from(p.done) * 100 / u128::from(total))
    });
    if let Some((word, warning)) = unwell(view) {
        return format!("running, {word} since {}", table::time(&warning.since));
    }
    match (view.phase, percent) {
        (Phase::Running, _) if view.ready => "running, SSH answers".to_owned(),
        (Phase::Running, _) => "running".to_owned(),
        _ if lacks_image(view) => "preparing, waits for its image".to_owned(),
        (_, Some(percent)) => format!("{} {percent} %", view.step),
        (phase, None) => phase.to_string(),
    }
}

/// Whether its image cannot be had at the moment.
fn lacks_image(view: &InstanceView) -> bool {
    let mut warnings = view.warnings.iter();
    view.phase == Phase::Preparing && warnings.any(|w| w.kind == WarningKind::ImageUnavailable)
}

/// What is wrong with a guest that runs, in a few words.
fn unwell(view: &InstanceView) -> Option<(&'static str, &Warning)> {
    let kinds = [
        (WarningKind::GuestPanicked, "panicked"),
        (WarningKind::NotAnswering, "not answering"),
    ];
    let warnings = &view.warnings;
    kinds.into_iter().find_map(|(kind, word)| {
        let warning = warnings.iter().find(|w| w.kind == kind)?;
        (view.phase == Phase::Running).then_some((word, warning))
    })
}

/// Rows of `instance list`.
pub(super) fn rows(views: &[InstanceView]) -> Vec<Vec<String>> {
    let row = |v: &InstanceView| {
        let phase = match (v.phase, unwell(v)) {
            (_, Some((word, warning))) => match table::since(&warning.since) {
                Some(seconds) => format!("{word} {}", table::duration(seconds)),
                None => word.to_owned(),
            },
            (Phase::Running, None) if v.ready => "ready".to_owned(),
            _ if lacks_image(v) => "no image".to_owned(),
            (phase, None) => phase.to_string(),
        };
        vec![
            v.name.clone(),
            phase,
            v.vcpus.to_string(),
            table::mib(v.memory_mib),
            table::mib(v.disk_mib),
            v.ipv6.clone(),
        ]
    };
    views.iter().map(row).collect()
}

/// Columns of `instance list`.
pub(super) const COLUMNS: [(&str, bool); 6] = [
    ("NAME", false),
    ("STATE", true),
    ("CPU", true),
    ("MEMORY", true),
    ("DISK", true),
    ("IPV6", true),
];

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let views: Vec<InstanceView> = client.get("/v1/instances").await?;
    if out.json {
        return out.value(&views);
    }
    if views.is_empty() {
        out.note("no instances (try: crn-agent instance create --help)");
        return Ok(());
    }
    out.table(&COLUMNS, &rows(&views))
}

/// Everything about an instance, for people.
pub(super) fn describe(v: &InstanceView) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("Name", v.name.clone()),
        ("Id", v.id.clone()),
        ("Owner", v.owner.to_string()),
        ("State", state(v)),
        ("Hostname", v.hostname.clone()),
        ("IPv6", format!("{} in {}", v.ipv6, v.ipv6_network)),
    ];
    if let Some(ipv4) = &v.ipv4 {
        rows.push(("IPv4", format!("{ipv4}, behind NAT")));
    }
    rows.push(("MAC", v.mac.clone()));
    let ports = if v.ports.is_empty() {
        "none".to_owned()
    } else {
        v.ports.join(", ")
    };
    rows.push(("Open ports", ports));
    rows.push(("CPU", v.vcpus.to_string()));
    rows.push(("Memory", table::mib(v.memory_mib)));
    rows.push(("Root disk", table::mib(v.disk_mib)));
    for volume in &v.volumes {
        let at = volume
            .mount
            .as_ref()
            .map(|m| format!(" at {m}"))
            .unwrap_or_default();
        rows.push((
            "Volume",
            format!("{}, {}{at}", volume.name, table::mib(volume.size_mib)),
        ));
    }
    rows.push(("Image", v.image.clone()));
    if let Some(digest) = &v.image_digest {
        rows.push(("Image digest", digest.clone()));
    }
    rows.push((
        "Firmware",
        if v.firmware == Firmware::Uefi {
            "UEFI"
        } else {
            "BIOS"
        }
        .to_owned(),
    ));
    if v.watchdog {
        rows.push((
            "Watchdog",
            "i6300esb: a guest that hangs is reset".to_owned(),
        ));
    }
    if let (Some(machine), Some(cpu)) = (&v.machine, &v.cpu_model) {
        rows.push(("Machine", format!("{machine}, CPU model {cpu}")));
    }
    if let Some(pid) = v.pid {
        let accel = v.accel.as_deref().unwrap_or("unknown");
        rows.push(("QEMU", format!("pid {pid}, {accel}")));
    }
    if let Some(seconds) = v.uptime_seconds {
        rows.push(("Up for", table::duration(seconds)));
    }
    if v.restarts > 0 {
        rows.push(("Restarts", format!("{} in a row", v.restarts)));
    }
    if let Some(at) = &v.next_start_at {
        rows.push(("Next start", table::time(at)));
    }
    if let Some(failure) = &v.failure {
        rows.push(("Failure", failure.message.clone()));
    }
    for warning in &v.warnings {
        let since = table::time(&warning.since);
        rows.push(("Warning", format!("{} (since {since})", warning.message)));
    }
    rows.push(("Created", table::time(&v.created_at)));
    rows
}

async fn logs(client: &Client, out: Out, args: LogsArgs) -> Result<(), Failure> {
    let mut query = format!("?follow={}", args.follow);
    if let Some(tail) = args.tail {
        query.push_str(&format!("&tail={tail}"));
    }
    let path = path(&args.one.instance, &format!("/console{query}"));
    let mut chunks = client.chunks(&path).await.map_err(refused)?;
    let filter = std::io::stdout().is_terminal() && !args.raw;
    let mut lines = console::Sanitizer::default();
    while let Some(bytes) = chunks.next().await? {
        if filter {
            out.text(&lines.push(&bytes))?;
        } else {
            out.bytes(&bytes)?;
        }
    }
    if filter {
        out.text(&lines.finish())
    } else {
        Ok(())
    }
}

async fn firewall(client: &Client, out: Out, args: FirewallArgs) -> Result<(), Failure> {
    let path = path(&args.one.instance, "/ports");
    let nothing = args.allow.is_empty() && args.deny.is_empty() && args.set.is_none();
    let ports: Ports = if nothing {
        client.get(&path).await.map_err(refused)?
    } else {
        let change = PortChange {
            set: args.set.as_deref().map(parse::ports),
            allow: args.allow,
            deny: args.deny,
        };
        client
            .send(Method::PATCH, &path, Some(&change))
            .await
            .map_err(refused)?
    };
    if out.json {
        return out.value(&ports);
    }
    if ports.ports.is_empty() {
        let _ = writeln!(std::io::stderr(), "no port is open");
        return Ok(());
    }
    out.text(&format!(
        "{}\n",
        ports
            .ports
            .iter()
            .map(|p| table::plain(p))
            .collect::<Vec<_>>()
            .join("\n")
    ))
}
