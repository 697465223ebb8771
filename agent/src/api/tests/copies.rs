//! Disks in and out, as files of the host.

use crn_api_types::{ErrorCode, ExportView, Owner, Update, VolumeState, VolumeView};
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::harness::Bench;
use crate::db::NewVolume;

async fn last<T: DeserializeOwned>(bench: &Bench, path: &str, body: Value) -> Update<T> {
    let lines = bench.client.lines(Method::POST, path, Some(&body)).await;
    let mut lines = lines.unwrap();
    let mut last = None;
    while let Some(update) = lines.json::<Update<T>>().await.unwrap() {
        last = Some(update);
    }
    last.unwrap()
}

fn compare(a: &std::path::Path, b: &std::path::Path) {
    let output = std::process::Command::new("qemu-img")
        .args(["compare", "-f", "qcow2", "-F", "qcow2"])
        .args([a, b])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn write(file: &std::path::Path, words: &str) {
    let output = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", words])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_out_and_comes_in() {
    let bench = Bench::new().await;
    let body = json!({"name": "data", "size_mib": 64});
    let made: VolumeView = bench
        .client
        .send(Method::POST, "/v1/volumes", Some(&body))
        .await
        .unwrap();
    let file = bench.node.volumes.path(&made.id);
    write(&file, "write -P 7 1M 1M");
    let out = bench.dir.path().join("out.qcow2");
    let export = json!({"path": out});
    let done = last::<ExportView>(&bench, "/v1/volumes/data/export", export.clone()).await;
    let Update::Done(view) = done else {
        panic!("{done:?}")
    };
    assert_eq!(
        (view.virtual_size, view.path.as_str()),
        (64 << 20, out.to_str().unwrap())
    );
    compare(&file, &out);
    // A file that is there is not touched.
    let again = last::<ExportView>(&bench, "/v1/volumes/data/export", export).await;
    assert!(
        matches!(&again, Update::Error(e) if e.code == ErrorCode::Conflict),
        "{again:?}"
    );

    let import = json!({"name": "copy", "path": out, "size_mib": 128});
    let done = last::<VolumeView>(&bench, "/v1/volumes/import", import).await;
    let Update::Done(copy) = done else {
        panic!("{done:?}")
    };
    assert_eq!((copy.size_mib, copy.state), (128, VolumeState::Ready));
    let copied = bench.node.volumes.path(&copy.id);
    compare(&file, &copied);
    let mode = std::os::unix::fs::PermissionsExt::mode(&copied.metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0);

    // A disk smaller than the smallest volume becomes one.
    let small = bench.dir.path().join("small.img");
    std::fs::write(&small, disk_with_boot_mark()).unwrap();
    let import = json!({"name": "small", "path": small});
    let done = last::<VolumeView>(&bench, "/v1/volumes/import", import).await;
    let Update::Done(view) = done else {
        panic!("{done:?}")
    };
    assert_eq!(view.size_mib, 64);
}

/// 1 MiB.
fn disk_with_boot_mark() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_or_is_cut_off_leaves_nothing() {
    let bench = Bench::new().await;
    let before = bench.records();
    let page = bench.dir.path().join("page");
    std::fs::write(&page, b"<!DOCTYPE html><html></html>").unwrap();
    let disk = bench.dir.path().join("disk");
    disk::create_volume(&disk, disk::ByteSize::from_mib(256), disk::Format::Qcow2).unwrap();
    for body in [
        json!({"name": "v", "path": page}),
        json!({"name": "v", "path": disk, "size_mib": 64}),
        json!({"name": "v", "path": disk, "format": "raw"}),
        json!({"name": "v", "path": "/nonexistent"}),
    ] {
        let step = last::<VolumeView>(&bench, "/v1/volumes/import", body.clone()).await;
        assert!(matches!(step, Update::Error(_)), "{body}: {step:?}");
        assert_eq!(bench.records(), before, "{body}");
    }
    // The agent died in the middle: nobody was told of a volume, and there is none.
    let new = NewVolume {
        state: VolumeState::Importing,
        ..NewVolume::empty(&"cut".parse().unwrap(), 64)
    };
    let capacity = bench.node.capacity;
    let db = &bench.node.db;
    let row = db.insert_volume(&Owner::Operator, new, capacity).await;
    let row = row.unwrap();
    for refused in [
        bench.client.remove("/v1/volumes/cut").await.err(),
        bench
            .client
            .send::<_, VolumeView>(
                Method::POST,
                "/v1/volumes/cut/resize",
                Some(&json!({"size_mib": 128})),
            )
            .await
            .err(),
    ] {
        let e = refused.unwrap().to_string();
        assert!(e.contains("being imported"), "{e}");
    }
    crate::ops::volumes::settle(&bench.node).await.unwrap();
    assert!(db.volume(&row.id).await.is_err());
    assert_eq!(bench.records(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_disk_is_copied_while_its_instance_rests() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let view = bench.instance("web").await;
    bench.settled(&view.id, "stopped").await;
    let id = view.id.parse().unwrap();
    let root = bench
        .node
        .paths
        .instance_file(&id, crate::paths::InstanceFile::Root);
    write(&root, "write -P 9 2M 1M");
    let out = bench.dir.path().join("root.qcow2");
    let export = json!({"path": out});
    let done = last::<ExportView>(&bench, "/v1/instances/web/export", export).await;
    assert!(matches!(done, Update::Done(_)), "{done:?}");
    compare(&root, &out);
    disk::info(&out, disk::Format::Qcow2, None).unwrap();
    // It is an image now.
    let import = json!({"name": "mine:1", "path": out});
    let step = last::<Value>(&bench, "/v1/images/import", import).await;
    assert!(matches!(step, Update::Done(_)), "{step:?}");
    // A relative path, or one of nobody's, is refused before anything begins.
    let relative = json!({"path": "root.qcow2"});
    let lines = bench
        .client
        .lines(Method::POST, "/v1/instances/web/export", Some(&relative))
        .await;
    assert!(lines.is_err());
}
