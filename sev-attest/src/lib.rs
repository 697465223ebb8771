//! Verification of AMD SEV-SNP attestation reports and computation of launch digests.
//!
//! What others build on:
//!
//! | module | gives |
//! |---|---|
//! | [`formats`] | reports and certificates out of the forms that tools and clouds hand out |
//! | [`report`], [`tcb`], [`product`] | what a report says: its fields, TCBs, products |
//! | [`cert`], [`chain`], [`roots`] | certificates and revocation lists, chains of them, AMD's roots |
//! | [`assemble`] | the chain for a report, out of a heap of certificates |
//! | [`source`] | the interface by which a leaf certificate is asked for |
//! | [`policy`], [`advisories`] | what is expected of a report; AMD's bulletins |
//! | [`appraise`] | findings, the verdict, and whether a secret may be sent |
//! | [`show`] | what reports and certificates say, as text and JSON |
//! | [`channel`], [`channel::v1`], [`channel::v2`] | messages of the attested channel |
//! | `channel::ethereum` | signatures of owners' accounts (feature `channel`) |
//! | `endpoint`, `endpoint::serve`, `endpoint::unlock` | the channel's two ends: the guest's (feature `serve`, Linux), the owner's (feature `unlock`) |
//! | [`measure`] | launch digests and ID blocks |
//! | `fetch` | certificates from AMD's service, with a cache (feature `fetch`) |
//! | `guest` | reports and keys from inside a guest (feature `guest`, Linux) |
//! | [`hex_bytes`], [`time`] | byte strings and times as others write them |

pub mod advisories;
pub mod appraise;
pub mod assemble;
pub mod cert;
pub mod chain;
pub mod channel;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "see `testing`")
)]
mod crypto;
#[cfg(any(feature = "serve", feature = "unlock"))]
pub mod endpoint;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod formats;
#[cfg(all(feature = "guest", target_os = "linux"))]
pub mod guest;
pub mod hex_bytes;
pub mod measure;
pub mod policy;
pub mod product;
pub mod report;
pub mod roots;
pub mod show;
pub mod source;
pub mod tcb;
pub mod time;

/// Inner parts, for tests, fuzz targets and benchmarks. No part of the interface.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub use crate::assemble::has_fitting_leaf;
    pub use crate::crypto::P384Key;
    /// PEM.
    pub mod pem {
        pub use crate::formats::pem::*;
    }
    /// Certificate tables of extended reports.
    pub mod table {
        pub use crate::formats::table::*;
    }
}
