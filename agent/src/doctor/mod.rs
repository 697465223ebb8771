//! `crn-agent doctor`: every prerequisite, what was found, what it means, the remedy.
//!
//! Facts come from [`crate::host`]; [`checks`] judges them and is pure; this module
//! brings them together. Invariants: nothing on the host is changed; the answer has
//! exactly the checks of [`CATALOGUE`], in its order, whatever hangs or panics,
//! and comes within [`LIMIT`] plus the time of the KVM probe.
//!
//! The ids are stable: programs that read `--json` may rely on them. Each has its
//! section in docs/doctor.md.

pub mod checks;
mod render;

use std::{future::Future, path::PathBuf, time::Duration};

use crn_api_types::NodeStatus;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    client::Client,
    config::AccelSetting,
    host,
    qemu::{launch, probe},
};
pub use render::render_table;

/// What one part of the examination may take.
pub const LIMIT: Duration = Duration::from_millis(1600);

/// What the doctor has to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorConfig {
    /// Where disks and images are kept.
    pub state_dir: PathBuf,
    /// The node's IPv6 prefix.
    pub prefix: Option<String>,
    /// The interface toward the internet; that of the default route unless given.
    pub uplink: Option<String>,
    /// Neighbour solicitations for guests are answered on the uplink.
    pub ndp_proxy: bool,
    /// The agent's nftables tables.
    pub table: String,
    /// Where guests' IPv4 addresses come from; none without NAT.
    pub ipv4_pool: Option<String>,
    /// Where the agent answers.
    pub socket: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// The configured accelerator.
    pub accel: AccelSetting,
    /// First of the users that guests run as.
    pub uid_base: u32,
    /// How many such users there are.
    pub uid_count: u32,
    /// UEFI firmware, code part.
    pub uefi_code: PathBuf,
    /// UEFI firmware, template of the variables' part.
    pub uefi_vars: PathBuf,
}

impl From<&crate::config::Config> for DoctorConfig {
    fn from(c: &crate::config::Config) -> Self {
        Self {
            state_dir: c.state_dir.clone(),
            prefix: c.network.prefix.clone(),
            uplink: c.network.uplink.clone(),
            ndp_proxy: c.network.ndp_proxy,
            table: c.network.table.clone(),
            ipv4_pool: c.network.ipv4_nat.then(|| c.network.ipv4_pool.clone()),
            socket: c.socket(),
            qemu: c.qemu.binary.clone(),
            accel: c.qemu.accel,
            uid_base: c.qemu.uid_base,
            uid_count: c.qemu.uid_count,
            uefi_code: c.qemu.uefi_code.clone(),
            uefi_vars: c.qemu.uefi_vars.clone(),
        }
    }
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The agent works, and something is slower, weaker or less certain than it could be.
    Degraded,
    /// What depends on it does not work.
    Missing,
}

impl Status {
    /// As it is printed.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One prerequisite, examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub id: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// No guest runs without it.
    pub required: bool,
    /// The verdict.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What that means for guests.
    pub meaning: String,
    /// What to do about it, with Debian 12's commands; nothing where all is well or
    /// nothing can be done.
    pub remedy: Option<String>,
}

/// A prerequisite that is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Stable name.
    pub id: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// No guest runs without it.
    pub required: bool,
}

const fn entry(id: &'static str, title: &'static str, required: bool) -> Entry {
    Entry {
        id,
        title,
        required,
    }
}

/// All prerequisites, in the order in which they are shown.
pub const CATALOGUE: &[Entry] = &[
    entry("kvm", "KVM", false),
    entry("accel", "Accelerator", false),
    entry("qemu", "QEMU", true),
    entry("qemu-features", "QEMU's features", true),
    entry("qemu-sev", "QEMU's SEV objects", false),
    entry("firmware-bios", "BIOS", true),
    entry("firmware-uefi", "UEFI", false),
    entry("firmware-sev", "UEFI for measured launch", false),
    entry("sev-cpu", "SEV in the processor", false),
    entry("sev-kvm", "SEV in KVM", false),
    entry("sev-device", "/dev/sev", false),
    entry("nftables", "nftables", true),
    entry("tun", "/dev/net/tun", true),
    entry("ipv6", "IPv6", true),
    entry("ipv6-prefix", "IPv6 prefix", true),
    entry("ipv6-forwarding", "IPv6 forwarding", false),
    entry("uplink", "Uplink", false),
    entry("mtu", "MTU", false),
    entry("ndp-proxy", "NDP proxy", false),
    entry("other-firewalls", "Other firewalls", false),
    entry("second-agent", "Other agents", false),
    entry("agent", "This agent", false),
    entry("cgroup", "cgroup limits", false),
    entry("kernel", "Kernel", true),
    entry("memory", "Memory", false),
    entry("disk", "Disk space", true),
    entry("state-dir", "State directory", true),
    entry("users", "Unprivileged users", true),
    entry("confinement", "Confinement of QEMU", false),
    entry("open-files", "Open files", false),
    entry("clock", "Clock", false),
];

/// Examines the host. The KVM probe comes first and alone, since it measures; the
/// rest runs at once.
pub async fn examine(cfg: &DoctorConfig) -> Vec<Check> {
    let accel = cfg.accel;
    let mut all = on_thread(&["kvm", "accel"], move || {
        let kvm = host::kvm::probe(host::kvm::DEVICE.as_ref());
        vec![checks::virt::kvm(&kvm), checks::virt::accel(accel, &kvm)]
    })
    .await;
    let c = cfg.clone();
    let qemu = as_task(&["qemu", "qemu-features", "qemu-sev"], async move {
        checks::virt::qemu(&c.qemu, &host::qemu::gather(&c.qemu).await)
    });
    let c = cfg.clone();
    let firmware = on_thread(
        &["firmware-bios", "firmware-uefi", "firmware-sev"],
        move || checks::virt::firmware(&host::firmware::gather(&c.uefi_code, &c.uefi_vars)),
    );
    let sev = on_thread(&["sev-cpu", "sev-kvm", "sev-device"], || {
        checks::sev::all(&host::sev::gather())
    });
    let nft = as_task(&["nftables"], async {
        vec![checks::net::nftables(&host::nft::gather().await)]
    });
    let tun = on_thread(&["tun"], || {
        vec![checks::net::tun(&host::device("/dev/net/tun".as_ref()))]
    });
    let c = cfg.clone();
    let net = on_thread(
        &[
            "ipv6",
            "ipv6-prefix",
            "ipv6-forwarding",
            "uplink",
            "mtu",
            "ndp-proxy",
        ],
        move || {
            let (prefix, uplink) = (c.prefix.as_deref(), c.uplink.as_deref());
            let facts = host::network::gather("/".as_ref(), prefix, uplink, c.ndp_proxy);
            checks::net::all(&facts)
        },
    );
    let c = cfg.clone();
    let firewalls = as_task(&["other-firewalls"], async move {
        vec![checks::others::firewalls(&obstacles(&c).await)]
    });
    let socket = cfg.socket.clone();
    let owner = on_thread(&["second-agent"], move || {
        let owner = checks::others::Owner {
            holder: net::Claim::holder().map_err(|e| e.to_string()),
            own: listener(&socket),
        };
        vec![checks::others::second_agent(&owner)]
    });
    let socket = cfg.socket.clone();
    let agent = as_task(&["agent"], async move {
        let status = Client::new(&socket).get::<NodeStatus>("/v1/status").await;
        let warnings = match status {
            Ok(status) => Ok(status.warnings.into_iter().map(|w| w.message).collect()),
            Err(e) => Err(e.to_string()),
        };
        vec![checks::others::agent(listener(&socket), &warnings)]
    });
    let cgroup = on_thread(&["cgroup"], || {
        vec![checks::system::cgroup(&checks::cgroups())]
    });
    let c = cfg.clone();
    let system = on_thread(&["kernel", "memory", "open-files", "clock"], move || {
        checks::system::all(&host::system::gather(&c.state_dir))
    });
    let c = cfg.clone();
    let disk = on_thread(&["disk"], move || {
        vec![checks::system::disk(
            &c.state_dir,
            &host::system::disk(&c.state_dir),
        )]
    });
    let c = cfg.clone();
    let state = on_thread(&["state-dir"], move || {
        vec![checks::directory::state(&host::directory::gather(
            &c.state_dir,
        ))]
    });
    let uid = cfg.uid_base;
    let confinement = on_thread(&["confinement"], move || {
        vec![checks::confinement::confinement(&probe::probe(
            launch::SELF.as_ref(),
            uid,
        ))]
    });
    let c = cfg.clone();
    let users = on_thread(&["users"], move || {
        vec![checks::system::users(&host::users::gather(
            c.uid_base,
            c.uid_count,
        ))]
    });
    let (a, b, c, d, e) = tokio::join!(qemu, firmware, sev, nft, tun);
    all.extend([a, b, c, d, e].into_iter().flatten());
    all.extend(net.await);
    all.extend(cgroup.await);
    all.extend(system.await);
    all.extend(disk.await);
    all.extend(state.await);
    all.extend(users.await);
    all.extend(confinement.await);
    all.extend(firewalls.await);
    all.extend(owner.await);
    all.extend(agent.await);
    all.sort_by_key(|check| CATALOGUE.iter().position(|e| e.id == check.id));
    all
}

/// What other firewalls drop, as the agent would see it.
async fn obstacles(cfg: &DoctorConfig) -> Result<Vec<net::Obstacle>, String> {
    // Without a prefix of its own any will do: only other tables are looked at.
    let prefix = cfg.prefix.as_deref().unwrap_or("2001:db8::/64");
    let prefix = prefix.parse().map_err(|e: net::Error| e.to_string())?;
    let spec = net::HostSpec {
        uplink: cfg.uplink.clone(),
        ipv4: cfg.ipv4_pool.as_deref().and_then(|pool| pool.parse().ok()),
        ..net::HostSpec::new(&cfg.table, prefix)
    };
    let host = net::HostNet::open(spec).await;
    let host = host.map_err(|e| e.to_string())?;
    host.obstacles().await.map_err(|e| e.to_string())
}

/// The process that listens on a socket.
fn listener(socket: &std::path::Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// 0 unless something that is required is missing.
#[must_use]
pub fn exit_status(checks: &[Check]) -> u8 {
    u8::from(
        checks
            .iter()
            .any(|c| c.required && c.status == Status::Missing),
    )
}

/// Starts blocking work at once, on a thread of its own: one that hangs is left
/// behind, and does not keep the runtime from ending as its blocking tasks would.
fn on_thread(
    ids: &'static [&'static str],
    work: impl FnOnce() -> Vec<Check> + Send + 'static,
) -> impl Future<Output = Vec<Check>> {
    let (send, receive) = oneshot::channel();
    let name = ids
        .first()
        .map_or_else(String::new, |id| format!("doctor-{id}"));
    let started = std::thread::Builder::new().name(name).spawn(move || {
        let _ = send.send(work());
    });
    async move {
        if let Err(e) = started {
            return lost(ids, &format!("no thread can be started: {e}"));
        }
        match tokio::time::timeout(LIMIT, receive).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(_)) => lost(ids, "the check itself failed"),
            Err(_) => lost(ids, &format!("no answer within {LIMIT:?}")),
        }
    }
}

/// Starts asynchronous work at once.
fn as_task(
    ids: &'static [&'static str],
    work: impl Future<Output = Vec<Check>> + Send + 'static,
) -> impl Future<Output = Vec<Check>> {
    let mut task = tokio::spawn(work);
    async move {
        match tokio::time::timeout(LIMIT, &mut task).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(_)) => lost(ids, "the check itself failed"),
            Err(_) => {
                task.abort();
                lost(ids, &format!("no answer within {LIMIT:?}"))
            }
        }
    }
}

/// What stands in the place of checks that gave no answer.
fn lost(ids: &[&'static str], why: &str) -> Vec<Check> {
    ids.iter()
        .map(|id| {
            checks::check(
                id,
                Status::Degraded,
                format!("could not be examined: {why}"),
                "Nothing is known about it.",
                Some("Run the doctor again; look at the kernel's log: dmesg --level=err,warn"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
