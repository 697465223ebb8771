//! Making the host agree with the records: what no record owns is found, told
//! and removed ([`sweep`]); what the records need of the network is kept there
//! ([`network`]).
//!
//! Invariant: only what is recognisably this node's is removed: by its marker, by
//! a name that only the agent gives, in a place that only the agent uses.
//! Everything else is reported and left alone.

pub mod network;
pub mod sweep;
