//! Who may look into the state directory.

use std::io;

use super::{super::Check, super::Status::*, check};
use crate::host::directory::DirectoryFacts;

/// The state directory.
#[must_use]
pub fn state(facts: &io::Result<DirectoryFacts>) -> Check {
    let id = "state-dir";
    let facts = match facts {
        Result::Ok(facts) => facts,
        Err(e) => {
            let meaning = "Whether others can read users' secrets is not known.";
            return check(id, Degraded, e.to_string(), meaning, None);
        }
    };
    let path = facts.path.display();
    if let Some(above) = &facts.open_above {
        let remedy = format!("chmod o-w {}", above.display());
        return check(
            id,
            Degraded,
            format!("{} can be written by everybody", above.display()),
            "Every local user can put a directory of his own in the place of the agent's.",
            Some(&remedy),
        );
    }
    match facts.owner {
        None => check(
            id,
            Ok,
            format!("{path} is not there yet"),
            "The agent makes it, for itself alone.",
            None,
        ),
        Some((uid, _)) if uid != 0 && uid != rustix::process::geteuid().as_raw() => {
            let remedy = format!("chown root: {path}, or set state_dir to another directory");
            check(
                id,
                Missing,
                format!("{path} belongs to user {uid}"),
                "The agent does not start: this user could read and replace what is in it.",
                Some(&remedy),
            )
        }
        Some((_, mode)) if mode & 0o077 != 0 => {
            let remedy = format!("chmod 0700 {path}; the agent does so when it starts");
            check(
                id,
                Degraded,
                format!("{path} is open to others: mode {mode:04o}"),
                "Users' secrets are in it: cloud-init user data, disks, images.",
                Some(&remedy),
            )
        }
        Some((_, mode)) => check(
            id,
            Ok,
            format!("{path}: mode {mode:04o}"),
            "Nobody else can read users' secrets.",
            None,
        ),
    }
}
