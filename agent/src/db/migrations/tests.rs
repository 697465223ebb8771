//! Databases that older versions wrote.

use std::path::Path;

use crn_api_types::Owner;
use rusqlite::Connection;

use super::*;
use crate::{
    db::{Db, Scope, VolumeState},
    ids::Name,
    life::{Desired, FailureCode, Phase, PrepareStep, StopReason, StopStage, Then},
};

/// As version 0.1.0 writes it, word by word: six instances in phases whose words have
/// several parts, and what else it keeps.
const ROWS: &str = r#"
INSERT INTO instances (id, short, name, slot, origin, spec, network, image, desired, restart,
    forced, phase, process, restarts, created_at, changed_at) VALUES
('ID0', 'SHORT0', 'web', 0, 'local', 'SPEC', '2001:db8:0:0:3::10/124', 'd1', '"running"', 0, 0,
 '{"phase":"running"}',
 '{"pid":4711,"start_ticks":99,"boot_id":"b","tap_fd":17,"accel":"kvm","launched_at":"2026-11-25T02:00:00.5Z"}',
 0, '2026-11-25T01:59:00.123456789Z', '2026-11-25T02:00:30Z'),
('ID1', 'SHORT1', 'SHORT1', 1, 'local', 'SPEC', '2001:db8:0:0:3::20/124', NULL, '"stopped"', 1, 1,
 '{"phase":"preparing","step":"root_disk"}', NULL, 0,
 '2026-11-25T01:59:01Z', '2026-11-25T02:00:30Z'),
('ID2', 'SHORT2', 'back', 2, 'local', 'SPEC', '2001:db8:0:0:3::30/124', NULL, '"running"', 0, 0,
 '{"phase":"backing_off","attempt":2,"until":"2026-11-25T02:00:32Z","failure":{"code":"crashed","message":"QEMU_died"}}',
 NULL, 2, '2026-11-25T01:59:02Z', '2026-11-25T02:00:30Z'),
('ID3', 'SHORT3', 'going', 3, 'local', 'SPEC', '2001:db8:0:0:3::40/124', NULL, '"stopped"', 0, 0,
 '{"phase":"stopping","stage":"power_button","then":{"then":"stay","reason":"guest_powered_off"}}',
 NULL, 0, '2026-11-25T01:59:03Z', '2026-11-25T02:00:30Z'),
('ID4', 'SHORT4', 'idle', 4, 'local', 'SPEC', '2001:db8:0:0:3::50/124', NULL, '"stopped"', 0, 0,
 '{"phase":"stopped","reason":"never_started"}', NULL, 0,
 '2026-11-25T01:59:04Z', '2026-11-25T02:00:30Z'),
('ID5', 'SHORT5', 'leaving', 5, 'local', 'SPEC', '2001:db8:0:0:3::60/124', NULL, '"stopped"', 0, 0,
 '{"phase":"stopping","stage":"clean_up","then":{"then":"back_off","failure":{"code":"launch","message":"m"}}}',
 NULL, 0, '2026-11-25T01:59:05Z', '2026-11-25T02:00:30Z');
INSERT INTO user_data VALUES ('ID0', 'secret');
INSERT INTO volumes VALUES
('0123456789abcdef', 'data', 1024, 'ready', 'ID0', '/data', '2026-11-25T01:59:00Z'),
('1123456789abcdef', 'spare', 64, 'detaching', 'ID3', NULL, '2026-11-25T01:59:01Z'),
('2123456789abcdef', 'free', 64, 'creating', NULL, NULL, '2026-11-25T01:59:02Z');
INSERT INTO images VALUES
('debian:12', 'd1', 'qcow2', 3221225472, 1024, 'https://x', '2026-11-25T01:58:00Z');
INSERT INTO events (at, instance, kind, data) VALUES
('2026-11-25T01:59:00Z', 'ID0', 'created', '{"name":"with_underscore"}'),
('2026-11-25T01:59:01Z', 'ID0', 'phase', '{"phase":"preparing","step":"root_disk"}'),
('2026-11-25T01:59:02Z', NULL, 'volume-created', '{"name":"data","size_mib":1024}');
"#;

const SPEC: &str = r#"{"vcpus":2,"memory":1024,"disk":2048,"image":"debian:12","hostname":"web","ssh_keys":[],"ports":["22/tcp"],"user_data":null,"firmware":"bios"}"#;

fn id(number: usize) -> String {
    format!("{number}{}", "a".repeat(63))
}

fn write(path: &Path, versions: Vec<M<'_>>, rows: &str) {
    let mut c = Connection::open(path).unwrap();
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    Migrations::new(versions).to_latest(&mut c).unwrap();
    c.execute_batch(rows).unwrap();
}

fn write_version_2(path: &Path) {
    let mut rows = ROWS.replace("'SPEC'", &format!("'{SPEC}'"));
    for number in 0..6 {
        rows = rows.replace(&format!("ID{number}"), &id(number));
        rows = rows.replace(&format!("SHORT{number}"), &id(number)[..16]);
    }
    let versions = vec![M::up(V1), M::up_with_hook(V2, digest_user_data)];
    write(path, versions, &rows);
}

/// The user's cloud-init was in the specification then, if there was one.
#[tokio::test]
async fn user_data_of_version_1_is_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.db");
    let (text, id) = ("#cloud-config\n{}\n", id(7));
    let spec = SPEC.replace(
        r#""user_data":null"#,
        r##""cloud_init":"#cloud-config\n{}\n""##,
    );
    let row = format!(
        r#"INSERT INTO instances (id, short, name, slot, origin, spec, network, desired, phase,
           created_at, changed_at) VALUES ('{id}', 's', 'web', 0, 'local', '{spec}',
           '2001:db8:0:0:3::10/124', '"running"', '{{"phase":"running"}}',
           '2026-11-25T01:59:00Z', '2026-11-25T01:59:00Z')"#
    );
    write(&path, vec![M::up(V1)], &row);
    let (db, _) = Db::open(&path).unwrap();
    let row = db.instance(&id.parse().unwrap()).await.unwrap();
    let digest = disk::Sha256::of(text.as_bytes()).hex();
    assert_eq!(row.spec.user_data, Some(digest));
    assert_eq!(db.user_data(&row.id).await.unwrap().as_deref(), Some(text));
}

#[test]
fn the_migrations_are_sound() {
    migrations().validate().unwrap();
}

#[tokio::test]
async fn records_of_version_2_are_the_operators_and_say_what_they_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.db");
    write_version_2(&path);
    let (db, fresh) = Db::open(&path).unwrap();
    assert!(!fresh);

    let rows = db.instances().await.unwrap();
    let names: Vec<_> = rows.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "web",
            "1aaaaaaaaaaaaaaa",
            "back",
            "going",
            "idle",
            "leaving"
        ]
    );
    assert!(rows.iter().all(|r| r.owner == Owner::Operator));
    assert_eq!(rows[0].phase, Phase::Running);
    assert!(rows.iter().all(|row| row.hardware.is_none()));
    let process = rows[0].process.as_ref().unwrap();
    assert_eq!((process.pid, process.tap_fd), (4711, 17));
    assert_eq!(process.launched_at.millisecond(), 500);
    assert_eq!(rows[0].created_at.nanosecond(), 123_456_789);
    assert_eq!(
        rows[1].phase,
        Phase::Preparing {
            step: PrepareStep::RootDisk
        }
    );
    assert_eq!(rows[1].intent.desired, Desired::Stopped);
    assert!(rows[1].intent.restart && rows[1].intent.force);
    let Phase::BackingOff {
        attempt: 2,
        failure,
        ..
    } = &rows[2].phase
    else {
        panic!("{:?}", rows[2].phase)
    };
    assert_eq!(failure.code, FailureCode::Crashed);
    assert_eq!(failure.message, "QEMU_died", "sentences stay as they are");
    assert_eq!(
        rows[3].phase,
        Phase::Stopping {
            stage: StopStage::PowerButton,
            then: Then::Stay {
                reason: StopReason::GuestPoweredOff
            }
        }
    );
    assert_eq!(
        rows[4].phase,
        Phase::Stopped {
            reason: StopReason::NeverStarted
        }
    );
    assert!(matches!(
        rows[5].phase,
        Phase::Stopping {
            stage: StopStage::CleanUp,
            then: Then::BackOff { .. }
        }
    ));

    let web = &rows[0].id;
    assert_eq!(db.user_data(web).await.unwrap().as_deref(), Some("secret"));
    let volumes = db.volumes().await.unwrap();
    let shown: Vec<_> = volumes
        .iter()
        .map(|v| {
            (
                v.name.as_str(),
                v.state,
                v.instance_name.as_ref().map(Name::as_str),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("data", VolumeState::Ready, Some("web")),
            ("spare", VolumeState::Detaching, Some("going")),
            ("free", VolumeState::Creating, None)
        ]
    );
    assert!(volumes.iter().all(|v| v.owner == Owner::Operator));
    let ext4 = crn_api_types::FileSystem::Ext4;
    assert!(volumes.iter().all(|v| v.file_system == ext4));
    assert_eq!(db.images().await.unwrap().len(), 1);

    let events = db.events_after(Scope::Node, None, 0, 10).await.unwrap();
    assert!(events.iter().all(|e| e.owner == Owner::Operator));
    assert_eq!(events[0].data["name"], "with_underscore");
    assert_eq!(events[1].data["step"], "root-disk");
    assert_eq!(events[2].seq, 3);

    // What refers to an instance still does.
    db.remove_instance(web).await.unwrap();
    assert_eq!(db.user_data(web).await.unwrap(), None);
    assert_eq!(db.volume(&volumes[0].id).await.unwrap().instance, None);
}

/// What an older version deleted without overwriting it is gone after the migration.
#[tokio::test]
async fn old_secrets_do_not_stay_between_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.db");
    write_version_2(&path);
    let secret = "HUNTER2".repeat(2000);
    {
        let c = Connection::open(&path).unwrap();
        c.pragma_update(None, "secure_delete", "OFF").unwrap();
        c.execute("UPDATE user_data SET text = ?1", [&secret])
            .unwrap();
        c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        c.execute("DELETE FROM user_data", []).unwrap();
    }
    let has = |path: &Path| {
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
        files.flatten().any(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(7).any(|w| w == b"HUNTER2")
        })
    };
    assert!(has(&path), "the test's own premise");
    let (db, _) = Db::open(&path).unwrap();
    db.settle().await.unwrap();
    assert!(!has(&path));
}
