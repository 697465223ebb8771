//! How often something that a guest or its QEMU can cause is written down.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// The least time between two entries of one kind.
pub(super) const EVERY: Duration = Duration::from_secs(2);
/// As much of a peer's text is written down, characters.
const LONGEST: usize = 200;

/// One entry of each kind per interval; what comes in between is counted.
#[derive(Debug, Default)]
pub(super) struct RateLimit(HashMap<&'static str, Entry>);

#[derive(Debug)]
struct Entry {
    at: Instant,
    suppressed: u64,
}

impl RateLimit {
    /// Whether one of this kind may be written now; if so, how many were not since the
    /// last one.
    pub(super) fn admit(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        match self.0.get_mut(kind) {
            Some(entry) if now - entry.at < EVERY => {
                entry.suppressed += 1;
                None
            }
            Some(entry) => {
                entry.at = now;
                Some(std::mem::take(&mut entry.suppressed))
            }
            None => {
                let entry = Entry {
                    at: now,
                    suppressed: 0,
                };
                self.0.insert(kind, entry);
                Some(0)
            }
        }
    }
}

/// A peer's text on one line, at most 200 characters of it.
pub(super) fn peer_text(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_entry_per_interval_and_is_counted() {
        let mut limit = RateLimit::default();
        let began = Instant::now();
        let ms = |n: u64| began + Duration::from_millis(n);
        let written: Vec<_> = (0..10_000)
            .filter_map(|n| limit.admit("disk-error", ms(n)))
            .collect();
        assert_eq!(written, [0, 1999, 1999, 1999, 1999]);
        // Another kind is not held back by it.
        assert_eq!(limit.admit("rebooted", ms(9_999)), Some(0));
        assert_eq!(limit.admit("disk-error", ms(12_000)), Some(1999));
    }

    #[test]
    fn a_peers_text_is_cut_and_stays_on_one_line() {
        assert_eq!(peer_text("No space\nleft\x1b[2J"), "No space left [2J");
        let long = peer_text(&"ä".repeat(1_000_000));
        assert_eq!(long.chars().count(), LONGEST + 1);
        assert_eq!(peer_text(&"x".repeat(LONGEST)).len(), LONGEST);
    }
}
