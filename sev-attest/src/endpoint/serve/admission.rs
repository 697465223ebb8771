//! Who may take how much: connections, large bodies and reports are few, in all and for each source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// Connections at once from one source.
const MAX_OF_SOURCE: usize = 4;
/// Bodies with secrets that are read at once.
const MAX_BODIES: usize = 4;
/// Reports that a source may ask for at once, and the time after which it may ask for one more. The
/// security processor makes them one after the other, and shares its time with the whole host.
const REPORTS: u32 = 8;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Sources whose reports are counted; the one that asked longest ago makes room.
const MAX_SOURCES: usize = 1024;

/// Who asks: an IPv4 address, or the /64 of an IPv6 address, which is one customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Self(u64::from(u32::from(v4))),
                None => Self(network(v6)),
            },
        }
    }
}

/// The first half of an address, which is never that of an IPv4 source: those have no upper 32 bits.
fn network(v6: Ipv6Addr) -> u64 {
    let upper = u64::try_from(u128::from(v6) >> 64).unwrap_or(u64::MAX);
    if upper >> 32 == 0 {
        upper | 1 << 63
    } else {
        upper
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    of_source: HashMap<Source, usize>,
    bodies: usize,
    reports: HashMap<Source, Budget>,
}

/// Reports that a source may still ask for.
#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u32,
    since: Instant,
}

/// The counters, shared by all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

/// A connection that is counted as long as this lives.
#[derive(Debug)]
pub(super) struct Connection {
    admission: Admission,
    source: Source,
}

/// A body that is counted as long as this lives.
#[derive(Debug)]
pub(super) struct Body(Admission);

impl Admission {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection, if there is.
    pub(super) fn connection(&self, source: Source) -> Option<Connection> {
        let mut counts = self.counts();
        let of_source = counts.of_source.get(&source).copied().unwrap_or(0);
        if counts.connections >= MAX_CONNECTIONS || of_source >= MAX_OF_SOURCE {
            return None;
        }
        counts.connections += 1;
        counts.of_source.insert(source, of_source + 1);
        Some(Connection {
            admission: self.clone(),
            source,
        })
    }

    /// Room for one more body with secrets, if there is.
    pub(super) fn body(&self) -> Option<Body> {
        let mut counts = self.counts();
        if counts.bodies >= MAX_BODIES {
            return None;
        }
        counts.bodies += 1;
        Some(Body(self.clone()))
    }

    /// Whether this source may have another report made.
    pub(super) fn report(&self, source: Source, now: Instant) -> bool {
        let reports = &mut self.counts().reports;
        if !reports.contains_key(&source) && reports.len() >= MAX_SOURCES {
            let oldest = reports.iter().min_by_key(|(_, budget)| budget.since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                reports.remove(&oldest);
            }
        }
        let budget = reports.entry(source).or_insert(Budget {
            left: REPORTS,
            since: now,
        });
        let waited = now.saturating_duration_since(budget.since);
        let more = waited.as_secs() / REPORT_EVERY.as_secs();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(REPORTS);
            budget.left = budget.left.saturating_add(more).min(REPORTS);
            budget.since = now;
        }
        let may = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        may
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.connections = counts.connections.saturating_sub(1);
        let left = counts.of_source.get(&self.source).map_or(0, |n| n - 1);
        match left {
            0 => counts.of_source.remove(&self.source),
            left => counts.of_source.insert(self.source, left),
        };
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        counts.bodies = counts.bodies.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn sources() {
        for (one, other, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::1", "0.0.0.0", false),
            ("0:0:c000:201::1", "192.0.2.1", false),
        ] {
            assert_eq!(source(one) == source(other), same, "{one} {other}");
        }
    }

    #[test]
    fn connections_of_one_source_and_in_all() {
        let admission = Admission::default();
        let mut held: Vec<Connection> = (0..MAX_OF_SOURCE)
            .map(|_| admission.connection(source("192.0.2.1")).unwrap())
            .collect();
        assert!(admission.connection(source("192.0.2.1")).is_none());
        for i in MAX_OF_SOURCE..MAX_CONNECTIONS {
            let other = source(&format!("192.0.2.{}", 10 + i));
            held.push(admission.connection(other).unwrap());
        }
        assert!(admission.connection(source("198.51.100.1")).is_none());
        held.pop();
        assert!(admission.connection(source("198.51.100.1")).is_some());
        held.clear();
        assert!(admission.connection(source("192.0.2.1")).is_some());
        assert!(admission.counts().of_source.is_empty());
    }

    #[test]
    fn reports_come_back_with_time() {
        let (admission, start) = (Admission::default(), Instant::now());
        let one = source("192.0.2.1");
        for _ in 0..REPORTS {
            assert!(admission.report(one, start));
        }
        assert!(!admission.report(one, start));
        assert!(admission.report(source("192.0.2.2"), start));
        assert!(admission.report(one, start + REPORT_EVERY));
        assert!(!admission.report(one, start + REPORT_EVERY));
        // However long it waited, there are no more than at first.
        let later = start + 1000 * REPORT_EVERY;
        for _ in 0..REPORTS {
            assert!(admission.report(one, later));
        }
        assert!(!admission.report(one, later));
    }

    #[test]
    fn sources_are_not_counted_without_end() {
        let (admission, start) = (Admission::default(), Instant::now());
        for i in 0..2 * u32::try_from(MAX_SOURCES).unwrap() {
            let now = start + Duration::from_millis(i.into());
            assert!(admission.report(Source(i.into()), now));
        }
        assert_eq!(admission.counts().reports.len(), MAX_SOURCES);
    }

    #[test]
    fn bodies() {
        let admission = Admission::default();
        let held: Vec<Body> = (0..MAX_BODIES).map(|_| admission.body().unwrap()).collect();
        assert!(admission.body().is_none());
        drop(held);
        assert!(admission.body().is_some());
    }
}
