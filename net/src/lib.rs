//! IPv6 address plan, taps, routes, NDP proxying and the nftables firewall of the host.
//!
//! What is decided is plain data: [`AddressPlan`], [`GuestSpec`], the rule set, and the difference between
//! what is and what should be. One small part, [`HostNet`], carries it out; it needs root, and talks to the
//! kernel by netlink, without other programs but `nft` for writing the whole table.

mod address;
mod elements;
mod error;
mod guest;
mod host;
mod ipv4;
mod netlink;
mod nft;
mod port;
mod ruleset;
mod spec;
mod sysctl;
mod tap;
mod wanted;
mod watch;

pub use address::{AddressPlan, GuestNet, Prefix};
pub use error::Error;
pub use guest::{GuestIndex, GuestSpec, Mac, TapName};
pub use host::HostNet;
pub use ipv4::{GuestIpv4, Ipv4Pool};
pub use port::{PortRule, Proto};
pub use spec::{HostSpec, Obstacle, Repairs};
pub use watch::{Change, Watch};

#[doc(hidden)] // for fuzzing
pub use nft::listing_is_stable;
#[doc(hidden)] // for the guests of tests and benchmarks
pub use tap::create as create_tap;
