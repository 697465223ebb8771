//! Firewalls of others that keep guests' packets from passing.
//!
//! In nftables a packet passes when every base chain that it meets lets it pass: no accept of one
//! table overrides the drop of another. So each table of others is followed, rule by rule, with a
//! few packets that every guest depends on. What cannot be told from a listing (matches of iptables
//! extensions, counters, the time of day) counts as what it most often is, and never as a drop.

mod follow;
mod packet;
mod tables;
mod value;

use std::fmt;

pub(crate) use self::packet::Sample;
use self::{
    follow::{Outcome, follow},
    tables::Tables,
};
use crate::error::Error;

/// What of a guest's traffic something stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// New connections from outside to guests.
    ToGuests,
    /// New connections of guests to the outside.
    FromGuests,
    /// Answers, to and from guests.
    Answers,
    /// Neighbour discovery between guests and the host.
    NeighbourDiscovery,
    /// IPv4 of guests, behind NAT.
    Ipv4,
    /// The host's own connections to guests, and their answers.
    Host,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToGuests => "new connections to guests",
            Self::FromGuests => "new connections of guests",
            Self::Answers => "answers to and from guests",
            Self::NeighbourDiscovery => "neighbour discovery with guests",
            Self::Ipv4 => "guests' IPv4",
            Self::Host => "the host's connections to guests",
        })
    }
}

/// A base chain of another table that drops what the agent's tables let through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// The table's family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// The hook that it is at.
    pub hook: String,
    /// What it drops.
    pub traffic: Traffic,
    /// Whether a rule drops it; else the chain's policy does.
    pub by_rule: bool,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            chain,
            hook,
            traffic,
            by_rule,
        } = self;
        let by = if *by_rule { "by a rule" } else { "by policy" };
        write!(
            f,
            "chain {chain} (hook {hook}) of table {family} {table} drops {traffic} {by}"
        )
    }
}

/// What stands in the way, by nft's JSON listing of others' tables. Each chain is named once for
/// each kind of traffic.
pub(crate) fn find(listing: &[u8], sample: &Sample) -> Result<Vec<Obstacle>, Error> {
    let tables = Tables::parse(listing)?;
    let packets = packet::all(sample);
    let mut found: Vec<Obstacle> = Vec::new();
    for chain in tables.base_chains() {
        for packet in packets.iter().filter(|p| p.meets(chain)) {
            let Outcome::Dropped { by_rule } = follow(&tables, chain, packet) else {
                continue;
            };
            let obstacle = Obstacle {
                family: chain.table.family.clone(),
                table: chain.table.name.clone(),
                chain: chain.name.clone(),
                hook: chain.hook.clone(),
                traffic: packet.traffic,
                by_rule,
            };
            let same = |o: &&mut Obstacle| {
                (&o.family, &o.table, &o.chain, o.traffic)
                    == (
                        &obstacle.family,
                        &obstacle.table,
                        &obstacle.chain,
                        obstacle.traffic,
                    )
            };
            match found.iter_mut().find(same) {
                Some(known) => known.by_rule |= by_rule,
                None => found.push(obstacle),
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
