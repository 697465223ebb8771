//! What QEMU reports, and what its task makes of it.

use crn_api_types::WarningKind;

use super::*;
use crate::life::{FailureCode, StopReason};

#[tokio::test]
async fn a_stop_presses_the_button_and_ends_a_machine_that_is_off() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    machine.want(Desired::Stopped, false).await;
    machine.reach("stopped").await;
    assert_eq!(machine.asked("system_powerdown").len(), 1);
    assert_eq!(machine.asked("quit").len(), 1);
    let reason = StopReason::Requested;
    assert_eq!(machine.row().await.phase, Phase::Stopped { reason });
    assert_eq!(machine.row().await.process, None);
}

#[tokio::test]
async fn a_guest_that_ignores_the_button_is_hurried_by_force() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    machine.script().obeys = false;
    machine.want(Desired::Stopped, false).await;
    machine
        .until("button", |m| !m.asked("system_powerdown").is_empty())
        .await;
    assert_eq!(
        machine.task().status().phase.path(),
        "stopping.power-button"
    );
    machine.want(Desired::Stopped, true).await;
    machine.reach("stopped").await;
    assert_eq!(machine.asked("quit").len(), 1);
}

#[tokio::test]
async fn a_guest_that_powers_off_stays_off() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    machine.answer("query-status", status("shutdown"));
    let data = json!({ "guest": true, "reason": "guest-shutdown" });
    machine.say("SHUTDOWN", data);
    machine.reach("stopped").await;
    let row = machine.row().await;
    assert_eq!(row.intent.desired, Desired::Stopped);
    let reason = StopReason::GuestPoweredOff;
    assert_eq!(row.phase, Phase::Stopped { reason });
}

#[tokio::test]
async fn a_disk_error_pauses_and_its_warning_goes_alone() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    let corrupted = json!({ "device": "", "node-name": "root", "msg": "L2 table overlaps",
                            "fatal": false });
    machine.say("BLOCK_IMAGE_CORRUPTED", corrupted);
    machine.answer("query-status", status("io-error"));
    let data = json!({ "device": "", "node-name": "root", "operation": "write",
                       "action": "stop", "nospace": true, "reason": "No space\nleft" });
    machine.say("BLOCK_IO_ERROR", data);
    machine.say("STOP", json!({}));
    machine.until("paused", |m| m.task().status().paused).await;
    let warnings = machine.task().status().warnings;
    assert_eq!(
        warnings[&WarningKind::Paused].message,
        "paused by a disk error: No space left"
    );
    assert!(warnings.contains_key(&WarningKind::DiskDamaged));
    // There is room again: the guest is resumed by itself, and the other warning stays.
    machine
        .until("resumed", |m| !m.task().status().paused)
        .await;
    assert_eq!(machine.asked("cont").len(), 1);
    let warnings = machine.task().status().warnings;
    assert!(!warnings.contains_key(&WarningKind::Paused));
    assert!(warnings.contains_key(&WarningKind::DiskDamaged));
}

#[tokio::test]
async fn a_guest_that_cannot_go_on_is_restarted() {
    let (_dir, node) = node().await;
    for state in ["guest-panicked", "internal-error"] {
        let mut machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
        machine.answer("query-status", status(state));
        machine.say("GUEST_PANICKED", json!({ "action": "pause" }));
        machine.say("STOP", json!({}));
        machine.reach("backing-off").await;
        assert!(machine.is_dead());
        let Phase::BackingOff { failure, .. } = machine.task().status().phase else {
            panic!("not backing off")
        };
        assert_eq!(failure.code, FailureCode::Crashed);
        assert!(failure.message.contains(state), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_flood_of_events_is_told_of_now_and_then_and_hides_nothing() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    machine
        .until("adopted", |m| !m.asked("query-status").is_empty())
        .await;
    let long = "x".repeat(10_000);
    for _ in 0..20_000 {
        machine.say("RESET", json!({ "guest": true, "reason": "guest-reset" }));
        machine.say("GUEST_PANICKED", json!({ "action": "run" }));
    }
    let corrupted = json!({ "device": "", "node-name": "root", "msg": long, "fatal": false });
    machine.say("BLOCK_IMAGE_CORRUPTED", corrupted);
    let began = Instant::now();
    machine.want(Desired::Stopped, true).await;
    machine.reach("stopped").await;
    let most = 2 + usize::try_from(began.elapsed().as_secs() / 2).unwrap();
    for kind in ["rebooted", "guest-panicked", "disk-damaged"] {
        let told = machine.told(kind).await;
        assert!(told <= most, "{kind}: {told} in {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_monitor_that_comes_back_is_used_again() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Mute).await;
    machine
        .until("warned", |m| {
            let warnings = m.task().status().warnings;
            warnings.contains_key(&WarningKind::MonitorSilent)
        })
        .await;
    assert_eq!(machine.task().status().phase, Phase::Running);
    machine.script().manners = Manners::Polite;
    // Something makes the task ask again.
    machine.say("STOP", json!({}));
    machine
        .until("clear", |m| {
            let warnings = m.task().status().warnings;
            !warnings.contains_key(&WarningKind::MonitorSilent)
        })
        .await;
}
