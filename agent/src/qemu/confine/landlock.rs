//! Landlock: a second lock on the file system, and one on TCP, abstract sockets and
//! signals, where the kernel has it.

use std::{io, path::PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};

/// The newest rights that are asked for (Linux 6.15); an older kernel gives what it has.
const NEWEST: ABI = ABI::V7;

/// Gives up all rights to files but reading and executing `readable`, and reading and
/// writing `devices`. What is open already stays open.
///
/// # Errors
/// When the kernel has no Landlock, or it is switched off.
pub fn restrict(readable: &[PathBuf], devices: &[PathBuf]) -> io::Result<()> {
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|r| r.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|r| r.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|r| r.add_rules(path_beneath_rules(readable, AccessFs::from_read(NEWEST))))
        .and_then(|r| r.add_rules(path_beneath_rules(devices, device)))
        .and_then(|r| r.restrict_self())
        .map_err(|e| io::Error::other(format!("Landlock: {e}")))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::other("Landlock: this kernel does not have it"));
    }
    Ok(())
}
