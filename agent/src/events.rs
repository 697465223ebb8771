//! What happens on the node, told to whoever listens and kept in the database.

use std::sync::Arc;

use crn_api_types::{Event, EventKind, Owner};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::{
    db::{About, Db},
    ids::InstanceId,
};

/// How many events a slow listener may lag behind before it loses some; it can
/// fetch them from the database then.
const BACKLOG: usize = 1024;

/// The node's events.
#[derive(Clone)]
pub struct Events {
    db: Db,
    live: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// Over the database.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self {
            db,
            live: broadcast::channel(BACKLOG).0,
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }

    /// Tells the listeners of an event that is already recorded.
    pub(crate) fn publish(&self, event: Event) {
        let _ = self.live.send(Arc::new(event));
    }

    /// Records an event about an instance, or about the node, and tells it, without
    /// making the caller wait.
    pub fn emit(&self, instance: Option<&InstanceId>, kind: EventKind, data: Value) {
        let about = match instance {
            Some(id) => About::Instance(id.clone()),
            None => About::Of(Owner::Operator),
        };
        self.emit_about(about, kind, data);
    }

    /// The same about anything.
    pub fn emit_about(&self, about: About, kind: EventKind, data: Value) {
        let this = self.clone();
        tokio::spawn(async move {
            match this.db.record_event(about, kind, data).await {
                Ok(event) => this.publish(event),
                Err(e) => tracing::error!("event {kind} is lost: {e}"),
            }
        });
    }
}
