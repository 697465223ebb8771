//! Keeps the network as the records say: a flushed table, a removed route or a
//! deleted tap is noticed at once, by the kernel's word, and repaired; a complete
//! comparison now and then finds what the kernel did not tell.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::{
    db::{DbError, InstanceRow},
    life::{Phase, StopStage},
    node::Node,
};

/// What comes in a burst is repaired once.
const BURST: Duration = Duration::from_millis(50);
/// When the kernel's word cannot be had.
const PAUSE: Duration = Duration::from_secs(5);

/// Why the network could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The network.
    #[error("network: {0}")]
    Net(#[from] net::Error),
}

/// The guests that the network is to have now. Call it with the gate held.
///
/// # Errors
/// Those of the database.
pub async fn wanted(node: &Node) -> Result<Vec<(InstanceRow, net::GuestSpec)>, DbError> {
    let rows = node.db.instances().await?;
    Ok(rows
        .into_iter()
        .filter(|row| belongs(&row.phase))
        .map(|row| {
            let guest = node.guest(&row);
            (row, guest)
        })
        .collect())
}

/// Whether an instance in this phase has a part of the network: from the moment
/// before its tap is made until QEMU is gone. Pure.
#[must_use]
pub fn belongs(phase: &Phase) -> bool {
    let cleaning = matches!(
        phase,
        Phase::Stopping {
            stage: StopStage::CleanUp,
            ..
        }
    );
    phase.has_network() && !cleaning
}

/// Compares once and repairs; tells of what was repaired.
///
/// # Errors
/// [`ReconcileError`]; the next comparison tries again.
pub async fn once(node: &Arc<Node>) -> Result<(), ReconcileError> {
    // No guest comes or goes meanwhile: it would be taken for nobody's.
    let gate = node.net_gate.write().await;
    let wanted = wanted(node).await?;
    let guests: Vec<_> = wanted.iter().map(|(_, guest)| guest.clone()).collect();
    let repairs = node.net.reconcile(&guests).await?;
    drop(gate);
    for index in &repairs.missing_taps {
        let holder = wanted
            .iter()
            .find(|(row, _)| net::GuestIndex(row.slot) == *index);
        if let Some(task) = holder.and_then(|(row, _)| node.task(&row.id)) {
            task.repair_tap();
        }
    }
    // Taps are their tasks' to tell of.
    let told = net::Repairs {
        missing_taps: Vec::new(),
        ..repairs
    };
    if !told.is_clean() {
        info!("the network was repaired: {told:?}");
        let data = json!({
            "table": told.table,
            "elements_added": told.elements_added,
            "elements_removed": told.elements_removed,
            "removed_orphans": told.removed_orphans,
            "details": format!("{told:?}"),
        });
        node.events.emit(None, "network-repaired", data);
    }
    Ok(())
}

/// Compares and repairs as long as it is polled.
pub async fn keep(node: Arc<Node>) {
    let mut tick = interval(Duration::from_secs(node.config.network.reconcile_seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = None;
    loop {
        if watch.is_none() {
            watch = match node.net.watch() {
                Ok(watch) => Some(watch),
                Err(e) => {
                    warn!("changes of the network are seen late: {e}");
                    None
                }
            };
        }
        let changed = async {
            match &mut watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            change = changed => Some(change),
            _ = tick.tick() => None,
        };
        match heard {
            Some(Some(_)) => {
                sleep(BURST).await;
                // The rest of the burst.
                while let Some(watch) = &mut watch
                    && let Ok(Some(_)) = timeout(Duration::from_millis(1), watch.next()).await
                {
                }
            }
            Some(None) => {
                watch = None;
                sleep(PAUSE).await;
            }
            None => {}
        }
        if let Err(e) = once(&node).await {
            warn!("the network cannot be compared with the records: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::{DeleteStep, PrepareStep, StartStep, StopReason, Then};

    #[test]
    fn the_network_has_a_guest_as_long_as_a_qemu_may_live() {
        let stopping = |stage| Phase::Stopping {
            stage,
            then: Then::Restart,
        };
        let table = [
            (
                Phase::Preparing {
                    step: PrepareStep::Seed,
                },
                false,
            ),
            (
                Phase::Starting {
                    step: StartStep::Launch,
                },
                true,
            ),
            (
                Phase::Starting {
                    step: StartStep::Monitor,
                },
                true,
            ),
            (Phase::Running, true),
            (stopping(StopStage::PowerButton), true),
            (stopping(StopStage::Kill), true),
            (stopping(StopStage::CleanUp), false),
            (
                Phase::Stopped {
                    reason: StopReason::Requested,
                },
                false,
            ),
            (
                Phase::Deleting {
                    step: DeleteStep::CleanUp,
                },
                false,
            ),
        ];
        for (phase, expected) in table {
            assert_eq!(belongs(&phase), expected, "{}", phase.path());
        }
    }
}
