//! What happens on the node, from any point of the past on, without a gap.

use std::{collections::VecDeque, sync::Arc};

use futures::{Stream, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::OpError;
use crate::{db::EventRow, ids::InstanceId, node::Node};

/// Events that are read from the database at a time.
const BATCH: u32 = 256;

/// Which events, from where on.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// After this number; from now on unless given.
    pub after: Option<i64>,
    /// The last so many events first; takes the place of `after`.
    pub last: Option<u32>,
    /// Of this instance only.
    pub instance: Option<InstanceId>,
    /// Wait for more at the end.
    pub follow: bool,
}

struct Reading {
    node: Arc<Node>,
    wake: Receiver<Arc<EventRow>>,
    query: Query,
    after: i64,
    ready: VecDeque<EventRow>,
    ended: bool,
}

/// The events that `query` names, in order, each once.
///
/// What is told live only says that there is something to read: events are read
/// from the database, so that a slow reader loses none and the order is the
/// recorded one.
///
/// # Errors
/// Those of the database; in the stream too.
pub async fn stream(
    node: &Arc<Node>,
    query: Query,
) -> Result<impl Stream<Item = Result<EventRow, OpError>> + Send + 'static, OpError> {
    // Listen before looking, so that nothing falls between.
    let wake = node.events.listen();
    let newest = node.db.newest_event().await?;
    let after = match (query.last, query.after) {
        (Some(last), _) => match &query.instance {
            Some(id) => node.db.event_before_last(id, last).await?,
            None => newest.saturating_sub(last.into()),
        },
        // A number that is yet to come is of another database: from now on, then.
        (None, Some(after)) => after.min(newest),
        (None, None) => newest,
    };
    let reading = Reading {
        node: node.clone(),
        wake,
        query,
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
    async fn next(&mut self) -> Option<Result<EventRow, OpError>> {
        while !self.ended {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if self.query.follow => self.wait().await,
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
        let events = self.node.db.events_after(self.after, BATCH).await?;
        let Some(last) = events.last() else {
            return Ok(false);
        };
        self.after = last.seq;
        let wanted = self.query.instance.as_ref().map(InstanceId::as_str);
        let fits = |e: &EventRow| wanted.is_none_or(|id| e.instance.as_deref() == Some(id));
        self.ready.extend(events.into_iter().filter(fits));
        Ok(true)
    }

    async fn wait(&mut self) {
        if matches!(self.wake.recv().await, Err(RecvError::Closed)) {
            self.ended = true;
        }
    }
}
