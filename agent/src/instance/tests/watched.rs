//! What is told of a guest that panics, hangs or stops to answer.

use crn_api_types::WarningKind;
use time::OffsetDateTime;

use super::*;
use crate::{
    db::GuestHealth,
    instance::{probe::Seen, task::Task},
};

#[tokio::test]
async fn a_panic_is_told_until_the_guest_reboots() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    let warned = |m: &Machine| {
        let warnings = m.task().status().warnings;
        warnings.get(&WarningKind::GuestPanicked).cloned()
    };
    let before = OffsetDateTime::now_utc();
    machine.say("GUEST_PANICKED", json!({ "action": "run" }));
    machine.until("panicked", |m| warned(m).is_some()).await;
    let first = warned(&machine).unwrap();
    assert!(first.since >= before && first.since <= OffsetDateTime::now_utc());
    // Told again it is no newer; and it is nobody's to restart.
    machine.say("GUEST_PANICKED", json!({ "action": "run" }));
    machine.say("WATCHDOG", json!({ "action": "reset" }));
    machine.say("STOP", json!({}));
    machine
        .until("asked", |m| m.asked("query-status").len() > 1)
        .await;
    assert_eq!(warned(&machine).unwrap().since, first.since);
    assert_eq!(machine.task().status().phase, Phase::Running);
    assert_eq!(machine.told("guest-panicked").await, 1);
    assert_eq!(machine.told("watchdog").await, 1);
    machine.say("RESET", json!({ "guest": true, "reason": "guest-reset" }));
    machine.until("rebooted", |m| warned(m).is_none()).await;
}

#[tokio::test]
async fn a_guest_that_stops_to_answer_is_not_ready() {
    let (_dir, node) = node().await;
    let id = insert(&node, &Phase::Running, "debian:12").await;
    let row = node.db.instance(&id).await.unwrap();
    let (task, handle) = Task::new(&node, &row);
    let silent = || {
        handle
            .status()
            .warnings
            .contains_key(&WarningKind::NotAnswering)
    };
    let since = OffsetDateTime::now_utc() - Duration::from_secs(9);

    task.ctx
        .guest_seen(Seen::Answers, Some(Duration::from_secs(3)));
    assert!(handle.status().ready && !silent());
    task.ctx.guest_seen(Seen::Silent { since }, None);
    assert!(!handle.status().ready && silent());
    let told = handle.status().warnings[&WarningKind::NotAnswering].clone();
    assert_eq!(told.since, since);
    task.ctx.guest_seen(Seen::Answers, None);
    assert!(handle.status().ready && !silent());
    // That a full disk pauses a guest is told as such.
    task.ctx.status.send_modify(|s| s.paused = true);
    task.ctx.guest_seen(Seen::Silent { since }, None);
    assert!(handle.status().ready && !silent());
    task.ctx.guest_seen(Seen::Answers, None);

    // They are recorded beside the task.
    let began = Instant::now();
    let kinds = loop {
        let of_it = (crate::db::Scope::Node, Some(id.clone()));
        let events = node.db.events_after(of_it.0, of_it.1, 0, 100).await;
        let kinds = events.unwrap().into_iter().map(|e| e.kind.as_str());
        let kinds: Vec<_> = kinds.filter(|kind| *kind != "phase").collect();
        if kinds.len() >= 3 || began.elapsed() > PATIENCE {
            break kinds;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(kinds, ["ready", "not-answering", "ready"]);
}

#[tokio::test]
async fn what_was_seen_of_a_guest_outlives_the_agent() {
    let since = OffsetDateTime::now_utc() - Duration::from_secs(90);
    let panicked = GuestHealth {
        panicked_since: Some(since),
        ..GuestHealth::default()
    };
    let silent = GuestHealth {
        answered: true,
        silent_since: Some(since),
        ..GuestHealth::default()
    };
    let well = GuestHealth {
        answered: true,
        ..GuestHealth::default()
    };
    for health in [panicked, silent, well, GuestHealth::default()] {
        let (_dir, node) = node().await;
        let mut machine = Machine::new(&node, Phase::Running, Manners::Polite).await;
        node.db.set_guest_health(&machine.id, health).await.unwrap();
        machine.adopt().await;
        machine
            .until("asked", |m| !m.asked("query-status").is_empty())
            .await;
        let status = machine.task().status();
        let told = |kind| status.warnings.get(&kind).map(|w| w.since);
        assert_eq!(told(WarningKind::GuestPanicked), health.panicked_since);
        assert_eq!(told(WarningKind::NotAnswering), health.silent_since);
        assert_eq!(status.ready, health == well);
    }
}

#[tokio::test]
async fn what_is_seen_of_a_guest_is_recorded() {
    let (_dir, node) = node().await;
    let machine = Machine::adopted(&node, Phase::Running, Manners::Polite).await;
    machine.say("GUEST_PANICKED", json!({ "action": "run" }));
    machine
        .until_recorded("a panic", |health| health.panicked_since.is_some())
        .await;
    machine.say("RESET", json!({ "guest": true, "reason": "guest-reset" }));
    machine
        .until_recorded("a reboot", |health| health == GuestHealth::default())
        .await;
}
