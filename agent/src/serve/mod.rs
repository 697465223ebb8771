//! The daemon: from a configuration to a node that serves, and its end.
//!
//! The order matters. The state directory is locked before anything is read; the
//! network's rules are there before a guest is touched; running guests are
//! adopted before requests are taken. At the end nothing is undone: guests run on
//! without the agent, and the next start finds them.

mod accel;
mod directories;
mod error;
mod log;
mod notify;
mod socket;

use std::{collections::HashMap, fs, io, sync::Arc, time::Instant};

use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

pub use error::ServeError;

use crate::{
    api, capacity,
    config::Config,
    db::Db,
    fs::blocking,
    guest_net::GuestNetError,
    host, instance,
    node::{Host, Node, NodeError, uids},
    ops,
    paths::Paths,
    qemu::{confine::Confinement, launch, probe, process},
    reconcile::{network, sweep},
};

/// Serves until SIGTERM or SIGINT. Guests run on.
///
/// # Errors
/// [`ServeError`], when it cannot begin.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let began = Instant::now();
    directories::set_umask();
    log::start(&config.log)?;
    // Before anything is made.
    if config.network.prefix.is_none() {
        return Err(NodeError::NoPrefix.into());
    }
    // Two agents would take each other's guests for orphans, whatever their directories are.
    let claim = net::Claim::take().map_err(GuestNetError::from)?;
    let paths = Paths::new(&config);
    directories::prepare(&config, &paths)?;
    // Neither its records nor its sockets are another agent's.
    let locks = [
        directories::lock(&config.state_dir)?,
        directories::lock(&config.run_dir)?,
    ];
    raise_open_files();
    let (node, listener) = open(config, paths, began).await?;
    let (stop, stopped) = watch::channel(false);
    let api = tokio::spawn(socket::serve(node.clone(), listener, stopped.clone()));
    let status = serve_status(&node, stopped.clone()).await?;
    let keeper = tokio::spawn(network::keep(node.clone()));
    let reserve = tokio::spawn(node.reserve.clone().keep());
    notify::tell("READY=1");
    info!("ready after {} ms", began.elapsed().as_millis());

    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let reason = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!("{reason}: ending; guests run on");
    notify::tell("STOPPING=1");
    let _ = stop.send(true);
    keeper.abort();
    reserve.abort();
    let _ = tokio::join!(api, status);
    let _ = fs::remove_file(node.config.socket());
    // The group of all groups goes with the last of them.
    if let Err(e) = node.cgroups.remove_root() {
        warn!("{e}");
    }
    if let Err(e) = node.db.settle().await {
        warn!("{e}");
    }
    drop((locks, claim));
    Ok(())
}

/// The status page for browsers of this host, where it is wanted.
async fn serve_status(
    node: &Arc<Node>,
    stopped: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, ServeError> {
    let Some(address) = node.config.api.status_listen else {
        return Ok(tokio::spawn(async {}));
    };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::StatusPage { address, source })?;
    Ok(tokio::spawn(api::serve_status(
        node.clone(),
        listener,
        until(stopped),
    )))
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Everything up to the moment when requests can be taken.
async fn open(
    config: Config,
    paths: Paths,
    began: Instant,
) -> Result<(Arc<Node>, UnixListener), ServeError> {
    let database = paths.database();
    // Asked before a new database is made: it would be taken for the lost one.
    if !database.exists()
        && let Some(found) = sweep::without_records(&paths)?
    {
        return Err(ServeError::RecordsLost { found });
    }
    let (db, _) = blocking(move || Ok::<_, ServeError>(Db::open(&database)?)).await?;
    let (mark, uids) = (paths.node_mark(), uids(&config));
    let scan = tokio::task::spawn_blocking(move || process::scan(&mark, uids));
    let host = host(&config).await?;
    let node = Arc::new(Node::open(config, db, host).await?);
    if let Some(why) = node.cgroups.unavailable() {
        warn!("guests' CPU, memory and I/O are not limited: {why}");
    }
    if !node.limits_files {
        warn!("without CAP_SYS_RESOURCE the length of the files that guests write is not limited");
    }
    let rows = node.db.instances().await?;
    node.net.start().await?;

    let recorded: HashMap<_, _> = rows
        .iter()
        .map(|r| (r.id.to_string(), r.process.as_ref().map(|p| p.pid)))
        .collect();
    let mut marked = scan.await.map_err(io::Error::other)?;
    let users = rows.iter().map(|r| (r.id.to_string(), node.uid(r)));
    let forged = sweep::forged(&mut marked, &users.collect());
    let mut sorted = sweep::sort(&marked, &recorded);
    sorted.orphans.extend(forged);
    let killed = sweep::kill(&sorted.orphans).await;
    sweep::report(&node, &killed);
    for row in &rows {
        instance::spawn(&node, row, sorted.owned.get(row.id.as_str()).copied());
    }
    let (count, ms) = (rows.len(), began.elapsed().as_millis());
    info!(
        "{count} instances taken up, {} with a QEMU, after {ms} ms",
        sorted.owned.len()
    );

    // Before requests are taken: what is being created is nobody's yet.
    match sweep::files(&node, &rows).await {
        Ok(found) => sweep::report(&node, &found),
        Err(e) => warn!("left-overs cannot be looked for: {e}"),
    }
    if let Err(e) = ops::volumes::settle(&node).await {
        warn!("volumes: {e}");
    }
    let listener = socket::listen(&node.config)?;
    Ok((node, listener))
}

/// What the node is opened with besides its configuration and records.
async fn host(config: &Config) -> Result<Host, ServeError> {
    let confinement = confinement(config.qemu.uid_base);
    let (accel, confinement) = tokio::join!(accel::decide(config), confinement);
    Ok(Host {
        accel,
        size: host_size(config)?,
        confinement: confinement?,
    })
}

/// What QEMU can be shut in by; what the host refuses is told.
async fn confinement(uid: u32) -> io::Result<Confinement> {
    let probed = tokio::task::spawn_blocking(move || probe::probe(launch::SELF.as_ref(), uid));
    let confinement = probed.await.map_err(io::Error::other)?;
    for refused in &confinement.refused {
        let (lock, why) = (refused.lock.word(), &refused.why);
        warn!("QEMU runs without {lock}, which this host refuses: {why}");
    }
    Ok(confinement)
}

fn host_size(config: &Config) -> Result<capacity::HostSize, ServeError> {
    let facts = host::system::gather(&config.state_dir);
    let disk = host::system::disk(&config.state_dir)?;
    let cpus = std::thread::available_parallelism()?.get();
    Ok(capacity::HostSize {
        cpus: u64::try_from(cpus).unwrap_or(u64::MAX),
        memory_mib: facts.memory.map_or(0, |m| m.total_mib),
        disk_mib: disk.total_mib,
    })
}

/// Each guest is a connection and a process handle: the usual 1024 files are few.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(e) = setrlimit(Resource::Nofile, most) {
        warn!("the limit of open files stays {:?}: {e}", now.current);
    }
}
