//! What can be configured, with units and defaults.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Database, images, disks. Must survive a reboot.
    #[serde(deserialize_with = "absolute")]
    pub state_dir: PathBuf,
    /// Sockets of the running VMs and of the API. May be lost on reboot; its
    /// path must be short (sockets' paths are limited to 107 bytes).
    #[serde(deserialize_with = "run_dir")]
    pub run_dir: PathBuf,
    /// The native API.
    pub api: Api,
    /// Logging.
    pub log: Log,
    /// QEMU.
    pub qemu: Qemu,
    /// Guests' network.
    pub network: Network,
    /// What this node gives away.
    pub limits: Limits,
    /// How long a stop may take.
    pub stop: Stop,
    /// Base images.
    pub images: Images,
    /// Persistent volumes.
    pub volumes: Volumes,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/crn-agent".into(),
            run_dir: "/run/crn-agent".into(),
            api: Api::default(),
            log: Log::default(),
            qemu: Qemu::default(),
            network: Network::default(),
            limits: Limits::default(),
            stop: Stop::default(),
            images: Images::default(),
            volumes: Volumes::default(),
        }
    }
}

impl Config {
    /// The API's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.api
            .socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("api.sock"))
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The unix socket; `api.sock` in the run directory unless given.
    pub socket: Option<PathBuf>,
    /// Numeric group that may use the socket besides root; nobody unless given.
    pub group: Option<u32>,
    /// Where the status page is served for browsers of this host, such as
    /// `127.0.0.1:4021`: a loopback address. Read only; nowhere unless given.
    #[serde(deserialize_with = "loopback")]
    pub status_listen: Option<SocketAddr>,
}

#[allow(
    clippy::derivable_impls,
    reason = "defaults of all sections stand side by side"
)]
impl Default for Api {
    fn default() -> Self {
        Self {
            socket: None,
            group: None,
            status_listen: None,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A filter as `tracing` has them: `info`, `crn_agent=debug,info`.
    #[serde(deserialize_with = "filter")]
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".into(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// `[qemu]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Qemu {
    /// The program; version 9.1 or newer.
    pub binary: PathBuf,
    /// `auto` measures what KVM does and takes TCG where KVM is missing or emulated.
    pub accel: AccelSetting,
    /// With KVM, guests may run guests of their own (VMX, SVM): more of the host's kernel
    /// is open to them.
    pub nested_virtualization: bool,
    /// First of the unprivileged users that guests run as, one each; also the group.
    /// Nothing else on the host may use the range.
    pub uid_base: u32,
    /// How many users the range has; an upper limit of instances.
    pub uid_count: u32,
    /// UEFI firmware, code part (read-only flash).
    pub uefi_code: PathBuf,
    /// UEFI firmware, template of the variables' part.
    pub uefi_vars: PathBuf,
    /// Run each QEMU in a network namespace of its own, empty but for loopback.
    pub isolate_network: bool,
    /// Largest console log in KiB, of which the newer half survives a rotation.
    #[serde(deserialize_with = "ranged::<64, 1_048_576, _>")]
    pub console_log_kib: u64,
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            accel: AccelSetting::Auto,
            nested_virtualization: false,
            uid_base: 2_100_000,
            uid_count: 4096,
            uefi_code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            uefi_vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            isolate_network: true,
            console_log_kib: 4096,
        }
    }
}

/// Which accelerator QEMU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelSetting {
    /// KVM where it works at a hardware's speed, else TCG.
    Auto,
    /// KVM, come what may.
    Kvm,
    /// Emulation.
    Tcg,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The node's IPv6 prefix, between /16 and /112. Guests get /124s: of one up to /64 those of its
    /// first /64, of a longer one those of its first /80.
    #[serde(deserialize_with = "prefix")]
    pub prefix: Option<String>,
    /// The interface toward the internet; those of the default routes, as they come and go, unless
    /// given.
    pub uplink: Option<String>,
    /// Answer neighbour solicitations for guests on the uplink: needed where the
    /// provider does not route the prefix to this host.
    pub ndp_proxy: bool,
    /// Name of the agent's nftables table (family inet).
    pub table: String,
    /// Name servers that guests get.
    pub nameservers: Vec<IpAddr>,
    /// Give guests an IPv4 address too, with NAT outward.
    pub ipv4_nat: bool,
    /// Where those IPv4 addresses come from: a /24 for each guest.
    pub ipv4_pool: String,
    /// Networks that guests may reach although they are private, or on the link of the
    /// uplink: `10.1.0.0/16`, `fd00::53`. Guests reach the internet alone otherwise.
    #[serde(deserialize_with = "networks")]
    pub allowed_private: Vec<net::IpNet>,
    /// Whether the host forwards packets that are no guest's. Unless given: where it did
    /// before the agent switched forwarding on.
    pub forward_others: Option<bool>,
    /// The first thing that is repaired is noticed at once; this is the pause
    /// between complete comparisons of the kernel's state with ours, in seconds.
    #[serde(deserialize_with = "ranged::<1, 3600, _>")]
    pub reconcile_seconds: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            prefix: None,
            uplink: None,
            ndp_proxy: false,
            table: "crn_agent".into(),
            nameservers: vec![
                IpAddr::from([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111]),
                IpAddr::from([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe]),
            ],
            ipv4_nat: false,
            ipv4_pool: "172.16.0.0/12".into(),
            allowed_private: Vec::new(),
            forward_others: None,
            reconcile_seconds: 10,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most instances, running or not.
    #[serde(deserialize_with = "ranged::<1, 65_536, _>")]
    pub instances: u64,
    /// Virtual CPUs of all instances together; the host's CPUs times 4 unless given.
    pub vcpus: Option<u64>,
    /// Memory of all instances together, MiB; 90 % of the host's unless given.
    pub memory_mib: Option<u64>,
    /// Virtual sizes of all root disks and volumes together, MiB; as much as the
    /// state directory's file system has unless given.
    pub disk_mib: Option<u64>,
    /// Virtual CPUs of one instance.
    #[serde(deserialize_with = "ranged::<1, 256, _>")]
    pub instance_vcpus: u64,
    /// Memory of one instance, MiB.
    #[serde(deserialize_with = "ranged::<64, 1_048_576, _>")]
    pub instance_memory_mib: u64,
    /// Root disk or volume, MiB.
    #[serde(deserialize_with = "ranged::<64, 67_108_864, _>")]
    pub instance_disk_mib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances: 1024,
            vcpus: None,
            memory_mib: None,
            disk_mib: None,
            instance_vcpus: 256,
            instance_memory_mib: 1_048_576,
            instance_disk_mib: 4_194_304,
        }
    }
}

/// `[stop]`: how long each stage of a stop may take, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// The guest's own shutdown after the power button.
    #[serde(deserialize_with = "ranged::<0, 3600, _>")]
    pub power_button_seconds: u64,
    /// QEMU's exit, disks flushed, after `quit`.
    #[serde(deserialize_with = "ranged::<1, 600, _>")]
    pub quit_seconds: u64,
    /// QEMU's exit after SIGKILL.
    #[serde(deserialize_with = "ranged::<1, 600, _>")]
    pub kill_seconds: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            power_button_seconds: 60,
            quit_seconds: 20,
            kill_seconds: 20,
        }
    }
}

/// `[images]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Largest image file that is downloaded or imported, MiB.
    #[serde(deserialize_with = "ranged::<1, 1_048_576, _>")]
    pub max_mib: u64,
    /// Images that can be named, besides the built-in ones; the same name replaces one.
    pub catalogue: Vec<CatalogueImage>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            max_mib: 20_480,
            catalogue: Vec::new(),
        }
    }
}

/// `[[images.catalogue]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueImage {
    /// As `--image` names it: `debian:12`.
    pub name: String,
    /// Where the image is, compressed or not: `https://…`, `http://…`, or `file://` and
    /// an absolute path on this host, which needs neither `sums` nor `digest`.
    pub url: String,
    /// Where the list of SHA-256 or SHA-512 sums is, naming the file.
    pub sums: Option<String>,
    /// The file's name in that list, where it is another than in `url`.
    pub sums_name: Option<String>,
    /// The file's digest (`sha256:…` or `sha512:…`); takes the place of `sums`.
    pub digest: Option<String>,
}

/// `[volumes]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Volumes {
    /// Size of a volume that is created without one, MiB.
    #[serde(deserialize_with = "ranged::<64, 67_108_864, _>")]
    pub default_mib: u64,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            default_mib: 10_240,
        }
    }
}

fn absolute<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(d)?;
    let plain = path.components().all(|c| {
        matches!(
            c,
            std::path::Component::RootDir | std::path::Component::Normal(_)
        )
    });
    if path.is_absolute() && plain {
        Ok(path)
    } else {
        Err(D::Error::custom(format!(
            "{} is not an absolute path without '..'",
            path.display()
        )))
    }
}

fn run_dir<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = absolute(d)?;
    // <run_dir>/vm/<16 digits>/console.sock, and sun_path holds 108 bytes with its NUL.
    const ROOM: usize = 107 - "/vm/0123456789abcdef/console.sock".len();
    if path.as_os_str().len() <= ROOM {
        Ok(path)
    } else {
        let path = path.display();
        Err(D::Error::custom(format!(
            "{path} is longer than {ROOM} bytes: sockets do not fit"
        )))
    }
}

fn prefix<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    if let Some(text) = &text {
        let prefix: net::Prefix = text.parse().map_err(D::Error::custom)?;
        net::AddressPlan::new(prefix).map_err(D::Error::custom)?;
    }
    Ok(text)
}

fn networks<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<net::IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    let network = |text: &String| {
        let address = text.parse::<IpAddr>().map(net::IpNet::from);
        let network = address.or_else(|_| text.parse::<net::IpNet>());
        let network = network.map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is not a network, as in 10.1.0.0/16 or fd00::53"
            ))
        })?;
        if network.trunc() == network {
            return Ok(network);
        }
        let meant = network.trunc();
        Err(D::Error::custom(format!(
            "{text} has bits set beyond its length: the network is {meant}"
        )))
    };
    texts.iter().map(network).collect()
}

fn filter<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(e) => Err(D::Error::custom(format!("{text:?} is no filter: {e}"))),
    }
}

fn loopback<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    match Option::<SocketAddr>::deserialize(d)? {
        Some(at) if !at.ip().is_loopback() => {
            Err(D::Error::custom(format!("{at} is not a loopback address")))
        }
        at => Ok(at),
    }
}

fn ranged<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    d: D,
) -> Result<u64, D::Error> {
    let value = u64::deserialize(d)?;
    if (MIN..=MAX).contains(&value) {
        Ok(value)
    } else {
        Err(D::Error::custom(format!(
            "{value} is not between {MIN} and {MAX}"
        )))
    }
}
