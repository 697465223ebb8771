//! What else on the host has a hand in guests' network.

use super::{super::Check, super::Status::*, check};

/// Firewalls that drop what guests need; an error where that cannot be told.
#[must_use]
pub fn firewalls(found: &Result<Vec<net::Obstacle>, String>) -> Check {
    const ID: &str = "other-firewalls";
    match found.as_deref() {
        Err(why) => check(
            ID,
            Degraded,
            format!(
                "cannot be looked at: {}",
                why.chars().take(200).collect::<String>()
            ),
            "Whether other firewalls drop guests' packets is unknown.",
            Some("Run the doctor as root; nft list ruleset"),
        ),
        Result::Ok([]) => check(
            ID,
            Ok,
            "none in the way",
            "No table of others in nftables drops what guests need.",
            None,
        ),
        Result::Ok(obstacles) => {
            let list: Vec<_> = obstacles.iter().map(ToString::to_string).collect();
            check(
                ID,
                Degraded,
                list.join("; "),
                "What one table drops no other lets through: such packets do not pass.",
                Some(
                    "Let interfaces vmtap* through there; docs/network.md, \"Beside others\", says \
                     how for Docker, ufw and firewalld",
                ),
            )
        }
    }
}

/// Who has the network of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process of the agent that has it.
    pub holder: Result<Option<i32>, String>,
    /// The process that answers at the configured socket.
    pub own: Option<i32>,
}

/// One agent for one network.
#[must_use]
pub fn second_agent(owner: &Owner) -> Check {
    const ID: &str = "second-agent";
    match (&owner.holder, owner.own) {
        (Err(why), _) => check(
            ID,
            Degraded,
            format!("cannot be looked at: {why}"),
            "Whether another agent has the network is unknown.",
            Some("Run the doctor as root"),
        ),
        (Result::Ok(None), _) => check(
            ID,
            Ok,
            "no agent runs in this network namespace",
            "One can be started.",
            None,
        ),
        (Result::Ok(Some(holder)), Some(own)) if *holder == own => check(
            ID,
            Ok,
            format!("none beside this one, process {own}"),
            "Taps and firewall have one owner.",
            None,
        ),
        (Result::Ok(Some(holder)), _) => check(
            ID,
            Degraded,
            format!("process {holder} has the network, and is not the agent of this configuration"),
            "An agent of this configuration refuses to start: two would remove each other's guests.",
            Some(&format!(
                "Stop it (ps -p {holder} -o args), or use its configuration"
            )),
        ),
    }
}
