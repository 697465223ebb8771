//! Who asks.

use crn_api_types::{Address, Owner};

use crate::db::Scope;

/// Who asks for an operation. Whoever speaks for a caller (a socket's peer, a
/// signature) is found out by the face that takes the request; what the caller may do
/// is [`super::permission`]'s to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The node's operator: whoever can open the agent's socket.
    Operator {
        /// The agent may read files of the host for this caller, with its own rights:
        /// for root and the agent's own user.
        host_files: bool,
    },
    /// Who looks at the status page.
    Observer,
    /// The owner of a wallet.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "comes with the network's protocol")
    )]
    Tenant(Address),
    /// Anybody else.
    Nobody,
}

impl Caller {
    /// Whose the records are that this caller creates, if it may create any.
    pub(super) fn owner(&self) -> Option<Owner> {
        match self {
            Self::Operator { .. } => Some(Owner::Operator),
            Self::Tenant(address) => Some(Owner::Tenant(address.clone())),
            Self::Observer | Self::Nobody => None,
        }
    }

    /// Among which records this caller's words name one.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Operator { .. } | Self::Observer => Scope::Node,
            Self::Tenant(address) => Scope::Of(Owner::Tenant(address.clone())),
            Self::Nobody => Scope::None,
        }
    }
}
