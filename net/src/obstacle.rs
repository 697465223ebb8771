//! Firewalls of others that keep guests' packets from passing.

use std::fmt;

/// A chain of another table that drops what the agent's lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The table's family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain, at the hook for forwarded packets, whose policy is to drop.
    pub chain: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            chain,
        } = self;
        write!(
            f,
            "chain {chain} of table {family} {table} drops forwarded packets by policy"
        )
    }
}
