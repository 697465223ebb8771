//! Rules that hold over several rows, against a real SQLite.

use std::{collections::BTreeSet, sync::Arc};

use crn_api_types::{Address, CreateRequest, EventKind, Owner, VolumeRequest};

use super::*;
use crate::{
    capacity::{Capacity, Totals},
    ids::InstanceId,
    life::{Desired, Intent, Phase, PrepareStep, Settled, StopReason},
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
        owner: Owner::Operator,
        checked: crate::spec::check(request, &crate::config::Limits::default(), 1024).unwrap(),
        id: InstanceId::random().unwrap(),
        plan: net::AddressPlan::new("2001:db8::/64".parse().unwrap()).unwrap(),
        capacity: room(),
        slots: 8,
    }
}

fn tenant(byte: u8) -> Owner {
    Owner::Tenant(Address::ethereum([byte; 20]))
}

/// The operator's volume of that name.
async fn volume(db: &Db, name: &str) -> Result<VolumeRow, DbError> {
    db.find_volume(Scope::Node, name).await
}

fn with_volume(name: &str, volume: &str) -> CreateRequest {
    let mut request = request(name);
    request.volumes = vec![VolumeRequest {
        name: volume.into(),
        mount: Some("/data".into()),
        size_mib: Some(128),
    }];
    request
}

#[tokio::test]
async fn user_data_is_kept_apart_and_goes_with_its_instance() {
    let text = "#cloud-config\n{}\n";
    let (_dir, db) = open();
    let mut request = request("web");
    request.cloud_init = Some(text.into());
    let row = db.insert_instance(new(request)).await.unwrap();
    let digest = disk::Sha256::of(text.as_bytes()).hex();
    assert_eq!(row.spec.user_data, Some(digest));
    assert_eq!(db.user_data(&row.id).await.unwrap().as_deref(), Some(text));
    db.remove_instance(&row.id).await.unwrap();
    assert_eq!(db.user_data(&row.id).await.unwrap(), None);
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
    assert!(matches!(full, DbError::NoRoom(_)), "{full}");
    assert_eq!(db.totals().await.unwrap(), before);
    assert_eq!(before.disk_mib, 1024 + 128);
    assert!(matches!(
        volume(&db, "other").await,
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
async fn another_prefix_renumbers_once() {
    let (_dir, db) = open();
    let a = new(request("a"));
    let plan = a.plan.clone();
    let old = db.insert_instance(a).await.unwrap();
    assert_eq!(db.renumber(&old.id, plan).await.unwrap(), None);
    let other = net::AddressPlan::new("2001:db8:77:1::/64".parse().unwrap()).unwrap();
    // Whoever has its place in the new prefix keeps it.
    let mut neighbour = new(request("b"));
    let digits = format!("{}{}", &old.id.as_str()[..11], "0".repeat(53));
    neighbour.id = digits.parse().unwrap();
    neighbour.plan = other.clone();
    let neighbour = db.insert_instance(neighbour).await.unwrap();
    let network = db.renumber(&old.id, other.clone()).await.unwrap().unwrap();
    assert!(other.prefix().contains(network.guest()));
    assert_ne!(network, neighbour.network);
    let now = db.instance(&old.id).await.unwrap();
    assert_eq!((now.network, now.slot), (network, old.slot));
    assert_eq!(db.renumber(&old.id, other).await.unwrap(), None);
}

#[tokio::test]
async fn volumes_survive_their_instance_unless_they_never_came_to_be() {
    let (_dir, db) = open();
    let a = db
        .insert_instance(new(with_volume("a", "data")))
        .await
        .unwrap();
    let data = volume(&db, "data").await.unwrap();
    assert_eq!(data.state, VolumeState::Creating);
    let refused = db
        .set_volume_state(&data.id, VolumeState::Deleting)
        .await
        .unwrap_err();
    assert!(matches!(refused, DbError::Conflict(_)));
    db.remove_instance(&a.id).await.unwrap();
    assert!(matches!(
        volume(&db, "data").await,
        Err(DbError::NotFound { .. })
    ));

    let b = db
        .insert_instance(new(with_volume("b", "data")))
        .await
        .unwrap();
    let data = volume(&db, "data").await.unwrap();
    db.set_volume_state(&data.id, VolumeState::Ready)
        .await
        .unwrap();
    db.remove_instance(&b.id).await.unwrap();
    let data = volume(&db, "data").await.unwrap();
    assert_eq!((data.instance, data.mount), (None, None));
}

#[tokio::test]
async fn what_was_asked_meanwhile_is_not_settled_away() {
    let (_dir, db) = open();
    let row = db.insert_instance(new(request("a"))).await.unwrap();
    let intent = |desired| Intent {
        desired,
        restart: true,
        force: true,
    };
    let running = intent(Desired::Running);
    db.update_intent(&row.id, move |_| running).await.unwrap();
    let stopped = Phase::Stopped {
        reason: StopReason::GuestPoweredOff,
    };
    let settled = Settled {
        restart: false,
        force: true,
        guest_off: true,
    };
    let event = db.set_phase(&row.id, &stopped, settled, 0).await.unwrap();
    assert_eq!(event.kind, EventKind::Phase);
    let row = db.instance(&row.id).await.unwrap();
    assert_eq!(
        row.intent,
        Intent {
            desired: Desired::Stopped,
            restart: true,
            force: false
        }
    );
    assert_eq!(row.phase, stopped);

    let deleted = intent(Desired::Deleted);
    db.update_intent(&row.id, move |_| deleted).await.unwrap();
    db.set_phase(&row.id, &stopped, settled, 0).await.unwrap();
    assert_eq!(
        db.instance(&row.id).await.unwrap().intent.desired,
        Desired::Deleted
    );
    let refused = db
        .update_intent(&row.id, move |_| running)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, DbError::Conflict(_)),
        "a deletion is never taken back"
    );
}

/// An instance with this id and, as older records may have it, any name.
async fn insert_as(db: &Db, owner: Owner, id: &str, name: &str) -> InstanceRow {
    let mut new = new(request("x"));
    new.checked.name = Some(name.parse().unwrap());
    new.capacity.instances = 99;
    new.capacity.vcpus = 99;
    new.capacity.memory_mib = 1 << 20;
    new.id = id.parse().unwrap();
    new.owner = owner;
    db.insert_instance(new).await.unwrap()
}

#[tokio::test]
async fn instances_are_found_by_name_id_and_beginning() {
    let (_dir, db) = open();
    let digits = |first: &str| format!("{first}{}", "0".repeat(64 - first.len()));
    let own = |byte| Scope::Of(tenant(byte));
    insert_as(&db, Owner::Operator, &digits("aaaaaa1"), "web").await;
    insert_as(&db, Owner::Operator, &digits("bbbbbb2"), "aaaaaa").await;
    insert_as(&db, tenant(1), &digits("cccccc3"), "web").await;
    insert_as(&db, tenant(2), &digits("cccccc4"), "web").await;
    insert_as(&db, tenant(2), &digits("dddddd5"), "bbbbbb").await;
    let whole = digits("cccccc3");
    let table = [
        // The operator names its own, and everybody's ids.
        (Scope::Node, "web", "aaaaaa1"),
        (Scope::Node, "aaaaaa1", "aaaaaa1"),
        (Scope::Node, "bbbbbb", "bbbbbb2"),
        (Scope::Node, "cccccc3", "cccccc3"),
        (Scope::Node, &whole, "cccccc3"),
        // A name and the beginning of another's id, and a beginning of two.
        (Scope::Node, "aaaaaa", "several"),
        (Scope::Node, "cccccc", "several"),
        // Tenants name their own, whole.
        (own(1), "web", "cccccc3"),
        (own(2), "web", "cccccc4"),
        (own(1), &whole, "cccccc3"),
        (own(1), "cccccc3", "none"),
        (own(2), &whole, "none"),
        (own(2), "bbbbbb", "dddddd5"),
        (own(3), "web", "none"),
        (own(1), "aaaaaa1", "none"),
        (Scope::None, "web", "none"),
        (Scope::None, &whole, "none"),
        (Scope::Node, "", "none"),
        (Scope::Node, "*", "none"),
        (Scope::Node, "ccccc", "none"),
        (Scope::Node, "cccccc*", "none"),
        (Scope::Node, "' OR 1=1 --", "none"),
    ];
    for (scope, reference, expected) in table {
        let told = format!("{scope:?} {reference}");
        let got = match db.find_instance(scope, reference).await {
            Ok(row) => row.id.as_str()[..7].to_owned(),
            Err(DbError::NotFound { .. }) => "none".to_owned(),
            Err(DbError::Conflict(_)) => "several".to_owned(),
            Err(e) => panic!("{told}: {e}"),
        };
        assert_eq!(got, expected, "{told}");
    }
    let seen = |scope| db.instances_in(scope);
    assert_eq!(seen(Scope::Node).await.unwrap().len(), 5);
    assert_eq!(seen(own(2)).await.unwrap().len(), 2);
    assert_eq!(seen(own(3)).await.unwrap().len(), 0);
    assert_eq!(seen(Scope::None).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_volume_is_never_had_by_naming_it() {
    let (_dir, db) = open();
    let theirs = db
        .insert_volume(
            &tenant(1),
            crate::db::NewVolume::empty(&"data".parse().unwrap(), 64),
            room(),
        )
        .await
        .unwrap();
    // Another owner's instance that names it gets one of its own.
    for owner in [tenant(2), Owner::Operator] {
        let mut new = new(with_volume("web", "data"));
        new.owner = owner.clone();
        let instance = db.insert_instance(new).await.unwrap();
        let volumes = db.volumes_of(&instance.id).await.unwrap();
        let [volume] = volumes.as_slice() else {
            panic!("{volumes:?}")
        };
        assert_eq!((&volume.owner, volume.name.as_str()), (&owner, "data"));
        assert_ne!(volume.id, theirs.id);
        // Not by its id either.
        let e = db
            .attach_volume(&theirs.id, &instance.id, None, 16)
            .await
            .unwrap_err();
        assert!(matches!(e, DbError::Conflict(_)), "{e}");
    }
    let row = db.volume(&theirs.id).await.unwrap();
    assert_eq!((row.instance, row.owner), (None, tenant(1)));
    let own = Scope::Of(tenant(2));
    let e = db.find_volume(own, &theirs.id).await.unwrap_err();
    assert!(matches!(e, DbError::NotFound { .. }), "{e}");
    let row = db.find_volume(Scope::Node, &theirs.id).await.unwrap();
    assert_eq!(row.owner, tenant(1), "the operator may name any by its id");
}

#[tokio::test]
async fn a_name_is_taken_for_its_owner_alone() {
    let (_dir, db) = open();
    for owner in [Owner::Operator, tenant(1), tenant(2)] {
        let mut first = new(request("web"));
        first.owner = owner.clone();
        db.insert_instance(first).await.unwrap();
        let mut second = new(request("web"));
        second.owner = owner;
        second.capacity.instances = 9;
        let e = db.insert_instance(second).await.unwrap_err();
        assert!(matches!(e, DbError::NameTaken(name) if name == "web"));
    }
}

#[tokio::test]
async fn nothing_of_a_deleted_instance_stays_in_the_files() {
    let (dir, db) = open();
    let mut request = request("web");
    request.cloud_init = Some(format!("#cloud-config\n# {}\n", "HUNTER2 ".repeat(5000)));
    let row = db.insert_instance(new(request)).await.unwrap();
    let has = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        files.flatten().any(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(7).any(|w| w == b"HUNTER2")
        })
    };
    assert!(has());
    db.remove_instance(&row.id).await.unwrap();
    assert!(!has());
}

#[tokio::test]
async fn an_event_is_its_owners() {
    let (_dir, db) = open();
    let id = format!("{:064}", 1);
    let row = insert_as(&db, tenant(1), &id, "web").await;
    let about = || About::Instance(row.id.clone());
    let kind = |kind| db.record_event(about(), kind, serde_json::json!({}));
    kind(EventKind::Created).await.unwrap();
    db.record_event(
        About::Of(Owner::Operator),
        EventKind::Image,
        serde_json::json!({}),
    )
    .await
    .unwrap();
    db.remove_instance(&row.id).await.unwrap();
    // Also of an instance that is gone.
    assert_eq!(kind(EventKind::Deleted).await.unwrap().owner, tenant(1));
    let seen = async |scope, instance| -> Vec<i64> {
        let events = db.events_after(scope, instance, 0, 99).await.unwrap();
        events.iter().map(|e| e.seq).collect()
    };
    assert_eq!(seen(Scope::Node, None).await, [1, 2, 3]);
    assert_eq!(seen(Scope::Of(tenant(1)), None).await, [1, 3]);
    assert_eq!(seen(Scope::Of(Owner::Operator), None).await, [2]);
    assert_eq!(seen(Scope::Of(tenant(2)), None).await, [0; 0]);
    assert_eq!(seen(Scope::None, None).await, [0; 0]);
    let other = Scope::Of(tenant(2));
    assert_eq!(seen(other, Some(row.id.clone())).await, [0; 0]);
    let before = |scope, last| db.event_before_last(scope, None, last);
    assert_eq!(before(Scope::Node, 1).await.unwrap(), 2);
    assert_eq!(before(Scope::Of(tenant(1)), 1).await.unwrap(), 1);
    assert_eq!(before(Scope::Of(tenant(1)), 5).await.unwrap(), 0);
}

#[tokio::test]
async fn one_owners_events_erase_nobody_elses() {
    let (_dir, db) = open();
    // Many at once: one transaction for all.
    db.call(|c| {
        let tx = c.transaction()?;
        let event = |owner| {
            events::insert(
                &tx,
                &About::Of(owner),
                EventKind::Image,
                serde_json::json!({}),
            )
        };
        event(Owner::Operator)?;
        event(tenant(1))?;
        for _ in 0..12_000 {
            event(tenant(2))?;
        }
        event(tenant(3))?;
        // As if tenant 3 had been gone for long.
        tx.execute(
            "UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE owner = ?1",
            [tenant(3).as_str()],
        )?;
        for _ in 0..12_000 {
            event(Owner::Operator)?;
        }
        tx.commit()?;
        Ok(())
    })
    .await
    .unwrap();
    let count = async |owner| {
        let events = db.events_after(Scope::Of(owner), None, 0, 99_999).await;
        events.unwrap().len()
    };
    assert_eq!(count(tenant(1)).await, 1);
    assert_eq!(count(tenant(2)).await, 1000);
    assert_eq!(count(tenant(3)).await, 0);
    let operators = count(Owner::Operator).await;
    assert!((10_000..10_256).contains(&operators), "{operators}");
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
        guest: crate::db::GuestHealth::default(),
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

#[tokio::test]
async fn the_hardware_of_an_instance_is_recorded_once() {
    let (_dir, db) = open();
    let row = db.insert_instance(new(request("x"))).await.unwrap();
    assert_eq!(row.hardware, None);
    let hardware = |machine: &str| crate::db::Hardware {
        machine: machine.into(),
        cpu: "max".into(),
    };
    let first = hardware("pc-q35-9.2");
    for machine in ["pc-q35-9.2", "pc-q35-10.0"] {
        let known = db.record_hardware(&row.id, hardware(machine)).await;
        assert_eq!(known.unwrap(), first);
    }
    let row = db.instance(&row.id).await.unwrap();
    assert_eq!(row.hardware, Some(first));
}
