//! What every instance's task shares: the database, the network, the image store,
//! and where things are.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    capacity::Capacity,
    config::Config,
    db::{Db, InstanceRow},
    events::Events,
    ids::InstanceId,
    images::Catalogue,
    instance::Handle,
    qemu::plan::{Accelerator, Boot, DiskFormat, Launch, VolumeDisk},
};

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

    /// A volume's file.
    #[must_use]
    pub fn volume(&self, id: &str) -> PathBuf {
        self.volumes().join(format!("{id}.qcow2"))
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
        // FNV-1a: a name, not a secret.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.state.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{hash:016x}")
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

/// The node.
pub struct Node {
    /// The configuration.
    pub config: Config,
    /// Where things are.
    pub paths: Paths,
    /// The database.
    pub db: Db,
    /// The host's network.
    pub net: net::HostNet,
    /// The node's IPv6 prefix and how addresses follow from ids.
    pub addresses: net::AddressPlan,
    /// Base images.
    pub store: Arc<disk::ImageStore>,
    /// Names of images.
    pub catalogue: Catalogue,
    /// What happens.
    pub events: Events,
    /// What the node gives away.
    pub capacity: Capacity,
    /// What guests run on.
    pub accel: Accelerator,
    /// Why.
    pub accel_reason: String,
    /// cgroup limits, where the host has them.
    pub cgroups: crate::cgroup::Cgroups,
    /// Held to read while a guest comes to the network or goes, to write while the
    /// network is compared with the records.
    pub(crate) net_gate: tokio::sync::RwLock<()>,
    /// Held while ports are read from a record to be changed, or to be opened with a
    /// new tap. Taken before `net_gate`.
    pub(crate) ports_gate: tokio::sync::Mutex<()>,
    /// The instances' tasks.
    pub(crate) tasks: Mutex<HashMap<InstanceId, Handle>>,
}

impl Node {
    /// The handle of an instance's task.
    #[must_use]
    pub fn task(&self, id: &InstanceId) -> Option<Handle> {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn forget_task(&self, id: &InstanceId) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// What the network makes of an instance.
    #[must_use]
    pub fn guest(&self, row: &InstanceRow) -> net::GuestSpec {
        net::GuestSpec::new(
            net::GuestIndex(row.slot),
            row.id.as_str(),
            row.network,
            self.net.spec().ipv4.as_ref(),
            row.spec.ports.clone(),
        )
    }

    /// The user that an instance's QEMU runs as.
    #[must_use]
    pub fn uid(&self, row: &InstanceRow) -> u32 {
        self.config.qemu.uid_base.saturating_add(row.slot)
    }

    /// All users that guests run as.
    #[must_use]
    pub fn uids(&self) -> std::ops::Range<u32> {
        let q = &self.config.qemu;
        q.uid_base..q.uid_base.saturating_add(q.uid_count)
    }

    /// Everything that an instance's command line depends on.
    #[must_use]
    pub fn launch(
        &self,
        row: &InstanceRow,
        base: (PathBuf, DiskFormat),
        volumes: &[crate::db::VolumeRow],
        cgroup_procs: Option<PathBuf>,
    ) -> Launch {
        let file = |f| self.paths.instance_file(&row.id, f);
        let hex = row.id.as_str();
        let part = |r: std::ops::Range<usize>| hex.get(r).unwrap_or_default();
        Launch {
            binary: self.config.qemu.binary.clone(),
            marker: format!("crn:{}:{}", self.paths.node_mark(), row.id),
            uuid: [0..8, 8..12, 12..16, 16..20, 20..32].map(part).join("-"),
            vcpus: row.spec.vcpus,
            memory_mib: row.spec.memory.0.into(),
            accel: self.accel,
            boot: Boot::new(
                row.spec.firmware,
                &self.config.qemu.uefi_code,
                &file(InstanceFile::UefiVars),
            ),
            root: file(InstanceFile::Root),
            base,
            seed: Some(file(InstanceFile::Seed)),
            volumes: volumes
                .iter()
                .map(|v| VolumeDisk {
                    id: v.id.clone(),
                    path: self.paths.volume(&v.id),
                })
                .collect(),
            mac: self.guest(row).mac.to_string(),
            run_dir: self.paths.run(&row.id),
            console_log: file(InstanceFile::ConsoleLog),
            uid: self.uid(row),
            isolate_network: self.config.qemu.isolate_network,
            cgroup_procs,
        }
    }
}

/// Runs blocking work (files, disks) where it blocks nobody.
///
/// # Errors
/// Those of the work; a panic in it becomes an I/O error.
pub async fn blocking<T, E, F>(work: F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<std::io::Error> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(std::io::Error::other(format!("a blocking task failed: {e}")).into()),
    }
}

/// Writes a file whole or not at all: a temporary beside it, synced, renamed.
///
/// # Errors
/// Those of the file system.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let temporary = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Removes the files named `names` from a directory, what was left of writing
/// them, and then the directory. What is gone already is fine.
///
/// # Errors
/// Those of the file system; `DirectoryNotEmpty` when there is something else in
/// it, which stays.
pub fn remove_known(dir: &Path, names: &[&str]) -> std::io::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == NotFound => return Ok(()),
        other => other?,
    };
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let known = name.to_str().is_some_and(|name| is_known(name, names));
        if known && !entry.file_type()?.is_dir() {
            match std::fs::remove_file(entry.path()) {
                Err(e) if e.kind() != NotFound => return Err(e),
                _ => {}
            }
        } else {
            others.push(crate::ids::clip(&name.to_string_lossy()));
        }
    }
    if !others.is_empty() {
        let dir = dir.display();
        let message = format!("{dir} holds what is not the agent's: {}", others.join(", "));
        return Err(std::io::Error::new(DirectoryNotEmpty, message));
    }
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != NotFound => Err(e),
        _ => Ok(()),
    }
}

/// One of `names`, or what a write of it that was cut off leaves: `root.tmp` of
/// [`write_atomically`], `.new-…` of the crate `disk`.
fn is_known(name: &str, names: &[&str]) -> bool {
    let stem = |name: &str| Path::new(name).file_stem().map(ToOwned::to_owned);
    let temporary = name.strip_suffix(".tmp").map(Into::into);
    names.contains(&name)
        || name.starts_with(".new-")
        || temporary
            .is_some_and(|t: std::ffi::OsString| names.iter().any(|n| stem(n) == Some(t.clone())))
}
