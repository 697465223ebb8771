//! Whatever a task waits for, it hears everything else: a monitor that never answers
//! delays nothing.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::*;
use crate::life::{Awaited, PrepareStep, StartStep, StopReason, StopStage, Then};

/// Within this time what is asked for has taken effect.
const SOON: Duration = Duration::from_secs(1);

/// What an operator, or fate, does to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    StopByForce,
    DeleteByForce,
    QemuEnds,
}

fn phases() -> Vec<Phase> {
    let then = Then::Stay {
        reason: StopReason::Requested,
    };
    let stopping = |stage| Phase::Stopping {
        stage,
        then: then.clone(),
    };
    vec![
        Phase::Starting {
            step: StartStep::Monitor,
        },
        Phase::Running,
        Phase::AwaitingOwner {
            what: Awaited::Unlock,
            since: time::OffsetDateTime::now_utc(),
            until: None,
        },
        stopping(StopStage::PowerButton),
        stopping(StopStage::Quit),
    ]
}

/// How long it takes until QEMU is gone and the task knows it.
async fn strike(node: &Arc<Node>, phase: Phase, manners: Manners, blow: Blow) -> Duration {
    let mut machine = Machine::new(node, phase.clone(), manners).await;
    let desired = match phase {
        Phase::Stopping { .. } => Desired::Stopped,
        _ => Desired::Running,
    };
    let intent = Intent {
        desired,
        restart: false,
        force: false,
    };
    let wanted = machine.node.db.update_intent(&machine.id, move |_| intent);
    wanted.await.unwrap();
    machine.adopt().await;
    // It waits for an answer that never comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!machine.is_dead(), "{phase:?}");
    let began = Instant::now();
    match blow {
        Blow::StopByForce => machine.want(Desired::Stopped, true).await,
        Blow::DeleteByForce => machine.want(Desired::Deleted, true).await,
        Blow::QemuEnds => machine.child.kill().unwrap(),
    }
    let what = format!("{phase:?} {manners:?} {blow:?}");
    machine
        .until(&what, |machine| {
            let phase = machine.node.task(&machine.id).map(|t| t.status().phase);
            !matches!(
                phase,
                Some(Phase::Stopping { stage, .. }) if stage != StopStage::CleanUp
            ) && !matches!(
                phase,
                Some(Phase::Running | Phase::AwaitingOwner { .. } | Phase::Starting { .. })
            )
        })
        .await;
    let took = began.elapsed();
    assert!(machine.is_dead(), "{what}");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_never_answers_delays_nothing() {
    let (_dir, node) = node().await;
    let mut cases = Vec::new();
    for phase in phases() {
        for manners in [Manners::Silent, Manners::Mute] {
            // A start whose monitor shakes hands is over.
            if manners == Manners::Mute && matches!(phase, Phase::Starting { .. }) {
                continue;
            }
            for blow in [Blow::StopByForce, Blow::DeleteByForce, Blow::QemuEnds] {
                cases.push((phase.clone(), manners, blow));
            }
        }
    }
    // A busy machine may be slow once, not again and again.
    for _ in 0..4 {
        let all = cases.iter().map(async |(phase, manners, blow)| {
            strike(&node, phase.clone(), *manners, *blow).await
        });
        let took: Vec<_> = join_all(all).await;
        let late = cases.iter().zip(&took).filter(|(_, took)| **took > SOON);
        let late: Vec<_> = late.map(|(case, took)| (case.clone(), *took)).collect();
        eprintln!("late: {late:?}");
        cases = late.into_iter().map(|(case, _)| case).collect();
        if cases.is_empty() {
            return;
        }
    }
    panic!("not within {SOON:?}: {cases:?}");
}

#[tokio::test]
async fn a_download_is_given_up_when_its_instance_is_deleted() {
    // A server that takes requests and never answers one.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/disk.img", server.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |config| {
        config.images.catalogue.push(crate::config::CatalogueImage {
            name: "slow:1".into(),
            url,
            sums: None,
            sums_name: None,
            digest: Some(format!("sha256:{}", "ab".repeat(32))),
        });
    })
    .await;
    let phase = Phase::Preparing {
        step: PrepareStep::Image,
    };
    let id = insert(&node, &phase, "slow:1").await;
    let row = node.db.instance(&id).await.unwrap();
    let task = spawn(&node, &row, None);
    let (_stream, _) = server.accept().await.unwrap();
    // A volume can be attached meanwhile.
    let (owner, name) = (Owner::Operator, "data".parse().unwrap());
    let volume = node.db.insert_volume(
        &owner,
        crate::db::NewVolume::empty(&name, 16),
        node.capacity,
    );
    let volume = volume.await.unwrap();
    let attach = |reply| crate::tasks::Command::Attach {
        volume: volume.id.clone(),
        mount: None,
        reply,
    };
    task.ask(attach).await.unwrap();
    assert_eq!(node.db.volumes_of(&id).await.unwrap().len(), 1);
    assert_eq!(task.status().phase, phase);
    let began = Instant::now();
    let intent = Intent {
        desired: Desired::Deleted,
        restart: false,
        force: false,
    };
    node.db.update_intent(&id, move |_| intent).await.unwrap();
    task.wake();
    while node.task(&id).is_some() {
        assert!(began.elapsed() < PATIENCE, "{:?}", task.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() < 3 * SOON, "{:?}", began.elapsed());
    assert!(node.db.instance(&id).await.is_err());
}

#[tokio::test]
async fn one_that_awaits_its_owner_rests_until_its_time_and_is_kept() {
    let (_dir, node) = node().await;
    let now = time::OffsetDateTime::now_utc();
    let waits = |until| Phase::AwaitingOwner {
        what: Awaited::Secret,
        since: now,
        until,
    };
    // Adopted with its QEMU, it rests; QEMU's death is heard, and it is launched again
    // later.
    let mut machine = Machine::adopted(&node, waits(None), Manners::Polite).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(machine.task().status().phase, waits(None));
    assert_eq!(machine.task().status().pid, Some(machine.script().pid));
    machine.child.kill().unwrap();
    machine.reach("backing-off").await;
    // Its time comes: it is stopped and kept, and nobody starts it again.
    let soon = now + Duration::from_millis(1500);
    let machine = Machine::adopted(&node, waits(Some(soon)), Manners::Polite).await;
    machine.reach("stopped").await;
    let row = machine.row().await;
    let reason = StopReason::OwnerDidNotCome;
    assert_eq!(row.phase, Phase::Stopped { reason });
    assert_eq!(row.intent.desired, Desired::Stopped);
    assert!(time::OffsetDateTime::now_utc() >= soon);
    assert!(machine.asked("system_powerdown").is_empty());
}
