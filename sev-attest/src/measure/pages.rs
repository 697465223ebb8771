//! SHA-384 of many 4 KiB pages: the bulk of the work of an SNP launch digest.
//!
//! The digest chain is sequential, but each link takes only the SHA-384 of its page, and these are
//! independent: they are computed on all cores, and pages made of one repeated byte (most of a
//! firmware's padding) only once per byte.

use std::convert::Infallible;
use std::sync::Mutex;

use super::sha384::{PAGE, SHA384_LEN, Sha384Digest, sha384};
use super::sha384x4::sha384x4;

/// Pages that a thread takes at once; fewer than two such shares are not worth a second thread.
const SHARE: usize = 32;
/// More threads than this gain nothing over the sequential chain.
const MAX_THREADS: usize = 16;

/// SHA-384 of each page of `data`, in order. A last incomplete page is left out: callers check the
/// length first.
#[must_use]
pub fn page_digests(data: &[u8]) -> Vec<Sha384Digest> {
    page_digests_on(data, cores())
}

/// As [`page_digests`], on at most a given number of threads.
#[must_use]
pub fn page_digests_on(data: &[u8], threads: usize) -> Vec<Sha384Digest> {
    let copy = |offset: usize, pages: &mut [u8]| {
        let bytes = data.get(offset..).unwrap_or_default();
        for (page, bytes) in pages.chunks_exact_mut(PAGE).zip(bytes.chunks_exact(PAGE)) {
            page.copy_from_slice(bytes);
        }
        Ok::<(), Infallible>(())
    };
    match page_digests_from(data.len() / PAGE, threads, copy) {
        Ok(digests) => digests,
        Err(never) => match never {},
    }
}

/// SHA-384 of each of `count` pages that `read` yields by their byte offset, on at most a given
/// number of threads. Only a small buffer per thread is held: giving out fresh memory for a whole
/// image takes the kernel as long as hashing it.
pub(super) fn page_digests_from<E: Send>(
    count: usize,
    threads: usize,
    read: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
) -> Result<Vec<Sha384Digest>, E> {
    let mut digests = vec![[0; SHA384_LEN]; count];
    let helpers = threads
        .min(MAX_THREADS)
        .min(count / SHARE)
        .saturating_sub(1);
    let jobs = Mutex::new(digests.chunks_mut(SHARE).zip((0..).step_by(SHARE * PAGE)));
    let work = || {
        let mut buffer = vec![0; SHARE.min(count) * PAGE];
        // The lock is held for taking a share only, and nothing in there can panic.
        while let Some((out, offset)) = jobs.lock().ok().and_then(|mut jobs| jobs.next()) {
            let pages = buffer.get_mut(..out.len() * PAGE).unwrap_or_default();
            read(offset, pages)?;
            digest_into(out, pages);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // A thread that can't be had is not needed: this one does what is left.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (0..helpers).map_while(spawn).collect();
        let own = work();
        threads
            .into_iter()
            .fold(own, |result, thread| match thread.join() {
                Ok(other) => result.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })?;
    Ok(digests)
}

/// As many threads as the process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn digest_into(out: &mut [Sha384Digest], data: &[u8]) {
    let mut uniform: Option<(u8, Sha384Digest)> = None;
    let mut waiting: Vec<(&mut Sha384Digest, &[u8; PAGE])> = Vec::with_capacity(4);
    let pages = data
        .chunks_exact(PAGE)
        .filter_map(|page| page.first_chunk::<PAGE>());
    for (out, page) in out.iter_mut().zip(pages) {
        match (repeated_byte(page), uniform) {
            (Some(byte), Some((known, digest))) if byte == known => *out = digest,
            (Some(byte), _) => {
                *out = sha384(page);
                uniform = Some((byte, *out));
            }
            (None, _) => {
                waiting.push((out, page));
                if waiting.len() == 4 {
                    digest_waiting(&mut waiting);
                }
            }
        }
    }
    digest_waiting(&mut waiting);
}

/// Hashes up to four pages; empty lanes repeat the last one.
fn digest_waiting(waiting: &mut Vec<(&mut Sha384Digest, &[u8; PAGE])>) {
    let Some((_, last)) = waiting.last() else {
        return;
    };
    let lanes = std::array::from_fn(|lane| waiting.get(lane).map_or(*last, |(_, page)| *page));
    for ((out, _), digest) in waiting.drain(..).zip(sha384x4(lanes)) {
        *out = digest;
    }
}

/// The byte that the whole page repeats, if it does.
fn repeated_byte(page: &[u8]) -> Option<u8> {
    let (first, rest) = page.split_first()?;
    let (_, but_last) = page.split_last()?;
    (rest == but_last).then_some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn threads_and_uniform_pages_change_nothing(
            bytes in proptest::collection::vec((0u8..4, any::<bool>()), 0..100),
            threads in 0usize..6,
        ) {
            let mut data = Vec::new();
            for (i, (byte, uniform)) in bytes.iter().enumerate() {
                let start = data.len();
                data.resize(start + PAGE, *byte);
                if !uniform {
                    data[start + (i * 997) % PAGE] ^= 0x80;
                }
            }
            let expected: Vec<_> = data.chunks_exact(PAGE).map(sha384).collect();
            prop_assert_eq!(page_digests_on(&data, threads), expected.clone());
            prop_assert_eq!(page_digests(&data), expected);
            // Each thread meets the end that can't be read, or leaves it to another.
            let short = |offset: usize, _: &mut [u8]| if offset > 0 { Err(offset) } else { Ok(()) };
            let failed = page_digests_from(bytes.len(), threads, short).is_err();
            prop_assert_eq!(failed, bytes.len() > SHARE);
        }
    }
}
