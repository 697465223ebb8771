//! Which parts of a file have arrived; pure.
//!
//! The file is cut into pieces of equal size, fetched in order by several connections. Each
//! piece counts its own bytes, so an interruption loses nothing, and all bytes up to the first
//! gap (the water mark) can be hashed while the rest is on its way.

use serde::{Deserialize, Serialize};

/// Most pieces of one file; a larger file has larger pieces.
const MAX_PIECES: u64 = 4096;

/// The pieces of a file of `total` bytes. `total` is at least 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    total: u64,
    piece: u64,
    /// Bytes of each piece that are there, from its start.
    done: Vec<u64>,
}

/// What one request asks for: bytes `start` to `end` (exclusive) of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) index: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Plan {
    /// Nothing has arrived of `total` bytes, to be fetched in pieces of at least `piece`.
    pub(crate) fn new(total: u64, piece: u64) -> Self {
        let piece = piece.max(total.div_ceil(MAX_PIECES)).max(1);
        let count = usize::try_from(total.div_ceil(piece)).unwrap_or(0);
        Plan {
            total,
            piece,
            done: vec![0; count],
        }
    }

    /// Whether a plan that was read from a file makes sense.
    pub(crate) fn is_valid(&self) -> bool {
        self.total > 0
            && self.piece > 0
            && self.total.div_ceil(self.piece) <= MAX_PIECES
            && self.done.len() as u64 == self.total.div_ceil(self.piece)
            && self.done.iter().enumerate().all(|(i, &d)| d <= self.len(i))
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn start(&self, index: usize) -> u64 {
        self.piece.saturating_mul(index as u64)
    }

    fn len(&self, index: usize) -> u64 {
        self.total.saturating_sub(self.start(index)).min(self.piece)
    }

    /// The first piece with something missing that is not `busy`.
    pub(crate) fn next(&self, busy: &[usize]) -> Option<Span> {
        self.done
            .iter()
            .enumerate()
            .find(|&(i, &d)| d < self.len(i) && !busy.contains(&i))
            .map(|(index, &done)| {
                let start = self.start(index);
                Span {
                    index,
                    start: start + done,
                    end: start + self.len(index),
                }
            })
    }

    /// `n` more bytes of a piece have been written.
    pub(crate) fn advance(&mut self, index: usize, n: u64) {
        let len = self.len(index);
        if let Some(done) = self.done.get_mut(index) {
            *done = done.saturating_add(n).min(len);
        }
    }

    /// Bytes that are there.
    pub(crate) fn bytes_done(&self) -> u64 {
        self.done.iter().sum()
    }

    /// Bytes that are there from the start of the file to the first gap.
    pub(crate) fn water_mark(&self) -> u64 {
        let mut mark = 0;
        for (index, &done) in self.done.iter().enumerate() {
            mark += done;
            if done < self.len(index) {
                break;
            }
        }
        mark
    }

    /// How long the file must be to have all bytes that are there.
    pub(crate) fn reach(&self) -> u64 {
        let last = self.done.iter().enumerate().rfind(|&(_, &done)| done > 0);
        last.map_or(0, |(index, done)| self.start(index).saturating_add(*done))
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.bytes_done() == self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_are_taken_in_order() {
        let mut plan = Plan::new(25, 10);
        assert_eq!(
            plan.next(&[]),
            Some(Span {
                index: 0,
                start: 0,
                end: 10
            })
        );
        assert_eq!(
            plan.next(&[0, 1]),
            Some(Span {
                index: 2,
                start: 20,
                end: 25
            })
        );
        assert_eq!(plan.next(&[0, 1, 2]), None);
        plan.advance(1, 10);
        assert_eq!(
            (plan.water_mark(), plan.bytes_done(), plan.reach()),
            (0, 10, 20)
        );
        plan.advance(0, 4);
        assert_eq!((plan.water_mark(), plan.bytes_done()), (4, 14));
        assert_eq!(
            plan.next(&[]),
            Some(Span {
                index: 0,
                start: 4,
                end: 10
            })
        );
        plan.advance(0, 6);
        assert_eq!(plan.water_mark(), 20);
        plan.advance(2, 99);
        assert!(plan.is_complete());
        assert_eq!((plan.water_mark(), plan.next(&[])), (25, None));
    }

    #[test]
    fn records_that_make_no_sense() {
        let plan = |total, piece, done: &[u64]| Plan {
            total,
            piece,
            done: done.to_vec(),
        };
        assert!(plan(25, 10, &[10, 0, 5]).is_valid());
        for bad in [
            plan(0, 10, &[]),
            plan(25, 0, &[]),
            plan(25, 10, &[10, 0]),
            plan(25, 10, &[11, 0, 0]),
            plan(25, 10, &[10, 0, 6]),
            plan(u64::MAX, 1, &[]),
        ] {
            assert!(!bad.is_valid(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_asked_for_once(total in 1_u64..100_000, piece in 1_u64..5_000, step in 1_u64..3_000) {
            let mut plan = Plan::new(total, piece);
            prop_assert!(plan.is_valid());
            let mut asked = 0;
            while let Some(span) = plan.next(&[]) {
                let n = step.min(span.end - span.start);
                prop_assert_eq!(span.start, plan.water_mark());
                plan.advance(span.index, n);
                asked += n;
                prop_assert_eq!(plan.bytes_done(), asked);
            }
            prop_assert_eq!(asked, total);
            prop_assert!(plan.is_complete() && plan.is_valid());
        }
    }
}
