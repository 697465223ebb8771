//! Keeps the network as the records say: a flushed table, a removed route or a
//! deleted tap is noticed at once, by the kernel's word, and repaired; a complete
//! comparison now and then finds what the kernel did not tell.

use std::{sync::Arc, time::Duration};

use crn_api_types::EventKind;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::{
    guest_net::{Compared, GuestNetError},
    node::Node,
};

/// What comes in a burst is repaired once.
const BURST: Duration = Duration::from_millis(50);
/// When the kernel's word cannot be had.
const PAUSE: Duration = Duration::from_secs(5);

/// Compares once and repairs; tells of what was repaired.
///
/// # Errors
/// [`GuestNetError`]; the next comparison tries again.
pub async fn once(node: &Arc<Node>) -> Result<(), GuestNetError> {
    let Compared { repairs, guests } = node.net.reconcile().await?;
    for index in &repairs.missing_taps {
        let holder = guests
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
        node.events.emit(None, EventKind::NetworkRepaired, data);
    }
    Ok(())
}

/// Compares and repairs as long as it is polled.
pub async fn keep(node: Arc<Node>) {
    let mut tick = interval(Duration::from_secs(node.config.network.reconcile_seconds));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = None;
    let mut known = Vec::new();
    loop {
        if watch.is_none() {
            watch = match node.net.host().watch() {
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
            // Without the firewall's table everything is open: that does not wait.
            Some(Some(net::Change::Table)) => {}
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
        let problems = node.net.host().problems();
        for problem in problems.iter().filter(|p| !known.contains(*p)) {
            warn!("{problem}");
        }
        for solved in known.iter().filter(|p| !problems.contains(*p)) {
            info!("no longer: {solved}");
        }
        known = problems;
    }
}
