//! Which confinements this host grants: found out by trying them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::confine::{Confinement, Lock, Refused};
use crate::qemu::{launch, launcher::LAUNCH_VM};

/// Starts the launcher without a program: once with all locks and, if that fails, once
/// with each alone. `agent` is the agent's program, `uid` the user that it becomes.
/// Blocking, some milliseconds.
#[must_use]
pub fn probe(agent: &Path, uid: u32) -> Confinement {
    if attempt(agent, uid, &Lock::ALL).is_ok() {
        return Confinement::default();
    }
    let refused = Lock::ALL.into_iter().filter_map(|lock| {
        let why = attempt(agent, uid, &[lock]).err()?;
        Some(Refused { lock, why })
    });
    Confinement {
        refused: refused.collect(),
    }
}

fn attempt(agent: &Path, uid: u32, locks: &[Lock]) -> Result<(), String> {
    let mut command = Command::new(agent);
    command.arg(LAUNCH_VM).arg("--check");
    command.arg("--uid").arg(uid.to_string());
    for lock in Lock::ALL.iter().filter(|lock| !locks.contains(lock)) {
        command.arg("--without").arg(lock.word());
    }
    command.arg("--").arg(agent);
    command.stdin(Stdio::null());
    let output = if locks.contains(&Lock::PidNamespace) {
        launch::in_new_pid_namespace(|| command.output())
    } else {
        command.output()
    };
    let output = output.map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("the launcher ended without a word");
    Err(last.trim_start_matches("crn-agent launch-vm: ").to_owned())
}
