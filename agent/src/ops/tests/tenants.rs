//! Several tenants and the operator on one node.

use std::sync::Arc;

use crn_api_types::{
    Address, AttachVolume, Code, CreateRequest, CreateVolume, ErrorCode, EventKind, InstanceView,
    Owner, PortChange, ResizeVolume, StopOptions,
};
use futures::StreamExt;
use serde_json::json;

use super::super::{
    Caller, OpError,
    console::{self, LogQuery},
    events::{self, Query},
    images, instances, ports, status, volumes,
};
use crate::{api::tests::harness, config::CatalogueImage, node::Node};

const OPERATOR: Caller = Caller::Operator { host_files: true };

fn tenant(byte: u8) -> Caller {
    Caller::Tenant(Address::ethereum([byte; 20]))
}

/// A node whose catalogue has the image `tiny:1`.
async fn node(dir: &tempfile::TempDir) -> Arc<Node> {
    let file = dir.path().join("tiny.qcow2");
    disk::create_volume(&file, disk::ByteSize::from_mib(64), disk::Format::Qcow2).unwrap();
    let image = CatalogueImage {
        name: "tiny:1".into(),
        url: file.display().to_string(),
        sums: None,
        sums_name: None,
        digest: None,
    };
    harness::node(dir, |config| config.images.catalogue.push(image)).await
}

fn request(name: &str) -> CreateRequest {
    let request = json!({
        "name": name, "memory_mib": 64, "disk_mib": 64, "image": "tiny:1", "start": false,
        "volumes": [{"name": "data", "size_mib": 64}],
    });
    serde_json::from_value(request).unwrap()
}

async fn create(node: &Arc<Node>, caller: &Caller, key: Option<&str>) -> InstanceView {
    let (view, new) = instances::create(node, caller, request("web"), key)
        .await
        .unwrap();
    assert!(new);
    view
}

fn code<T>(result: Result<T, OpError>) -> Option<Code> {
    result.err().map(|e| e.code)
}

#[tokio::test]
async fn names_and_keys_are_each_owners_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let callers = [OPERATOR, tenant(1), tenant(2)];
    let mut views = Vec::new();
    for caller in &callers {
        views.push(create(&node, caller, Some("key")).await);
    }
    for (caller, view) in callers.iter().zip(&views) {
        assert_eq!(Some(&view.owner), caller.owner().as_ref());
        let again = instances::create(&node, caller, request("web"), Some("key")).await;
        let (again, new) = again.unwrap();
        assert_eq!((&again.id, new), (&view.id, false));
        let shown = instances::get(&node, caller, "web").await.unwrap();
        assert_eq!(shown.id, view.id);
        let volume = volumes::get(&node, caller, "data").await.unwrap();
        assert_eq!(volume.owner, view.owner);
        assert_eq!(shown.volumes[0].name, "data");
        let seen = instances::list(&node, caller).await.unwrap().len();
        let volumes = volumes::list(&node, caller).await.unwrap().len();
        let expected = if *caller == OPERATOR { 3 } else { 1 };
        assert_eq!((seen, volumes), (expected, expected));
    }
    let ids: std::collections::BTreeSet<_> = views.iter().map(|v| &v.id).collect();
    assert_eq!(ids.len(), 3);
}

/// Word for word the answer for what does not exist.
#[tokio::test]
async fn a_tenant_learns_nothing_of_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let theirs = create(&node, &tenant(1), None).await;
    let volume = volumes::get(&node, &tenant(1), "data").await.unwrap();
    let me = tenant(2);
    create(&node, &me, None).await;
    let nothing = "0".repeat(64);
    let both = |it: &str| [it.to_owned(), nothing.clone()];
    let mut told = Vec::new();
    for id in both(&theirs.id) {
        let (n, m) = (&node, StopOptions::default());
        let follow = LogQuery::default();
        let of = Query {
            instance: Some(id.clone()),
            ..Query::default()
        };
        let answers = [
            instances::get(n, &me, &id).await.err(),
            instances::start(n, &me, &id).await.err(),
            instances::stop(n, &me, &id, m).await.err(),
            instances::restart(n, &me, &id, m).await.err(),
            instances::delete(n, &me, &id, m).await.err(),
            ports::show(n, &me, &id).await.err(),
            ports::change(n, &me, &id, PortChange::default())
                .await
                .err(),
            console::log(n, &me, &id, follow).await.err(),
            console::attach(n, &me, &id).await.err(),
            events::stream(n, &me, of).await.err(),
            volumes::attach(
                n,
                &me,
                "data",
                AttachVolume {
                    instance: id.clone(),
                    mount: None,
                },
            )
            .await
            .err(),
        ];
        told.push(answers.map(|e| e.expect("refused").to_string().replace(&id, "ID")));
    }
    assert_eq!(told[0], told[1]);
    assert!(
        told[0].iter().all(|t| t == "there is no instance ID"),
        "{told:?}"
    );

    for id in [volume.id.clone(), "f".repeat(16)] {
        let to = AttachVolume {
            instance: "web".into(),
            mount: None,
        };
        let answers = [
            volumes::get(&node, &me, &id).await.err(),
            volumes::attach(&node, &me, &id, to).await.err(),
            volumes::detach(&node, &me, &id).await.err(),
            volumes::resize(&node, &me, &id, ResizeVolume { size_mib: 128 })
                .await
                .err(),
            volumes::delete(&node, &me, &id).await.err(),
        ];
        for answer in answers {
            assert_eq!(
                answer.expect("refused").to_string(),
                format!("there is no volume {id}")
            );
        }
    }
    // All of it is there still.
    let shown = instances::get(&node, &tenant(1), &theirs.id).await.unwrap();
    assert_eq!(shown.volumes[0].size_mib, 64);
}

#[tokio::test]
async fn what_is_the_nodes_is_for_its_operator() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let file = dir.path().join("tiny.qcow2");
    let name = "private:1".parse().unwrap();
    node.images
        .import(&name, &file, None, None, |_| ())
        .await
        .unwrap();
    let me = tenant(1);
    for caller in [tenant(1), Caller::Observer, Caller::Nobody] {
        let pulled = images::pull(&node, &caller, "tiny:1").await;
        assert_eq!(code(pulled), Some(ErrorCode::Forbidden.into()));
        let removed = images::remove(&node, &caller, "private:1").await;
        assert_eq!(code(removed), Some(ErrorCode::Forbidden.into()));
    }
    for caller in [&me, &Caller::Nobody] {
        assert_eq!(
            code(status::get(&node, caller).await),
            Some(ErrorCode::Forbidden.into())
        );
    }
    // An image that the operator imported is not even there.
    let seen = images::list(&node, &me).await.unwrap();
    let offered = seen.iter().find(|i| i.name == "tiny:1").unwrap();
    assert_eq!(offered.source, "", "a path of the host");
    assert!(!seen.iter().any(|i| i.name == "private:1"));
    let all = images::list(&node, &OPERATOR).await.unwrap();
    let digest = all.iter().find(|i| i.name == "private:1").unwrap();
    for image in ["private:1".to_owned(), digest.digest.clone().unwrap()] {
        let mut wanted = request("web");
        wanted.image.clone_from(&image);
        let refused = instances::create(&node, &me, wanted, None)
            .await
            .unwrap_err();
        let mut unknown = request("web");
        unknown.image = "unknown:1".into();
        let none = instances::create(&node, &me, unknown, None)
            .await
            .unwrap_err();
        assert_eq!(
            refused.message.replace(&image, "X"),
            none.message.replace("unknown:1", "X")
        );
    }
    // The operator attaches nothing of its own to a tenant's instance.
    let theirs = create(&node, &me, None).await;
    let own = CreateVolume {
        name: "own".into(),
        size_mib: Some(64),
        file_system: None,
    };
    volumes::create(&node, &OPERATOR, own).await.unwrap();
    let to = AttachVolume {
        instance: theirs.id,
        mount: None,
    };
    let refused = volumes::attach(&node, &OPERATOR, "own", to).await;
    assert_eq!(code(refused), Some(ErrorCode::Conflict.into()));
}

#[tokio::test]
async fn each_sees_its_own_events() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir).await;
    let theirs = create(&node, &tenant(1), None).await;
    instances::delete(&node, &tenant(1), &theirs.id, StopOptions::default())
        .await
        .unwrap();
    let kinds = async |caller: &Caller| -> Vec<EventKind> {
        let all = Query {
            after: Some(0),
            ..Query::default()
        };
        let stream = events::stream(&node, caller, all).await.unwrap();
        let events: Vec<_> = stream.map(Result::unwrap).collect().await;
        let owner = Owner::Tenant(Address::ethereum([1; 20]));
        assert!(*caller == OPERATOR || events.iter().all(|e| e.owner == owner));
        events.into_iter().map(|e| e.kind).collect()
    };
    for _ in 0..200 {
        if kinds(&OPERATOR).await.contains(&EventKind::Deleted) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    let seen = kinds(&tenant(1)).await;
    assert!(seen.contains(&EventKind::Created), "{seen:?}");
    assert!(seen.contains(&EventKind::Deleted), "{seen:?}");
    assert_eq!(kinds(&tenant(2)).await, []);
}
