//! IPv6 address plan, taps, routes, NDP proxying and the nftables firewall of the host.
//!
//! Decisions are plain data: [`AddressPlan`], [`GuestSpec`], the ruleset, and the difference
//! between what is and what should be. One small part, [`HostNet`], carries them out; it needs
//! root, and talks to the kernel by netlink, without other programs but `nft` for writing and
//! listing whole tables.

mod address;
mod elements;
mod error;
mod guest;
mod host;
mod index;
mod ipv4;
mod netlink;
mod nft_program;
mod obstacle;
mod port;
mod repairs;
mod ruleset;
mod spec;
mod state;
mod sysctl;
mod tap;
mod wanted;
mod watch;

pub use address::{AddressPlan, GuestNet, Prefix};
pub use error::Error;
pub use guest::{GuestSpec, Mac, TapName};
pub use host::HostNet;
pub use index::GuestIndex;
pub use ipv4::{GuestIpv4, Ipv4Pool};
pub use obstacle::Obstacle;
pub use port::{PortRule, Proto};
pub use repairs::Repairs;
pub use spec::HostSpec;
pub use watch::{Change, Watch};

/// What tests, benchmarks and fuzz targets need besides.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::{nft_program::listing_is_stable, tap::create as create_tap};
}
