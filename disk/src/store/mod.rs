//! The store of base images: content-addressed, read-only, crash-safe.
//!
//! ```text
//! <root>/lock               held by the one process that uses the store
//! <root>/sha256/<hex>.img   images, mode 0400, named for their content
//! <root>/sha512/<hex>       symbolic links to images that were asked for by SHA-512
//! <root>/unpacked/<hex>     and to those that came in a compressed file with this digest
//! <root>/tmp/<key>.part     an unfinished download, and
//! <root>/tmp/<key>.json     how far it came
//! ```
//!
//! Invariants: a file in `sha256/` is complete, was inspected, had the digest in its name when
//! it was linked there, and is never written again. Names, tags and origins of images are not
//! the store's business: the agent's database maps them to digests.

mod blocking;
mod clients;
mod flight;
mod hashing;
mod http;
mod image;
mod images;
mod import;
mod ledger;
mod options;
mod partial;
mod plan;
mod pull;
mod reach;
mod retries;
mod sweep;
mod transfer;
mod tuning;
mod unpack;
mod validator;

pub use image::{Progress, StoredImage};
pub use images::ImageStore;
pub use import::Import;
pub use options::StoreOptions;
pub use pull::{Expected, PullRequest};
pub use sweep::SweepReport;
pub use tuning::Tuning;

/// The record of an unfinished download, for the fuzz target: whatever a file says, a download
/// that takes it for true asks for each missing byte once and ends.
///
/// # Panics
/// When that is not so.
#[cfg(feature = "testing")]
pub fn fuzz_partial_record(json: &[u8]) {
    let Some(record) = partial::Record::parse(json) else {
        return;
    };
    let mut plan = record.plan;
    assert!(plan.water_mark() <= plan.bytes_done() && plan.bytes_done() <= plan.reach());
    assert!(plan.reach() <= plan.total());
    while let Some(span) = plan.next(&[]) {
        assert!(span.start < span.end && span.end <= plan.total());
        let done = plan.bytes_done();
        plan.advance(span.index, span.end - span.start);
        assert_eq!(plan.bytes_done() - done, span.end - span.start);
    }
    assert!(plan.is_complete() && plan.water_mark() == plan.total());
}
