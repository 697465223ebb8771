//! What is asked for while an instance's task is about to grant something.

use std::sync::Arc;

use crn_api_types::{CreateRequest, Owner, StopOptions};
use time::{Duration, OffsetDateTime};

use super::super::{Caller, OpError, instances};
use crate::{
    api::tests::harness,
    db::{InstanceRow, NewInstance},
    ids::InstanceId,
    life::{
        Circumstances, Decision, Desired, Failure, FailureCode, Intent, Phase, Settled, StopReason,
        StopStage, Transition, decide,
    },
    node::Node,
    spec,
};

const OPERATOR: Caller = Caller::Operator { host_files: true };

/// An instance's task without a machine: what QEMU would have to do succeeds at once.
/// Its look at the record and its change of the record are apart, for others to come
/// between.
struct Model {
    node: Arc<Node>,
    id: InstanceId,
    seen: Option<InstanceRow>,
    restarts: u32,
    ended: bool,
}

impl Model {
    async fn new(node: &Arc<Node>, phase: Phase, intent: Intent) -> Self {
        let request: CreateRequest =
            serde_json::from_str(r#"{"image": "debian:12", "memory_mib": 64, "disk_mib": 64}"#)
                .unwrap();
        let checked = spec::check(request, &node.config.limits, 64).unwrap();
        let id = InstanceId::random().unwrap();
        let new = NewInstance {
            owner: Owner::Operator,
            checked,
            id: id.clone(),
            plan: node.addresses.clone(),
            capacity: node.capacity,
            slots: 8,
        };
        node.db.insert_instance(new).await.unwrap();
        let nothing = Settled {
            restart: false,
            force: false,
            guest_off: false,
        };
        node.db.set_phase(&id, &phase, nothing, 1).await.unwrap();
        node.db.update_intent(&id, move |_| intent).await.unwrap();
        Self {
            node: node.clone(),
            id,
            seen: None,
            restarts: 0,
            ended: false,
        }
    }

    /// One job in the database: a look, or what follows from the last one. False when
    /// there is nothing to do.
    async fn advance(&mut self) -> bool {
        let Some(row) = self.seen.take() else {
            if self.ended {
                return false;
            }
            self.seen = Some(self.node.db.instance(&self.id).await.unwrap());
            return true;
        };
        let transition = match decide(&row.phase, row.intent, OffsetDateTime::now_utc()) {
            Decision::Go(transition) => transition,
            Decision::Work => match row.phase {
                Phase::Stopping { stage, .. } if stage != StopStage::CleanUp => Transition::Exited,
                _ => Transition::Done,
            },
            Decision::Wait => return false,
            Decision::End => {
                self.node.db.remove_instance(&self.id).await.unwrap();
                self.ended = true;
                return true;
            }
        };
        self.restarts += u32::from(matches!(transition, Transition::Restart { .. }));
        let circumstances = Circumstances {
            now: OffsetDateTime::now_utc(),
            restarts: 0,
            wanted: row.intent.desired == Desired::Running,
            rebooted: false,
        };
        let next = row.phase.apply(&transition, circumstances).unwrap();
        let settled = Settled::by(&transition, &next);
        let db = &self.node.db;
        db.set_phase(&self.id, &next, settled, 0).await.unwrap();
        true
    }

    async fn rest(&mut self) {
        for _ in 0..64 {
            if !self.advance().await {
                return;
            }
        }
        panic!("it never rests");
    }
}

/// Lets everything that waits for the database go on by one job.
async fn one_job(node: &Arc<Node>) {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    node.db.call(|_| Ok(())).await.unwrap();
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Start,
    StopByForce,
    Delete,
}

async fn ask(node: Arc<Node>, id: InstanceId, asked: Asked) -> Result<(), OpError> {
    let (id, force) = (id.as_str(), StopOptions { force: true });
    match asked {
        Asked::Start => instances::start(&node, &OPERATOR, id).await,
        Asked::StopByForce => instances::stop(&node, &OPERATOR, id, force).await,
        Asked::Delete => instances::delete(&node, &OPERATOR, id, StopOptions::default()).await,
    }
    .map(drop)
}

/// A restart that is wanted, and one that is due after a crash.
fn beginnings() -> [(Phase, Intent); 2] {
    let intent = |restart| Intent {
        desired: Desired::Running,
        restart,
        force: false,
    };
    let failure = Failure {
        code: FailureCode::Crashed,
        message: "it crashed".into(),
    };
    let crashed = Phase::BackingOff {
        attempt: 1,
        until: OffsetDateTime::now_utc() - Duration::SECOND,
        failure,
    };
    [(Phase::Running, intent(true)), (crashed, intent(false))]
}

/// The task goes `before` jobs far, then somebody asks and gets `during` jobs far before
/// the task's next job; then both go on to their ends.
#[tokio::test]
async fn a_restart_that_is_settled_meanwhile_is_granted_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| {}).await;
    for (start, (phase, intent)) in beginnings().into_iter().enumerate() {
        for asked in [Asked::Start, Asked::StopByForce, Asked::Delete] {
            for (before, during) in (0..10).flat_map(|b| (0..4).map(move |d| (b, d))) {
                let mut model = Model::new(&node, phase.clone(), intent).await;
                for _ in 0..before {
                    model.advance().await;
                }
                let asking = tokio::spawn(ask(node.clone(), model.id.clone(), asked));
                for _ in 0..during {
                    one_job(&node).await;
                }
                model.advance().await;
                asking.await.unwrap().unwrap();
                model.rest().await;
                // A look from before the request may have led to a rest too early.
                model.rest().await;
                let told = format!("{phase:?} {asked:?} {before} {during}");
                assert!(model.restarts <= u32::from(start == 0), "{told}");
                if asked == Asked::Delete {
                    assert!(model.ended, "{told}");
                    continue;
                }
                let row = node.db.instance(&model.id).await.unwrap();
                assert!(!row.intent.restart && !row.intent.force, "{told}: {row:?}");
                let requested = Phase::Stopped {
                    reason: StopReason::Requested,
                };
                let expected = match asked {
                    Asked::Start => Phase::Running,
                    _ => requested,
                };
                assert_eq!(row.phase, expected, "{told}");
                node.db.remove_instance(&model.id).await.unwrap();
            }
        }
    }
}

/// Who asks politely does not take back that somebody did not.
#[tokio::test]
async fn force_stays_whoever_asks_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let node = harness::node(&dir, |_| {}).await;
    for during in 0..6 {
        let (_, mut intent) = beginnings()[0].clone();
        intent.restart = false;
        let model = Model::new(&node, Phase::Running, intent).await;
        let (polite, id) = (node.clone(), model.id.clone());
        let polite = tokio::spawn(async move {
            instances::stop(&polite, &OPERATOR, id.as_str(), StopOptions::default()).await
        });
        for _ in 0..during {
            one_job(&node).await;
        }
        ask(node.clone(), model.id.clone(), Asked::StopByForce)
            .await
            .unwrap();
        polite.await.unwrap().unwrap();
        let row = node.db.instance(&model.id).await.unwrap();
        assert!(row.intent.force, "after {during} jobs");
        node.db.remove_instance(&model.id).await.unwrap();
    }
}
