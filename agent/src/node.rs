//! What everything on the node shares: configuration, records, network, images, and
//! the registry of the instances' tasks.

use crate::{
    capacity::{self, Capacity, HostSize},
    cgroup::{CgroupError, Cgroups},
    config::Config,
    db::{Db, InstanceRow},
    events::Events,
    guest_net::GuestNet,
    host::{accel::Accel, machines::Installed},
    ids::InstanceId,
    images::{self, Images},
    paths::Paths,
    qemu::{confine::Confinement, file_limit, plan::Accelerator},
    reserve::Reserve,
    tasks::{Handle, Tasks},
    volume::Volumes,
};

/// The agent's group in the cgroup hierarchy is named so and by the node's mark.
const CGROUP: &str = "crn-agent";

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node's prefix is missing.
    #[error("network.prefix is not set: the IPv6 prefix that guests get their addresses from")]
    NoPrefix,
    /// A value of `[network]` that cannot be.
    #[error("{key}: {source}")]
    Network {
        /// The key.
        key: &'static str,
        /// Why.
        source: net::Error,
    },
    /// The host's network.
    #[error("network: {0}")]
    Net(#[from] net::Error),
    /// The base images.
    #[error(transparent)]
    Images(#[from] images::OpenError),
    /// cgroups.
    #[error("cgroups: {0}")]
    Cgroup(#[from] CgroupError),
}

/// What is known of the host before the node is opened.
#[derive(Debug, Clone)]
pub struct Host {
    /// What guests run on, and why.
    pub accel: Accel,
    /// CPUs, memory, disk.
    pub size: HostSize,
    /// What QEMU can be shut in by.
    pub confinement: Confinement,
}

/// The node.
pub struct Node {
    /// The configuration.
    pub config: Config,
    /// Where things are.
    pub paths: Paths,
    /// The database.
    pub db: Db,
    /// The guests' part of the host's network.
    pub net: GuestNet,
    /// The node's IPv6 prefix and how addresses follow from ids.
    pub addresses: net::AddressPlan,
    /// Base images: the store, and what names mean.
    pub images: Images,
    /// Volumes: their files, with their records.
    pub volumes: Volumes,
    /// What happens.
    pub events: Events,
    /// What the node gives away altogether.
    pub capacity: Capacity,
    /// The installed QEMU.
    pub qemu: Installed,
    /// What guests run on.
    pub accel: Accelerator,
    /// Why, in one sentence.
    pub accel_reason: String,
    /// Whether the length of the files that guests write can be limited.
    pub limits_files: bool,
    /// What QEMU is shut in by on this host.
    pub confinement: Confinement,
    /// cgroup limits, where the host has them.
    pub cgroups: Cgroups,
    /// Room for deletions on a full disk.
    pub reserve: Reserve,
    /// The instances' tasks.
    pub tasks: Tasks,
}

impl Node {
    /// Opens network, image store and cgroups beside the database. Changes nothing
    /// of the host's but the image store's directory.
    ///
    /// # Errors
    /// [`NodeError`], naming the key of the configuration where one is wrong.
    pub async fn open(config: Config, db: Db, host: Host) -> Result<Self, NodeError> {
        let paths = Paths::new(&config);
        let prefix = config.network.prefix.as_deref();
        let prefix = prefix.ok_or(NodeError::NoPrefix)?;
        let bad = |key| move |source| NodeError::Network { key, source };
        let prefix: net::Prefix = prefix.parse().map_err(bad("network.prefix"))?;
        let pool = &config.network.ipv4_pool;
        let ipv4 = match config.network.ipv4_nat {
            true => Some(pool.parse().map_err(bad("network.ipv4_pool"))?),
            false => None,
        };
        // Name servers that guests are given are to be reached, wherever they are.
        let nameservers = config.network.nameservers.iter().copied();
        let allowed_private = config.network.allowed_private.iter().copied();
        let net = net::HostNet::open(net::HostSpec {
            uplink: config.network.uplink.clone(),
            ndp_proxy: config.network.ndp_proxy,
            ipv4,
            allowed_private: allowed_private
                .chain(nameservers.map(net::IpNet::from))
                .collect(),
            forward_others: config.network.forward_others,
            ..net::HostSpec::new(&config.network.table, prefix)
        })
        .await?;
        // No guest gets a network that holds an address of the host's own.
        let own = net.addresses().await?;
        let addresses = net::AddressPlan::new(prefix)
            .map_err(bad("network.prefix"))?
            .avoiding(own);
        let events = Events::new(db.clone());
        let images =
            Images::open(&paths.images(), &config.images, db.clone(), events.clone()).await?;
        Ok(Self {
            net: GuestNet::new(net, db.clone()),
            addresses,
            images,
            volumes: Volumes::new(paths.volumes(), db.clone()),
            events,
            capacity: capacity::of(&config.limits, host.size),
            qemu: Installed::new(&config.qemu.binary),
            accel: host.accel.accelerator,
            accel_reason: host.accel.reason,
            limits_files: file_limit::can_be_changed(),
            confinement: host.confinement,
            // Named by the node: two agents may share a host.
            cgroups: Cgroups::discover(&format!("{CGROUP}-{}", paths.node_mark()))?,
            reserve: Reserve::new(paths.reserve()),
            tasks: Tasks::default(),
            db,
            paths,
            config,
        })
    }

    /// The handle of an instance's task.
    #[must_use]
    pub fn task(&self, id: &InstanceId) -> Option<Handle> {
        self.tasks.get(id)
    }

    /// The user that an instance's QEMU runs as.
    #[must_use]
    pub fn uid(&self, row: &InstanceRow) -> u32 {
        self.config.qemu.uid_base.saturating_add(row.slot)
    }
}

/// All users that guests of a node with this configuration run as.
#[must_use]
pub fn uids(config: &Config) -> std::ops::Range<u32> {
    let q = &config.qemu;
    q.uid_base..q.uid_base.saturating_add(q.uid_count)
}
