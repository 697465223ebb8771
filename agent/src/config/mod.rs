//! The agent's configuration: one schema for the TOML file, the environment and flags.
//!
//! Later sources win: built-in defaults, the file, `CRN_AGENT_…` variables
//! (`CRN_AGENT_NETWORK__PREFIX` is `network.prefix`), then `--set key=value`.
//! Unknown keys and impossible values are refused, with the key and, for the
//! file, its line. Every setting is described in docs/operations.md.

mod load;
mod schema;

pub use load::{ConfigError, Sources, load};
pub use schema::*;

#[cfg(test)]
mod tests;
