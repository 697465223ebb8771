//! Images that are in no catalogue, from a URL.

use std::sync::Arc;

use crn_api_types::{Code, ErrorCode, ImageView, ImportRequest, Update};
use disk::Sha256;
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::super::{Caller, OpError, images};
use crate::{api::tests::harness, node::Node};

/// A member of the API's group: not root.
const MEMBER: Caller = Caller::Operator { host_files: false };

/// Serves one content to everybody, from this machine.
async fn serve(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                content.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&content).await.unwrap();
        }
    });
    url
}

async fn import(node: &Arc<Node>, request: ImportRequest) -> Result<Update<ImageView>, OpError> {
    let updates = images::import(node, &MEMBER, request).await?;
    let mut updates = std::pin::pin!(updates);
    let mut last = None;
    while let Some(update) = updates.next().await {
        last = Some(update);
    }
    Ok(last.unwrap())
}

fn request(url: &str, digest: Option<String>) -> ImportRequest {
    ImportRequest {
        name: "mine:1".into(),
        path: None,
        url: Some(url.into()),
        format: None,
        digest,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_comes_from_a_url_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| ()).await;
    let file = dir.path().join("disk.qcow2");
    disk::create_volume(&file, disk::ByteSize::from_mib(64), disk::Format::Qcow2).unwrap();
    let content = std::fs::read(&file).unwrap();
    let digest = Sha256::of(&content);
    let url = serve(content).await;

    let refused = |result: Result<Update<ImageView>, OpError>| match result {
        Err(e) => e.code,
        Ok(update) => panic!("{update:?}"),
    };
    assert_eq!(
        refused(import(&node, request(&url, None)).await),
        ErrorCode::Invalid
    );
    let both = ImportRequest {
        path: Some("/etc/passwd".into()),
        ..request(&url, Some(digest.to_string()))
    };
    assert_eq!(
        refused(import(&node, both).await),
        ErrorCode::Forbidden,
        "a path is for root, whatever is beside it"
    );
    let wrong = format!("sha256:{}", "0".repeat(64));
    let last = import(&node, request(&url, Some(wrong))).await.unwrap();
    assert!(
        matches!(&last, Update::Error(e) if e.code == Code::Operation(ErrorCode::ImageSource)),
        "{last:?}"
    );
    let name = "mine:1".parse().unwrap();
    assert!(node.images.stored(&name).await.unwrap().is_none());

    // The digits alone, as publishers list them; and nothing is kept of what may be a signature.
    let from = format!("{url}/disk.qcow2?signature=secret");
    let last = import(&node, request(&from, Some(digest.hex()))).await;
    let Update::Done(view) = last.unwrap() else {
        panic!()
    };
    assert_eq!(view.digest, Some(digest.to_string()));
    assert_eq!(view.source, format!("{url}/disk.qcow2"));
    assert!(view.stored && !view.retired);
    assert_eq!(view.boot_mark, Some(false), "an empty disk");
    // Instances can be layered over it from now on.
    assert!(node.images.is_known(&name).await.unwrap());
    let list = images::list(&node, &MEMBER).await.unwrap();
    assert!(list.iter().any(|i| i.name == "mine:1" && i.stored));
    assert!(list.iter().any(|i| i.name == "debian:10" && i.retired));
}

/// One that has lost its name is listed by its digest, and found by the first digits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_a_name_is_found_by_the_first_digits() {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| ()).await;
    let mut digests = Vec::new();
    for mib in [64, 128] {
        let file = dir.path().join(format!("{mib}.qcow2"));
        let size = disk::ByteSize::from_mib(mib);
        disk::create_volume(&file, size, disk::Format::Qcow2).unwrap();
        let import = disk::Import::default();
        let image = node.images.store.import(&file, &import, |_| ()).unwrap();
        digests.push(image.digest.to_string());
    }
    let (first, _) = digests[0].split_at("sha256:".len() + 12);
    let verified = images::verify(&node, &MEMBER, first).await.unwrap();
    let last = verified.collect::<Vec<_>>().await.pop();
    let Some(Update::Done(view)) = last else {
        panic!("{last:?}")
    };
    assert_eq!(view.name, digests[0]);
    // Too few digits, or those of none, are nobody's.
    for few in ["sha256:", &first[..10], "sha256:000000000000"] {
        assert!(images::remove(&node, &MEMBER, few).await.is_err(), "{few}");
    }
    assert_eq!(node.images.store.list().unwrap().len(), 2);
    images::remove(&node, &MEMBER, first).await.unwrap();
    let left = node.images.store.list().unwrap();
    assert_eq!(
        left.iter().map(ToString::to_string).collect::<Vec<_>>(),
        digests[1..]
    );
}

/// It has no origin to be fetched from, and "done" would be no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_of_what_was_imported_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| ()).await;
    let file = dir.path().join("disk.qcow2");
    disk::create_volume(&file, disk::ByteSize::from_mib(64), disk::Format::Qcow2).unwrap();
    let name = "mine:1".parse().unwrap();
    let imported = node.images.import(&name, &file, None, None, |_| ()).await;
    imported.unwrap();
    let pulled = images::pull(&node, &MEMBER, "mine:1").await.unwrap();
    let last = pulled.collect::<Vec<_>>().await.pop();
    let Some(Update::Error(error)) = last else {
        panic!("{last:?}")
    };
    assert!(
        error.message.contains("import it again"),
        "{}",
        error.message
    );
    // An instance takes it all the same.
    assert!(node.images.ensure(&name, |_| ()).await.is_ok());
}
