//! What a QEMU that its guest took over is shut in by.

use super::{super::Check, super::Status::*, check};
use crate::qemu::confine::{Confinement, Lock};

/// The confinements that the host grants.
#[must_use]
pub fn confinement(facts: &Confinement) -> Check {
    let id = "confinement";
    if facts.refused.is_empty() {
        return check(
            id,
            Ok,
            "private root, PID namespace, Landlock, seccomp",
            "A guest that takes its QEMU over finds no files, processes or sockets of others.",
            None,
        );
    }
    let refused: Vec<_> = facts
        .refused
        .iter()
        .map(|r| format!("{} ({})", r.lock.word(), r.why))
        .collect();
    let only_landlock = facts.refused.iter().all(|r| r.lock == Lock::Landlock);
    check(
        id,
        Degraded,
        format!("the host refuses {}", refused.join("; ")),
        "Guests run, and who takes over the QEMU of one reaches more of the host than he should.",
        Some(if only_landlock {
            "Add landlock to lsm= on the kernel's command line (Debian 12's kernel has it there), \
             then reboot."
        } else {
            "Run the agent as root outside of a container, or allow its container to mount, and \
             to make namespaces."
        }),
    )
}
