//! Rules that hold over several rows, against a real SQLite.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    capacity::{Capacity, Totals},
    ids::InstanceId,
    life::{Desired, Phase, PrepareStep, Settled, StopReason, Wish},
    spec::CreateRequest,
};

fn open() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let (db, fresh) = Db::open(&dir.path().join("agent.db")).unwrap();
    assert!(fresh);
    (dir, db)
}

fn room() -> Capacity {
    Totals {
        instances: 3,
        vcpus: 8,
        memory_mib: 4096,
        disk_mib: 50_000,
    }
}

fn request(name: &str) -> CreateRequest {
    let text = format!(
        r#"{{"name": "{name}", "image": "debian:12", "memory_mib": 1024, "disk_mib": 1024}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn new(request: CreateRequest) -> NewInstance {
    NewInstance {
        checked: request
            .check(&crate::config::Limits::default(), 1024)
            .unwrap(),
        id: InstanceId::random().unwrap(),
        plan: net::AddressPlan::new("2001:db8::/64".parse().unwrap()).unwrap(),
        capacity: room(),
        slots: 8,
    }
}

fn with_volume(name: &str, volume: &str) -> CreateRequest {
    let mut request = request(name);
    request.volumes = vec![crate::spec::VolumeRequest {
        name: volume.into(),
        mount: Some("/data".into()),
        size_mib: Some(128),
    }];
    request
}

#[tokio::test]
async fn user_data_is_kept_apart_also_that_of_an_older_database() {
    let text = "#cloud-config\n{}\n";
    let digest = disk::Sha256::of(text.as_bytes()).hex();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.db");
    let mut request = request("web");
    request.cloud_init = Some(text.into());
    let id = {
        let (db, _) = Db::open(&path).unwrap();
        let row = db.insert_instance(new(request)).await.unwrap();
        assert_eq!(row.spec.user_data.as_ref(), Some(&digest));
        db.settle().await.unwrap();
        row.id
    };
    {
        // As version 1 had it.
        let c = Connection::open(&path).unwrap();
        c.execute_batch(
            "UPDATE instances SET spec = json_remove(json_set(spec, '$.cloud_init',
                 (SELECT text FROM user_data WHERE instance = id)), '$.user_data');
             DROP TABLE user_data;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    }
    let (db, fresh) = Db::open(&path).unwrap();
    assert!(!fresh);
    let row = db.instance(&id).await.unwrap();
    assert_eq!(row.spec.user_data, Some(digest));
    assert_eq!(db.user_data(&id).await.unwrap().as_deref(), Some(text));
    db.remove_instance(&id).await.unwrap();
    assert_eq!(db.user_data(&id).await.unwrap(), None);
}

#[tokio::test]
async fn an_instance_is_admitted_whole_or_not_at_all() {
    let (_dir, db) = open();
    let a = db
        .insert_instance(new(with_volume("a", "data")))
        .await
        .unwrap();
    assert_eq!(a.slot, 0);
    assert_eq!(
        a.phase,
        Phase::Preparing {
            step: PrepareStep::Image
        }
    );
    let taken = db.insert_instance(new(request("a"))).await.unwrap_err();
    assert!(matches!(taken, DbError::NameTaken(name) if name == "a"));
    let in_use = db
        .insert_instance(new(with_volume("b", "data")))
        .await
        .unwrap_err();
    assert!(matches!(in_use, DbError::VolumeInUse { instance, .. } if instance == "a"));
    let before = db.totals().await.unwrap();
    let mut large = with_volume("c", "other");
    large.memory_mib = 4000;
    let full = db.insert_instance(new(large)).await.unwrap_err();
    assert!(matches!(full, DbError::Capacity(_)), "{full}");
    assert_eq!(db.totals().await.unwrap(), before);
    assert_eq!(before.disk_mib, 1024 + 128);
    assert!(matches!(
        db.volume("other").await,
        Err(DbError::NotFound { .. })
    ));
}

#[tokio::test]
async fn slots_and_networks_are_never_shared_and_are_used_again() {
    let (_dir, db) = open();
    let mut rows = Vec::new();
    for name in ["a", "b", "c"] {
        rows.push(db.insert_instance(new(request(name))).await.unwrap());
    }
    let slots: BTreeSet<_> = rows.iter().map(|r| r.slot).collect();
    let networks: BTreeSet<_> = rows.iter().map(|r| r.network).collect();
    assert_eq!((slots.len(), networks.len()), (3, 3));
    db.remove_instance(&rows[1].id).await.unwrap();
    assert_eq!(
        db.insert_instance(new(request("d"))).await.unwrap().slot,
        rows[1].slot
    );
    // The same id again: the same name, hence refused; another id in its network: another network.
    let mut twin = new(request("e"));
    let digits = format!("{}{}", &rows[0].id.as_str()[..11], "0".repeat(53));
    twin.id = digits.parse().unwrap();
    twin.capacity.instances = 9;
    let row = db.insert_instance(twin).await.unwrap();
    assert_ne!(row.network, rows[0].network);
}

#[tokio::test]
async fn volumes_survive_their_instance_unless_they_never_came_to_be() {
    let (_dir, db) = open();
    let a = db
        .insert_instance(new(with_volume("a", "data")))
        .await
        .unwrap();
    let data = db.volume("data").await.unwrap();
    assert_eq!(data.state, VolumeState::Creating);
    let refused = db
        .set_volume_state(&data.id, VolumeState::Deleting)
        .await
        .unwrap_err();
    assert!(matches!(refused, DbError::Conflict(_)));
    db.remove_instance(&a.id).await.unwrap();
    assert!(matches!(
        db.volume("data").await,
        Err(DbError::NotFound { .. })
    ));

    let b = db
        .insert_instance(new(with_volume("b", "data")))
        .await
        .unwrap();
    let data = db.volume("data").await.unwrap();
    db.set_volume_state(&data.id, VolumeState::Ready)
        .await
        .unwrap();
    db.remove_instance(&b.id).await.unwrap();
    let data = db.volume("data").await.unwrap();
    assert_eq!((data.instance, data.mount), (None, None));
}

#[tokio::test]
async fn what_was_asked_meanwhile_is_not_settled_away() {
    let (_dir, db) = open();
    let row = db.insert_instance(new(request("a"))).await.unwrap();
    let wish = |desired| Wish {
        desired,
        restart: true,
        force: true,
    };
    let running = wish(Desired::Running);
    db.update_wish(&row.id, move |_| running).await.unwrap();
    let stopped = Phase::Stopped {
        reason: StopReason::GuestPoweredOff,
    };
    let settled = Settled {
        restart: false,
        force: true,
        guest_off: true,
    };
    let event = db.set_phase(&row.id, &stopped, settled, 0).await.unwrap();
    assert_eq!(event.kind, "phase");
    let row = db.instance(&row.id).await.unwrap();
    assert_eq!(
        row.wish,
        Wish {
            desired: Desired::Stopped,
            restart: true,
            force: false
        }
    );
    assert_eq!(row.phase, stopped);

    let deleted = wish(Desired::Deleted);
    db.update_wish(&row.id, move |_| deleted).await.unwrap();
    db.set_phase(&row.id, &stopped, settled, 0).await.unwrap();
    assert_eq!(
        db.instance(&row.id).await.unwrap().wish.desired,
        Desired::Deleted
    );
    let refused = db.update_wish(&row.id, move |_| running).await.unwrap_err();
    assert!(
        matches!(refused, DbError::Conflict(_)),
        "a deletion is never taken back"
    );
}

#[tokio::test]
async fn instances_are_found_by_name_id_and_beginning() {
    let (_dir, db) = open();
    let row = db.insert_instance(new(request("abcdef"))).await.unwrap();
    for reference in ["abcdef", row.id.as_str(), &row.id.as_str()[..6]] {
        assert_eq!(
            db.find_instance(reference).await.unwrap(),
            row.id,
            "{reference}"
        );
    }
    for reference in [
        "",
        "*",
        &row.id.as_str()[..5],
        "nobody",
        "zzzzzz*",
        "' OR 1=1 --",
    ] {
        let e = db.find_instance(reference).await.unwrap_err();
        assert!(matches!(e, DbError::NotFound { .. }), "{reference}: {e}");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.db");
    let (db, _) = Db::open(&path).unwrap();
    let row = db.insert_instance(new(request("a"))).await.unwrap();
    let process = ProcessRow {
        pid: 7,
        start_ticks: 8,
        boot_id: "b".into(),
        tap_fd: 20,
        accel: "tcg".into(),
        launched_at: now(),
    };
    db.set_process(&row.id, Some(process.clone()))
        .await
        .unwrap();
    drop(db);
    let (db, fresh) = Db::open(&path).unwrap();
    assert!(!fresh);
    assert_eq!(db.instance(&row.id).await.unwrap().process, Some(process));
    db.set_process(&row.id, None).await.unwrap();
    assert_eq!(db.instance(&row.id).await.unwrap().process, None);
}

#[tokio::test]
async fn requests_at_the_same_time_get_names_of_their_own() {
    let (_dir, db) = open();
    let db = Arc::new(db);
    let tries = (0..8).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { db.insert_instance(new(request("same"))).await.is_ok() })
    });
    let mut created = 0;
    for attempt in tries.collect::<Vec<_>>() {
        created += u32::from(attempt.await.unwrap());
    }
    assert_eq!(created, 1);
}
