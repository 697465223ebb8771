//! IPv6 address plan, taps, routes, NDP proxying and the nftables firewall of the host.
//!
//! Decisions are plain data: [`AddressPlan`], [`GuestSpec`], the ruleset, and the difference
//! between what is and what should be. One small part, [`HostNet`], carries them out; it needs
//! root, and talks to the kernel by netlink, without other programs but `nft` for writing and
//! listing whole tables.

mod address;
mod claim;
mod elements;
mod error;
mod guest;
mod host;
mod index;
mod ipv4;
mod netlink;
mod nft_program;
mod obstacle;
mod offloads;
mod port;
mod problem;
mod repairs;
mod ruleset;
mod spec;
mod state;
mod sysctl;
mod tap;
mod uplinks;
mod wanted;
mod watch;

pub use address::{AddressPlan, GuestNet, Prefix};
pub use claim::Claim;
pub use error::Error;
pub use guest::{GuestSpec, Mac, TapName};
pub use host::HostNet;
pub use index::GuestIndex;
pub use ipnet::IpNet;
pub use ipv4::{GuestIpv4, Ipv4Pool};
pub use obstacle::{Obstacle, Traffic};
pub use offloads::Offloads;
pub use port::{PortRule, Proto};
pub use problem::Problem;
pub use repairs::Repairs;
pub use spec::HostSpec;
pub use watch::{Change, Watch};

/// What tests, benchmarks and fuzz targets need besides.
#[cfg(feature = "testing")]
pub mod testing {
    use std::os::fd::OwnedFd;

    use crate::{Error, TapName};

    /// Makes a tap that lives as long as the returned descriptor, or a copy of it.
    ///
    /// # Errors
    /// When there is one of this name, or the kernel refuses.
    pub fn create_tap(tap: &TapName) -> Result<OwnedFd, Error> {
        crate::tap::create(tap)
    }

    /// Whether a listing of nft that can be read is still the same when it is read once more; `None`
    /// of one that cannot.
    #[must_use]
    pub fn listing_is_stable(json: &[u8]) -> Option<bool> {
        crate::nft_program::listing_is_stable(json)
    }
}
