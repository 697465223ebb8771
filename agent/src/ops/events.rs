//! What happens on the node, from any point of the past on, without a gap.

use std::{collections::VecDeque, sync::Arc};

use crn_api_types::Event;
use futures::{Stream, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Caller, OpError, lookup,
    permission::{Operation, permit},
};
use crate::{db::Scope, ids::InstanceId, node::Node};

/// Events that are read from the database at a time.
const BATCH: u32 = 256;

/// Which events, from where on.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// After this number; from now on unless given.
    pub after: Option<i64>,
    /// The last so many events first; takes the place of `after`.
    pub last: Option<u32>,
    /// Of this instance only, by its name or id.
    pub instance: Option<String>,
    /// Wait for more at the end.
    pub follow: bool,
}

struct Reading {
    node: Arc<Node>,
    wake: Receiver<Arc<Event>>,
    scope: Scope,
    instance: Option<InstanceId>,
    follow: bool,
    after: i64,
    ready: VecDeque<Event>,
    ended: bool,
}

/// The events that `query` names and the caller may know of, in order, each once.
///
/// What is told live only says that there is something to read: events are read
/// from the database, so that a slow reader loses none and the order is the
/// recorded one.
///
/// # Errors
/// Those of the database; in the stream too.
pub async fn stream(
    node: &Arc<Node>,
    caller: &Caller,
    query: Query,
) -> Result<impl Stream<Item = Result<Event, OpError>> + Send + use<>, OpError> {
    permit(caller, Operation::WatchEvents, None)?;
    let instance = match &query.instance {
        Some(reference) => {
            let row = lookup::instance(node, caller, Operation::WatchEvents, reference).await?;
            Some(row.id)
        }
        None => None,
    };
    let scope = caller.scope();
    // Listen before looking, so that nothing falls between.
    let wake = node.events.listen();
    let newest = node.db.newest_event().await?;
    let after = match (query.last, query.after) {
        (Some(last), _) => {
            let (scope, instance) = (scope.clone(), instance.clone());
            node.db.event_before_last(scope, instance, last).await?
        }
        // A number that is yet to come is of another database: from now on, then.
        (None, Some(after)) => after.min(newest),
        (None, None) => newest,
    };
    let reading = Reading {
        node: node.clone(),
        wake,
        scope,
        instance,
        follow: query.follow,
        after,
        ready: VecDeque::new(),
        ended: false,
    };
    Ok(stream::unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Some((next, reading))
    }))
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Event, OpError>> {
        while !self.ended {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if self.follow => self.wait().await,
                Ok(false) => self.ended = true,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }

    /// Reads the next events. False when there are none.
    async fn read(&mut self) -> Result<bool, OpError> {
        let (scope, instance) = (self.scope.clone(), self.instance.clone());
        let db = &self.node.db;
        let events = db.events_after(scope, instance, self.after, BATCH).await?;
        let Some(last) = events.last() else {
            return Ok(false);
        };
        self.after = last.seq;
        self.ready.extend(events);
        Ok(true)
    }

    async fn wait(&mut self) {
        if matches!(self.wake.recv().await, Err(RecvError::Closed)) {
            self.ended = true;
        }
    }
}
