//! What keeps a QEMU that its guest took over to its descriptors.
//!
//! The launcher shuts these in one after the other, before it becomes QEMU:
//!
//! | lock | what it takes away | module |
//! |---|---|---|
//! | private root | all files but QEMU's own program and data, `/proc`, other programs' sockets | [`root`] |
//! | PID namespace | seeing and signalling other processes | [`super::launch`] |
//! | Landlock | writing, making and removing files, TCP, abstract sockets and signals outside | [`landlock`] |
//! | seccomp | what QEMU's own `-sandbox` leaves open | [`seccomp`] |
//!
//! Each is put on unless the host refuses it, which [`super::probe`] finds out once, by trying.
//! What is refused is logged and told by the doctor. A lock that the probe could put on
//! and a launch cannot is a failed launch.

pub mod landlock;
pub mod privileges;
pub mod root;
pub mod seccomp;

use serde::Serialize;

/// One of the confinements that a host may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lock {
    /// A mount namespace with nothing in it but what QEMU reads.
    PrivateRoot,
    /// A PID namespace of its own.
    PidNamespace,
    /// A Landlock domain, as strict as the kernel knows.
    Landlock,
    /// A system call filter of the agent's.
    Seccomp,
}

impl Lock {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::PrivateRoot,
        Self::PidNamespace,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// As the launcher's option and the doctor name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PrivateRoot => "private-root",
            Self::PidNamespace => "pid-namespace",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

/// A lock that this host does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which.
    pub lock: Lock,
    /// What the kernel said.
    pub why: String,
}

/// Which locks are put on: all but those that were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// What this host refuses.
    pub refused: Vec<Refused>,
}

impl Confinement {
    /// Whether the lock is put on.
    #[must_use]
    pub fn has(&self, lock: Lock) -> bool {
        self.refused.iter().all(|r| r.lock != lock)
    }
}
