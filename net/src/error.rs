//! What can go wrong, in an operator's words.

use std::{io, path::PathBuf};

/// Why the network cannot be as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not `ADDRESS/LENGTH`.
    #[error("{text:?} is not a network: expected ADDRESS/LENGTH, as in {example}")]
    NotANetwork {
        /// What was given.
        text: String,
        /// What would do.
        example: &'static str,
    },
    /// A length out of its range.
    #[error("{network}: the length must be between {min} and {max}")]
    PrefixLength {
        /// The network.
        network: String,
        /// Shortest.
        min: u8,
        /// Longest.
        max: u8,
    },
    /// A prefix with too little room.
    #[error(
        "{network} is too long a prefix: each guest gets a /124, and one longer than /{max} has room \
         for fewer than 4096"
    )]
    PrefixTooLong {
        /// The network.
        network: String,
        /// Longest.
        max: u8,
    },
    /// Another agent runs in this network namespace.
    #[error(
        "another agent is using this network namespace (process {pid}): taps and firewall can have \
         one owner only, whatever the directories are"
    )]
    AnotherAgent {
        /// Its process id; 0 when it is in a pid namespace that this one does not see.
        pid: i32,
    },
    /// Bits set beyond the length.
    #[error("{network} has bits set beyond its length: the network is {meant}")]
    HostBits {
        /// What was given.
        network: String,
        /// The network that holds it.
        meant: String,
    },
    /// An address that guests cannot have.
    #[error("{network} is {kind}: guests cannot have such addresses")]
    NotForGuests {
        /// The network.
        network: String,
        /// What it is.
        kind: &'static str,
    },
    /// An instance id that gives no address.
    #[error("instance id {id:?} does not begin with 11 hexadecimal digits: it gives no address")]
    NotHex {
        /// The id.
        id: String,
    },
    /// Every candidate is taken.
    #[error("no free network for instance {id}: {tried} candidates are taken")]
    NoFreeNetwork {
        /// The id.
        id: String,
        /// How many were tried.
        tried: u32,
    },
    /// Not a port rule.
    #[error(
        "{text:?} is not a port rule: {why}; expected PORT, PORT/tcp, PORT/udp or FIRST-LAST/tcp"
    )]
    NotAPort {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that nftables or the kernel would not take.
    #[error("{name:?} cannot be the name of {what}: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Of what.
        what: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// More ranges of ports than one guest may have.
    #[error("{count} ranges of ports: a guest may have at most {max}")]
    TooManyRanges {
        /// How many.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// An interface that must be there is not.
    #[error("interface {name} does not exist")]
    NoSuchInterface {
        /// Its name.
        name: String,
    },
    /// A tap that somebody else holds.
    #[error("{tap} exists already, and another process holds it")]
    TapInUse {
        /// Its name.
        tap: String,
    },
    /// The kernel refused a request.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked of it.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A setting under `/proc/sys` that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// `nft` did not start.
    #[error("cannot run {program}: {source}")]
    NftMissing {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// `nft` refused.
    #[error("nft refused to {what}: {message}")]
    Nft {
        /// What it was asked.
        what: &'static str,
        /// The first line that it said.
        message: String,
    },
    /// An answer that cannot be understood.
    #[error("unexpected answer to {what}: {why}")]
    Answer {
        /// The question.
        what: &'static str,
        /// What is odd.
        why: String,
    },
    /// A task ended without an answer.
    #[error("a network task ended early: {0}")]
    Task(String),
}

impl Error {
    /// Whether the kernel knows no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
