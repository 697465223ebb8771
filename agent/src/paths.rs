//! Where the node's files are: directories, and the names that the agent gives.

use std::{hash::Hasher, path::PathBuf};

use crate::{config::Config, ids::InstanceId};

/// Where the node's files are.
#[derive(Debug, Clone)]
pub struct Paths {
    state: PathBuf,
    run: PathBuf,
}

impl Paths {
    /// Below the configured directories.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            state: config.state_dir.clone(),
            run: config.run_dir.clone(),
        }
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state.join("agent.db")
    }

    /// Room for deletions on a full disk.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.state.join("reserve")
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Where all instances' disks are.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// Where all volumes are.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// Where all instances' sockets are.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.run.join("vm")
    }

    /// An instance's disks and logs.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances().join(id.as_str())
    }

    /// A file among an instance's disks and logs.
    #[must_use]
    pub fn instance_file(&self, id: &InstanceId, file: InstanceFile) -> PathBuf {
        self.instance(id).join(file.name())
    }

    /// An instance's sockets.
    #[must_use]
    pub fn run(&self, id: &InstanceId) -> PathBuf {
        self.runs().join(id.short())
    }

    /// A word that tells this node's processes from those of another agent on
    /// the same host: it follows from the state directory.
    #[must_use]
    pub fn node_mark(&self) -> String {
        // Not a secret, but it must not change: it is on the command line of every
        // QEMU that runs, and the agent knows its own by it.
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(self.state.as_os_str().as_encoded_bytes());
        format!("{:016x}", hasher.finish())
    }
}

/// The files that an instance has besides its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceFile {
    /// The root overlay.
    Root,
    /// The cloud-init seed.
    Seed,
    /// UEFI variables.
    UefiVars,
    /// What the guest wrote to its serial console.
    ConsoleLog,
    /// What QEMU had to say.
    QemuLog,
}

impl InstanceFile {
    /// The names of all of them.
    #[must_use]
    pub fn names() -> [&'static str; 5] {
        [
            Self::Root,
            Self::Seed,
            Self::UefiVars,
            Self::ConsoleLog,
            Self::QemuLog,
        ]
        .map(Self::name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root.qcow2",
            Self::Seed => "seed.iso",
            Self::UefiVars => "uefi-vars.fd",
            Self::ConsoleLog => "console.log",
            Self::QemuLog => "qemu.log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Running QEMUs carry the mark: an agent that computes another one leaves them
    /// to themselves and starts second ones on their disks.
    #[test]
    fn the_mark_of_a_node_never_changes() {
        let table = [
            ("/var/lib/crn-agent", "90b3591bb69edae5"),
            ("/srv/nodes/b", "d66904c2690ec198"),
        ];
        for (state_dir, mark) in table {
            let config = Config {
                state_dir: state_dir.into(),
                ..Config::default()
            };
            assert_eq!(Paths::new(&config).node_mark(), mark);
        }
    }
}
