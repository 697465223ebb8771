//! IPv6 address plan, taps, routes, NDP proxying and the nftables firewall of the host.
//!
//! What is decided is plain data ([`AddressPlan`], [`GuestSpec`], the rule set); one small part carries it
//! out.

mod address;
mod error;
mod guest;
mod host;
mod ipv4;
mod port;

pub use address::{AddressPlan, GuestNet, Prefix};
pub use error::Error;
pub use guest::{GuestIndex, GuestSpec, Mac, TapName};
pub use host::{Change, HostNet, HostSpec, Repairs, Watch};
pub use ipv4::{GuestIpv4, Ipv4Pool};
pub use port::{PortRule, Proto};
