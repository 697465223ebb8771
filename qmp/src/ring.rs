//! The queue of events: a ring of bounded size whose writer never waits.
//!
//! Invariants: at most [`MAX_QUEUED_EVENTS`] events and [`MAX_QUEUED_BYTES`] bytes wait; what does
//! not fit pushes out the oldest. Events wait as text and are read into types one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::Event;
use crate::message::RawEvent;
use crate::timestamp::Timestamp;

/// How many events wait at most.
pub const MAX_QUEUED_EVENTS: usize = 1024;

/// How many bytes of event names and data wait at most.
pub const MAX_QUEUED_BYTES: usize = 1 << 20;

/// What one waiting event costs beside its text.
const OVERHEAD: usize = 64;

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<RawEvent>,
    bytes: usize,
    missed: u64,
    /// No more events will come.
    ended: bool,
    /// The reader was dropped.
    abandoned: bool,
}

/// The writer's end.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    state: Mutex<State>,
    arrived: Notify,
}

fn cost(event: &RawEvent) -> usize {
    OVERHEAD + event.name.len() + event.data.as_ref().map_or(0, |data| data.get().len())
}

impl Ring {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event.
    pub(crate) fn push(&self, event: RawEvent) {
        let mut state = self.state();
        if state.abandoned {
            return;
        }
        state.bytes += cost(&event);
        state.queue.push_back(event);
        while state.queue.len() > MAX_QUEUED_EVENTS || state.bytes > MAX_QUEUED_BYTES {
            let Some(oldest) = state.queue.pop_front() else {
                break;
            };
            state.bytes -= cost(&oldest);
            state.missed = state.missed.saturating_add(1);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// No more events will come. Those that wait can still be read.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.arrived.notify_one();
    }
}

/// The events of one connection, in the order in which QEMU sent them.
///
/// At most [`MAX_QUEUED_EVENTS`] events and [`MAX_QUEUED_BYTES`] bytes wait to be read. A reader
/// that lags loses the oldest and finds [`Event::Lagged`] in their place; the newest, such as the
/// one that tells of a shutdown, are kept. Commands are never delayed. Dropping this discards all
/// events; the handle goes on working.
#[derive(Debug)]
pub struct Events {
    ring: Arc<Ring>,
}

impl Events {
    pub(crate) fn new(ring: Arc<Ring>) -> Self {
        Self { ring }
    }

    /// The next event. `None` once the connection has ended and everything was read. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_with_time().await.map(|(_, event)| event)
    }

    /// The next event and when it happened by the peer's clock (for [`Event::Lagged`]: unknown).
    pub async fn next_with_time(&mut self) -> Option<(Timestamp, Event)> {
        loop {
            {
                let mut state = self.ring.state();
                if state.missed > 0 {
                    let missed = std::mem::take(&mut state.missed);
                    return Some((Timestamp::default(), Event::Lagged { missed }));
                }
                if let Some(raw) = state.queue.pop_front() {
                    state.bytes -= cost(&raw);
                    drop(state);
                    return Some((raw.at, Event::from_raw(&raw)));
                }
                if state.ended {
                    return None;
                }
            }
            self.ring.arrived.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.ring.state();
        state.abandoned = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    fn event(n: usize, size: usize) -> RawEvent {
        let data = format!("[{n},\"{}\"]", "x".repeat(size));
        RawEvent {
            name: "E".into(),
            data: Some(RawValue::from_string(data).unwrap()),
            at: Timestamp::default(),
        }
    }

    async fn drain(events: &mut Events) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = events.next().await {
            all.push(event);
        }
        all
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_are_counted() {
        for (size, kept) in [(0, MAX_QUEUED_EVENTS), (10_000, MAX_QUEUED_BYTES / 10_070)] {
            let ring = Arc::new(Ring::default());
            let mut events = Events::new(ring.clone());
            for n in 0..5000 {
                ring.push(event(n, size));
            }
            assert!(ring.state().bytes <= MAX_QUEUED_BYTES);
            ring.end();
            let all = drain(&mut events).await;
            let Event::Lagged { missed } = all[0] else {
                panic!("{:?}", all[0])
            };
            assert_eq!(missed as usize + all.len() - 1, 5000);
            assert!(
                (kept - 2..=kept).contains(&(all.len() - 1)),
                "{}",
                all.len()
            );
            let Event::Other { data, .. } = &all[all.len() - 1] else {
                panic!()
            };
            assert_eq!(data[0], 4999);
            assert_eq!(ring.state().bytes, 0);
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_without_a_reader() {
        let ring = Arc::new(Ring::default());
        drop(Events::new(ring.clone()));
        ring.push(event(1, 1));
        assert!(ring.state().queue.is_empty());
    }
}
