//! Volumes of a running guest: QEMU is made to have those of the record.

use super::*;
use crate::{
    db::{NewVolume, VolumeRow, VolumeState},
    qemu::names::{MAX_VOLUMES, VolumeNode, slot_name, volume_device_name},
    tasks::{Command as Ask, TaskError},
};

async fn volume(machine: &Machine, attached: bool) -> VolumeRow {
    let (node, owner) = (&machine.node, Owner::Operator);
    let name = "data".parse().unwrap();
    let row = node
        .db
        .insert_volume(&owner, NewVolume::empty(&name, 16), node.capacity);
    let row = row.await.unwrap();
    node.volumes.make(&row).await.unwrap();
    if attached {
        let attach = node
            .db
            .attach_volume(&row.id, &machine.id, None, MAX_VOLUMES);
        attach.await.unwrap();
    }
    node.db.volume(&row.id).await.unwrap()
}

/// What QEMU answers when it has the volume.
fn has(machine: &Machine, id: &str) {
    let device = json!([{ "name": volume_device_name(id), "type": "child<virtio-blk-pci>" }]);
    machine.answer("qom-list", device);
    let bus = format!("/machine/peripheral/{0}/{0}", slot_name(0));
    machine.answer("qom-get", json!(bus));
}

#[tokio::test]
async fn a_recorded_volume_is_plugged_in() {
    let (_dir, node) = node().await;
    let mut machine = Machine::new(&node, Phase::Running, Manners::Polite).await;
    let row = volume(&machine, true).await;
    machine.adopt().await;
    machine
        .until("plugged", |m| !m.asked("device_add").is_empty())
        .await;
    let nodes: Vec<_> = machine.asked("blockdev-add");
    let names: Vec<_> = nodes.iter().map(|n| n["node-name"].clone()).collect();
    let expected = [VolumeNode::File(&row.id), VolumeNode::Format(&row.id)];
    assert_eq!(names, expected.map(|n| Value::from(n.name())));
    let device = &machine.asked("device_add")[0];
    assert_eq!(device["id"], volume_device_name(&row.id));
    assert_eq!(device["bus"], slot_name(0));
    // The guest runs on: it is asked for nothing else.
    assert_eq!(machine.task().status().phase, Phase::Running);
}

#[tokio::test]
async fn a_volume_that_is_not_the_instances_is_unplugged() {
    let (_dir, node) = node().await;
    let mut machine = Machine::new(&node, Phase::Running, Manners::Polite).await;
    has(&machine, "00112233445566aa");
    machine.adopt().await;
    machine
        .until("unplugged", |m| !m.asked("device_del").is_empty())
        .await;
    let id = volume_device_name("00112233445566aa");
    assert_eq!(machine.asked("device_del")[0]["id"], id);
}

/// A guest may never let go of a volume. Who waits for that keeps nobody from stopping
/// it, and is told.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_guest_that_keeps_a_volume() {
    let (_dir, node) = node().await;
    let mut machine = Machine::new(&node, Phase::Running, Manners::Polite).await;
    let row = volume(&machine, true).await;
    has(&machine, &row.id);
    machine.adopt().await;
    // QEMU answers, and has the volumes of the record.
    machine
        .until("matched", |m| !m.asked("qom-list").is_empty())
        .await;
    let (task, id) = (machine.task().clone(), row.id.clone());
    let detach = tokio::spawn(async move {
        let ask = |reply| Ask::Detach { volume: id, reply };
        task.ask(ask).await
    });
    machine
        .until("asked", |m| !m.asked("device_del").is_empty())
        .await;
    let record = node.db.volume(&row.id).await.unwrap();
    assert_eq!(record.state, VolumeState::Detaching);
    let began = Instant::now();
    machine.want(Desired::Stopped, true).await;
    machine.reach("stopped").await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let told = detach.await.unwrap();
    assert!(matches!(told, Err(TaskError::Refused(_))), "{told:?}");
    // Without a QEMU nobody holds it.
    let record = node.db.volume(&row.id).await.unwrap();
    assert_eq!((record.state, record.instance), (VolumeState::Ready, None));
}

#[tokio::test]
async fn a_volume_that_the_guest_lets_go_of_late_is_released() {
    let (_dir, node) = node().await;
    let mut machine = Machine::new(&node, Phase::Running, Manners::Polite).await;
    let row = volume(&machine, true).await;
    node.db.begin_detach(&row.id).await.unwrap();
    has(&machine, &row.id);
    machine.adopt().await;
    machine
        .until("asked", |m| !m.asked("device_del").is_empty())
        .await;
    machine.answer("qom-list", json!([]));
    machine.say(
        "DEVICE_DELETED",
        json!({ "device": volume_device_name(&row.id), "path": "/machine/peripheral/x" }),
    );
    let began = Instant::now();
    while node.db.volume(&row.id).await.unwrap().instance.is_some() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let record = node.db.volume(&row.id).await.unwrap();
    assert_eq!(record.state, VolumeState::Ready);
}
