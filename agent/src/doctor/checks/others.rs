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

/// What the agent of this configuration warns of, as its `status` does: the process that answers
/// at its socket, and its sentences, or why it does not say.
#[must_use]
pub fn agent(process: Option<i32>, warnings: &Result<Vec<String>, String>) -> Check {
    const ID: &str = "agent";
    match (process, warnings.as_deref()) {
        (None, _) => check(
            ID,
            Ok,
            "does not run",
            "What only a running agent knows, such as its instances, is not looked at.",
            None,
        ),
        (Some(process), Err(why)) => check(
            ID,
            Degraded,
            format!(
                "process {process} does not say how it is: {}",
                why.chars().take(200).collect::<String>()
            ),
            "Whether it has anything to warn of is unknown.",
            Some("Look at its log; a restart of the agent is always safe"),
        ),
        (Some(process), Result::Ok([])) => check(
            ID,
            Ok,
            format!("process {process}, without warnings"),
            "It and its instances are as they should be.",
            None,
        ),
        (Some(_), Result::Ok(warnings)) => check(
            ID,
            Degraded,
            warnings.join("; "),
            "Guests may not be reached, or not all is as it was asked for.",
            Some("crn-agent status; docs/operations.md, \"Recover\""),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_warnings_are_the_doctors() {
        let said = |warnings: &[&str]| Result::Ok(warnings.iter().map(|w| (*w).into()).collect());
        for (process, warnings, status, found) in [
            (None, Err("refused".into()), Ok, "does not run"),
            (Some(7), said(&[]), Ok, "process 7, without warnings"),
            (Some(7), said(&["a", "b"]), Degraded, "a; b"),
            (
                Some(7),
                Err("too late".into()),
                Degraded,
                "process 7 does not say how it is: too late",
            ),
        ] {
            let check = agent(process, &warnings);
            assert_eq!((check.status, check.found.as_str()), (status, found));
        }
    }
}
