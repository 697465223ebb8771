//! What each route does, from a client's side.

use crn_api_types::{
    Code, ErrorCode, FileSystem, ImageView, InstanceView, NodeStatus, Owner, Phase, Ports, Update,
    VolumeView,
};
use hyper::Method;
use serde_json::{Value, json};

use super::harness::Bench;
use crate::client::ClientError;

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Refused(detail)) => detail.code,
        other => panic!("{other:?}"),
    }
}

async fn post<T: serde::de::DeserializeOwned>(
    bench: &Bench,
    path: &str,
    body: Value,
) -> Result<T, ClientError> {
    bench.client.send(Method::POST, path, Some(&body)).await
}

async fn last_step(bench: &Bench, path: &str, body: Value) -> Update<ImageView> {
    let mut lines = bench
        .client
        .lines(Method::POST, path, Some(&body))
        .await
        .unwrap();
    let mut last = None;
    while let Some(step) = lines.json::<Update<ImageView>>().await.unwrap() {
        last = Some(step);
    }
    last.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_an_instance() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let view = bench.instance("web").await;
    assert_eq!((view.name.as_str(), view.hostname.as_str()), ("web", "web"));
    assert_eq!(view.ports, ["22/tcp"]);
    assert!(view.image_digest.is_some_and(|d| d.starts_with("sha256:")));
    assert!(view.ipv6.starts_with("2001:db8:1:2:3:"), "{}", view.ipv6);
    assert!(
        bench
            .node
            .paths
            .instance(&view.id.parse().unwrap())
            .join("root.qcow2")
            .exists()
    );

    // By name, by id, by the first digits.
    for reference in ["web", &view.id, &view.id[..8]] {
        let path = format!("/v1/instances/{reference}");
        let found: InstanceView = bench.client.get(&path).await.unwrap();
        assert_eq!(found.id, view.id);
    }
    let all: Vec<InstanceView> = bench.client.get("/v1/instances").await.unwrap();
    assert_eq!(all.len(), 1);
    let again = post::<InstanceView>(&bench, "/v1/instances", Bench::request("web")).await;
    assert_eq!(code(again), ErrorCode::NameTaken);

    let status: NodeStatus = bench.client.get("/v1/status").await.unwrap();
    assert_eq!((status.used.instances, status.used.disk_mib), (1, 128));
    assert_eq!(status.phases.get(&Phase::Stopped), Some(&1));

    // Stopped already: the same again.
    let stopped: InstanceView = post(&bench, "/v1/instances/web/stop", json!({}))
        .await
        .unwrap();
    assert_eq!(stopped.phase, Phase::Stopped);

    let gone: InstanceView = bench
        .client
        .send(Method::DELETE, "/v1/instances/web", None::<&()>)
        .await
        .unwrap();
    assert_eq!(gone.id, view.id);
    for _ in 0..200 {
        match bench.client.get::<InstanceView>("/v1/instances/web").await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(25)).await,
            Err(e) => {
                assert_eq!(code(Err::<(), _>(e)), ErrorCode::NotFound);
                break;
            }
        }
    }
    assert!(
        !bench
            .node
            .paths
            .instance(&view.id.parse().unwrap())
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_creates_once() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let request = |name: &str| serde_json::from_value(Bench::request(name)).unwrap();
    let one = request("one");
    let (a, b) = tokio::join!(
        bench.client.create::<InstanceView>(&one, Some("k1")),
        bench.client.create::<InstanceView>(&one, Some("k1")),
    );
    assert_eq!(a.unwrap().id, b.unwrap().id);
    let other = bench
        .client
        .create::<InstanceView>(&request("one"), Some("k2"))
        .await;
    assert_eq!(code(other), ErrorCode::NameTaken);
    let changed = serde_json::from_value({
        let mut body = Bench::request("one");
        body["vcpus"] = json!(2);
        body
    });
    let changed = bench
        .client
        .create::<InstanceView>(&changed.unwrap(), Some("k1"))
        .await;
    assert_eq!(code(changed), ErrorCode::Conflict);
    let all: Vec<InstanceView> = bench.client.get("/v1/instances").await.unwrap();
    assert_eq!(all.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_an_instance() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    bench.instance("web").await;
    let path = "/v1/instances/web/ports";
    let change = |body: Value| async move { body };
    for (body, ports) in [
        (
            json!({"allow": ["80", "53/udp"]}),
            vec!["22/tcp", "53/udp", "80/tcp"],
        ),
        (json!({"deny": ["22"]}), vec!["53/udp", "80/tcp"]),
        (
            json!({"set": ["443"], "allow": ["8000-8010"]}),
            vec!["443/tcp", "8000-8010/tcp"],
        ),
        (json!({"set": []}), vec![]),
    ] {
        let body = change(body).await;
        let got: Ports = bench
            .client
            .send(Method::PATCH, path, Some(&body))
            .await
            .unwrap();
        let mut got = got.ports;
        got.sort();
        assert_eq!(got, ports, "{body}");
        let mut shown = bench.client.get::<Ports>(path).await.unwrap().ports;
        shown.sort();
        assert_eq!(shown, ports);
    }
    let missing = json!({"deny": ["443"]});
    let refused = bench
        .client
        .send::<_, Ports>(Method::PATCH, path, Some(&missing))
        .await;
    assert_eq!(code(refused), ErrorCode::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_volume() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    bench.instance("web").await;
    bench.instance("db").await;
    let body = json!({"name": "data", "size_mib": 64});
    let volume: VolumeView = post(&bench, "/v1/volumes", body.clone()).await.unwrap();
    let file = bench.node.volumes.path(&volume.id);
    let size = || {
        disk::info(&file, disk::Format::Qcow2, None)
            .unwrap()
            .virtual_size
            .mib_ceil()
    };
    assert_eq!(size(), 64);
    let again = post::<VolumeView>(&bench, "/v1/volumes", body).await;
    assert_eq!(code(again), ErrorCode::NameTaken);

    let attach = |instance: &str| json!({"instance": instance, "mount": "/data"});
    let attached: VolumeView = post(&bench, "/v1/volumes/data/attach", attach("web"))
        .await
        .unwrap();
    assert_eq!(
        (attached.instance.as_deref(), attached.mount.as_deref()),
        (Some("web"), Some("/data"))
    );
    let elsewhere = post::<VolumeView>(&bench, "/v1/volumes/data/attach", attach("db")).await;
    assert_eq!(code(elsewhere), ErrorCode::Conflict);
    let used = bench.client.remove("/v1/volumes/data").await;
    assert_eq!(code(used), ErrorCode::Conflict);
    let shown: InstanceView = bench.client.get("/v1/instances/web").await.unwrap();
    assert_eq!(shown.volumes[0].name, "data");

    for mib in [128, 128] {
        let resize = json!({"size_mib": mib});
        let grown: VolumeView = post(&bench, "/v1/volumes/data/resize", resize)
            .await
            .unwrap();
        assert_eq!((grown.size_mib, size()), (128, 128));
    }
    let smaller =
        post::<VolumeView>(&bench, "/v1/volumes/data/resize", json!({"size_mib": 64})).await;
    assert_eq!(code(smaller), ErrorCode::Conflict);

    for _ in 0..2 {
        let free: VolumeView = post(&bench, "/v1/volumes/data/detach", json!({}))
            .await
            .unwrap();
        assert_eq!(free.instance, None);
    }
    let grown: VolumeView = post(&bench, "/v1/volumes/data/resize", json!({"size_mib": 256}))
        .await
        .unwrap();
    assert_eq!((grown.size_mib, size()), (256, 256));
    bench.client.remove("/v1/volumes/data").await.unwrap();
    assert!(!file.exists());
    assert_eq!(
        code(bench.client.get::<VolumeView>("/v1/volumes/data").await),
        ErrorCode::NotFound
    );
}

/// What a guest is to make on an empty volume is on record, and in its seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_has_the_file_system_that_was_asked_for() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let create = |body: Value| post::<VolumeView>(&bench, "/v1/volumes", body);
    let small = create(json!({"name": "data", "size_mib": 64, "file_system": "xfs"})).await;
    let error = small.unwrap_err().to_string();
    assert!(
        error.contains("xfs needs a volume of at least 300 MiB"),
        "{error}"
    );
    create(json!({"name": "data", "size_mib": 512, "file_system": "zfs"}))
        .await
        .unwrap_err();
    let made = create(json!({"name": "data", "size_mib": 512, "file_system": "xfs"})).await;
    assert_eq!(made.unwrap().file_system, FileSystem::Xfs);
    let plain = create(json!({"name": "plain", "size_mib": 64})).await;
    assert_eq!(plain.unwrap().file_system, FileSystem::Ext4);

    let mut request = Bench::request("web");
    request["volumes"] = json!([
        {"name": "data", "mount": "/data"}, {"name": "plain", "mount": "/plain"}
    ]);
    let view: InstanceView = post(&bench, "/v1/instances", request).await.unwrap();
    bench.settled(&view.id, "stopped").await;
    let id = view.id.parse().unwrap();
    let seed = bench
        .node
        .paths
        .instance_file(&id, crate::paths::InstanceFile::Seed);
    let seed = std::fs::read(seed).unwrap();
    for line in ["' '/data' xfs\n", "' '/plain' ext4\n"] {
        assert!(
            seed.windows(line.len()).any(|w| w == line.as_bytes()),
            "{line}"
        );
    }
}

/// What of the user's data loses is told where the user looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_that_loses_is_shown() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let mut request = Bench::request("web");
    request["cloud_init"] = "#cloud-config\nhostname: other\nssh_pwauth: true\n".into();
    let kind = crn_api_types::WarningKind::UserData;
    let told = |view: &InstanceView| {
        let told = view.warnings.iter().find(|w| w.kind == kind).unwrap();
        for key in ["`hostname`", "`ssh_pwauth`"] {
            assert!(told.message.contains(key), "{}", told.message);
        }
    };
    let view: InstanceView = post(&bench, "/v1/instances", request).await.unwrap();
    told(&view);
    bench.settled(&view.id, "stopped").await;
    told(&bench.client.get("/v1/instances/web").await.unwrap());
    // Of the tenant's making: nothing on the node is to be mended.
    let node: crn_api_types::NodeStatus = bench.client.get("/v1/status").await.unwrap();
    assert!(
        node.warnings
            .iter()
            .all(|w| !w.message.contains("ssh_pwauth"))
    );
    bench.instance("plain").await;
    let view: InstanceView = bench.client.get("/v1/instances/plain").await.unwrap();
    assert!(view.warnings.iter().all(|w| w.kind != kind), "{view:?}");
}

/// A mount point that the guest could not be told at its next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_that_would_keep_a_guest_from_booting_are_refused() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let mut request = Bench::request("web");
    let mounts = "#cloud-config\nmounts:\n- [tmpfs, /scratch, tmpfs]\n";
    request["cloud_init"] = mounts.into();
    request["volumes"] = json!([{"name": "first", "size_mib": 64, "mount": "/data"}]);
    let view: InstanceView = post(&bench, "/v1/instances", request).await.unwrap();
    bench.settled(&view.id, "stopped").await;
    let body = json!({"name": "second", "size_mib": 64});
    let _: VolumeView = post(&bench, "/v1/volumes", body).await.unwrap();
    for mount in ["/data", "/scratch"] {
        let body = json!({"instance": "web", "mount": mount});
        let refused = post::<VolumeView>(&bench, "/v1/volumes/second/attach", body).await;
        assert_eq!(code(refused), ErrorCode::Conflict, "{mount}");
        let left: VolumeView = bench.client.get("/v1/volumes/second").await.unwrap();
        assert_eq!((left.instance, left.mount), (None, None), "{mount}");
    }
    // Nor does a refused new mount point replace the old one.
    let body = json!({"instance": "web", "mount": "/scratch"});
    let refused = post::<VolumeView>(&bench, "/v1/volumes/first/attach", body).await;
    assert_eq!(code(refused), ErrorCode::Conflict);
    let left: VolumeView = bench.client.get("/v1/volumes/first").await.unwrap();
    assert_eq!(left.mount.as_deref(), Some("/data"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_that_were_cut_off_are_settled() {
    let bench = Bench::new().await;
    let db = &bench.node.db;
    let name = |n: &str| n.parse::<crate::ids::Name>().unwrap();
    let begun = db
        .insert_volume(
            &Owner::Operator,
            crate::db::NewVolume::empty(&name("begun"), 64),
            bench.node.capacity,
        )
        .await
        .unwrap();
    let going = db
        .insert_volume(
            &Owner::Operator,
            crate::db::NewVolume::empty(&name("going"), 64),
            bench.node.capacity,
        )
        .await
        .unwrap();
    db.set_volume_state(&going.id, crate::db::VolumeState::Deleting)
        .await
        .unwrap();
    let small: VolumeView = post(
        &bench,
        "/v1/volumes",
        json!({"name": "small", "size_mib": 64}),
    )
    .await
    .unwrap();
    db.grow_volume(&small.id, 128, bench.node.capacity)
        .await
        .unwrap();

    crate::ops::volumes::settle(&bench.node).await.unwrap();
    let all: Vec<VolumeView> = bench.client.get("/v1/volumes").await.unwrap();
    let names: Vec<_> = all.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["begun", "small"]);
    assert!(all.iter().all(|v| v.state == crate::db::VolumeState::Ready));
    assert!(bench.node.volumes.path(&begun.id).exists());
    let file = bench.node.volumes.path(&small.id);
    let info = disk::info(&file, disk::Format::Qcow2, None).unwrap();
    assert_eq!(info.virtual_size.mib_ceil(), 128);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_an_image() {
    let bench = Bench::new().await;
    let file = bench.image("tiny").await;
    let import = json!({"name": "copy", "path": file.to_str().unwrap(), "format": "qcow2"});
    let Update::Done(copy) = last_step(&bench, "/v1/images/import", import).await else {
        panic!()
    };
    let images: Vec<ImageView> = bench.client.get("/v1/images").await.unwrap();
    let stored: Vec<_> = images
        .iter()
        .filter(|i| i.stored)
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(stored, ["copy", "tiny"]);
    assert!(images.iter().any(|i| i.name == "debian:12" && !i.stored));

    // The content stays with its second name.
    bench.client.remove("/v1/images/copy").await.unwrap();
    let verify = json!({"image": "tiny"});
    let step = last_step(&bench, "/v1/images/verify", verify.clone()).await;
    assert!(
        matches!(&step, Update::Done(view) if view.digest == copy.digest),
        "{step:?}"
    );

    bench.instance("web").await;
    assert_eq!(
        code(bench.client.remove("/v1/images/tiny").await),
        ErrorCode::Conflict
    );
    let digest = copy.digest.clone().unwrap();
    let by_digest = format!("/v1/images/{digest}");
    assert_eq!(
        code(bench.client.remove(&by_digest).await),
        ErrorCode::Conflict
    );

    // Somebody writes into the store.
    let hex: disk::Sha256 = digest.parse().unwrap();
    let path = bench.node.images.store.path_of(&hex);
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&path, permissions).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let step = last_step(&bench, "/v1/images/verify", verify).await;
    assert!(
        matches!(&step, Update::Error(e) if e.code == ErrorCode::Damaged),
        "{step:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_images_are_refused() {
    let bench = Bench::new().await;
    let before = bench.records();
    let write = |name: &str, bytes: &[u8]| {
        let path = bench.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let base = bench.dir.path().join("base.qcow2");
    disk::create_volume(&base, disk::ByteSize::from_mib(64), disk::Format::Qcow2).unwrap();
    let overlay = bench.dir.path().join("overlay.qcow2");
    let spec = disk::OverlaySpec::new(
        disk::BaseRef {
            path: "/etc/shadow".into(),
            format: disk::Format::Raw,
            virtual_size: disk::ByteSize::from_mib(64),
        },
        disk::ByteSize::from_mib(64),
    );
    disk::create_overlay(&overlay, &spec).unwrap();
    let sha = format!("sha256:{}", "0".repeat(64));
    let table = [
        (
            "an overlay over a file of the host",
            json!({"path": overlay}),
        ),
        (
            "a web page",
            json!({"path": write("page", b"<!DOCTYPE html><html></html>")}),
        ),
        ("an empty file", json!({"path": write("empty", b"")})),
        ("a directory", json!({"path": bench.dir.path()})),
        ("a device", json!({"path": "/dev/zero"})),
        ("nothing", json!({"path": "/nonexistent/x.qcow2"})),
        ("QCOW2 as raw", json!({"path": base, "format": "raw"})),
        ("another digest", json!({"path": base, "digest": sha})),
    ];
    for (what, mut body) in table {
        body["name"] = json!("evil");
        let step = last_step(&bench, "/v1/images/import", body).await;
        assert!(matches!(step, Update::Error(_)), "{what}: {step:?}");
        assert_eq!(bench.records(), before, "{what}");
    }
    assert!(bench.node.images.store.list().unwrap().is_empty());
}
