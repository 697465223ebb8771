//! `crn-agent volume`.

use crn_api_types::{
    AttachVolume, CreateVolume, ErrorCode, ImportVolume, ResizeVolume, Subject, VolumeView,
};
use hyper::Method;

use super::{
    args::VolumeCommand,
    exit::{Failure, Status},
    follow,
    out::Out,
    table,
};
use crate::client::{Client, ClientError, segment};

/// Carries out a `volume` command.
pub(super) async fn run(client: &Client, out: Out, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create { name, size, fs } => {
            let request = CreateVolume {
                name,
                size_mib: size.map(|s| s.mib),
                file_system: fs,
            };
            let view = client
                .send(Method::POST, "/v1/volumes", Some(&request))
                .await?;
            show(out, &view)
        }
        VolumeCommand::List => list(client, out).await,
        VolumeCommand::Show(one) => show(
            out,
            &client.get(&path(&one.volume, "")).await.map_err(refused)?,
        ),
        VolumeCommand::Attach {
            volume,
            instance,
            mount,
        } => {
            let request = AttachVolume { instance, mount };
            let before = client.get(&path(&volume, "")).await.map_err(refused)?;
            let path = path(&volume, "/attach");
            let after = client.send(Method::POST, &path, Some(&request)).await;
            let after = after.map_err(refused)?;
            for note in attached(&before, &after) {
                out.note(&note);
            }
            show(out, &after)
        }
        VolumeCommand::Detach(one) => {
            let path = path(&one.volume, "/detach");
            show(
                out,
                &client
                    .send(Method::POST, &path, None::<&()>)
                    .await
                    .map_err(refused)?,
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
                    .map_err(refused)?,
            )
        }
        VolumeCommand::Import {
            name,
            file,
            format,
            size,
        } => {
            let what = format!("importing {name}");
            let request = ImportVolume {
                name,
                path: follow::existing(&file)?,
                format,
                size_mib: size.map(|s| s.mib),
            };
            let view = follow::follow(client, out, "/v1/volumes/import", &request, &what).await;
            show(out, &view.map_err(Failure::from)?)
        }
        VolumeCommand::Export { volume, file } => {
            let path = path(&volume, "/export");
            follow::export(client, out, &path, &volume, &file, refused).await
        }
        VolumeCommand::Delete(one) => {
            client.remove(&path(&one.volume, "")).await.map_err(|e| {
                let failure = refused(e);
                match failure.code {
                    Some(code) if code == ErrorCode::Conflict => {
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

fn refused(e: ClientError) -> Failure {
    let failure = Failure::from(e);
    match (failure.status, failure.about) {
        (Status::NotFound, Some(Subject::Instance)) => failure.or_try("crn-agent instance list"),
        (Status::NotFound, _) => failure.or_try("crn-agent volume list"),
        _ => failure,
    }
}

/// What somebody who attached a volume may not expect.
fn attached(before: &VolumeView, after: &VolumeView) -> Vec<String> {
    let mut notes = Vec::new();
    let at = |view: &VolumeView| {
        view.mount
            .clone()
            .unwrap_or_else(|| "no mount point".into())
    };
    if before.instance.is_some() && before.instance == after.instance {
        let (old, new) = (at(before), at(after));
        notes.push(if old == new {
            "it was attached there already".to_owned()
        } else {
            format!("it was attached there already: its mount point was {old}, and is {new}")
        });
    }
    if after.mount.is_some() && before.mount != after.mount {
        notes.push("a guest that runs mounts it there from its next start on".to_owned());
    }
    notes
}

fn place(view: &VolumeView) -> String {
    match (&view.instance, &view.mount) {
        (Some(instance), Some(mount)) => format!("{instance}:{mount}"),
        (Some(instance), None) => instance.clone(),
        (None, _) => String::new(),
    }
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
    let row = |v: &VolumeView| {
        vec![
            v.name.clone(),
            table::mib(v.size_mib),
            v.state.to_string(),
            place(v),
        ]
    };
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
        ("State", view.state.to_string()),
        (
            "File system",
            format!("{}, made where there is none", view.file_system),
        ),
        (
            "Attached to",
            attached.unwrap_or_else(|| "nobody".to_owned()),
        ),
        ("Created", table::time(&view.created_at)),
    ])
}

#[cfg(test)]
mod tests {
    use super::{super::samples, *};

    #[test]
    fn an_attachment_says_what_is_not_expected() {
        let there = |mount: Option<&str>| VolumeView {
            mount: mount.map(str::to_owned),
            ..samples::volume()
        };
        let free = VolumeView {
            instance: None,
            ..there(None)
        };
        assert_eq!(attached(&free, &there(None)), Vec::<String>::new());
        let started = attached(&free, &there(Some("/data")));
        assert!(
            started.len() == 1 && started[0].contains("next start"),
            "{started:?}"
        );
        let moved = attached(&there(Some("/data")), &there(Some("/srv")));
        assert!(moved[0].contains("was /data, and is /srv"), "{moved:?}");
        let again = attached(&there(Some("/data")), &there(Some("/data")));
        assert_eq!(again, ["it was attached there already"]);
    }
}
