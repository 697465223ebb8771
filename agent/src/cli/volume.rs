//! `crn-agent volume`.

use hyper::Method;

use super::{
    args::VolumeCommand,
    exit::{Failure, Status},
    out::Out,
    table,
};
use crate::{
    client::{Client, ClientError, segment},
    ops::{
        VolumeView,
        volumes::{AttachVolume, CreateVolume, ResizeVolume},
    },
};

/// Carries out a `volume` command.
pub(super) async fn run(client: &Client, out: Out, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create { name, size } => {
            let request = CreateVolume {
                name,
                size_mib: size.map(|s| s.mib),
            };
            let view = client
                .send(Method::POST, "/v1/volumes", Some(&request))
                .await?;
            show(out, &view)
        }
        VolumeCommand::List => list(client, out).await,
        VolumeCommand::Show(one) => show(
            out,
            &client.get(&path(&one.volume, "")).await.map_err(lost)?,
        ),
        VolumeCommand::Attach {
            volume,
            instance,
            mount,
        } => {
            let request = AttachVolume { instance, mount };
            let path = path(&volume, "/attach");
            show(
                out,
                &client
                    .send(Method::POST, &path, Some(&request))
                    .await
                    .map_err(lost)?,
            )
        }
        VolumeCommand::Detach(one) => {
            let path = path(&one.volume, "/detach");
            show(
                out,
                &client
                    .send(Method::POST, &path, None::<&()>)
                    .await
                    .map_err(lost)?,
            )
        }
        VolumeCommand::Resize { volume, size } => {
            let request = ResizeVolume { size_mib: size.mib };
            let path = path(&volume, "/resize");
            show(
                out,
                &client
                    .send(Method::POST, &path, Some(&request))
                    .await
                    .map_err(lost)?,
            )
        }
        VolumeCommand::Delete(one) => {
            client.remove(&path(&one.volume, "")).await.map_err(|e| {
                let failure = lost(e);
                match failure.code {
                    Some(crate::ops::ErrorCode::Conflict) => {
                        failure.or_try(format!("crn-agent volume detach {}", one.volume))
                    }
                    _ => failure,
                }
            })?;
            if out.json {
                return out.value(&serde_json::json!({ "name": one.volume, "deleted": true }));
            }
            out.text(&format!("{}: deleted\n", table::plain(&one.volume)))
        }
    }
}

fn path(volume: &str, rest: &str) -> String {
    format!("/v1/volumes/{}{rest}", segment(volume))
}

fn lost(e: ClientError) -> Failure {
    let failure = Failure::from(e);
    match failure.status {
        Status::NotFound if failure.message.contains("instance") => {
            failure.or_try("crn-agent instance list")
        }
        Status::NotFound => failure.or_try("crn-agent volume list"),
        _ => failure,
    }
}

fn place(view: &VolumeView) -> String {
    match (&view.instance, &view.mount) {
        (Some(instance), Some(mount)) => format!("{instance}:{mount}"),
        (Some(instance), None) => instance.clone(),
        (None, _) => String::new(),
    }
}

fn state(view: &VolumeView) -> String {
    let word = serde_json::to_value(view.state).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

/// Columns of `volume list`.
pub(super) const COLUMNS: [(&str, bool); 4] = [
    ("NAME", false),
    ("SIZE", true),
    ("STATE", true),
    ("ATTACHED TO", false),
];

/// Rows of `volume list`.
pub(super) fn rows(views: &[VolumeView]) -> Vec<Vec<String>> {
    let row = |v: &VolumeView| vec![v.name.clone(), table::mib(v.size_mib), state(v), place(v)];
    views.iter().map(row).collect()
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let views: Vec<VolumeView> = client.get("/v1/volumes").await?;
    if out.json {
        return out.value(&views);
    }
    if views.is_empty() {
        out.note("no volumes (try: crn-agent volume create --help)");
        return Ok(());
    }
    out.table(&COLUMNS, &rows(&views))
}

fn show(out: Out, view: &VolumeView) -> Result<(), Failure> {
    if out.json {
        return out.value(view);
    }
    let attached = Some(place(view)).filter(|p| !p.is_empty());
    out.pairs(&[
        ("Name", view.name.clone()),
        ("Id", view.id.clone()),
        ("Size", table::mib(view.size_mib)),
        ("State", state(view)),
        (
            "Attached to",
            attached.unwrap_or_else(|| "nobody".to_owned()),
        ),
        ("Created", table::time(&view.created_at)),
    ])
}
