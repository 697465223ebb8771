//! A host with the agent on it, an internet beside it, and guests: made of namespaces, the real
//! program and the real QEMU.
//!
//! ```no_run
//! use tests::harness::{Agent, Host, Key, Uplink, images};
//! # fn main() -> tests::harness::Result<()> {
//! let host = Host::new(Uplink::Routed)?;
//! let agent = Agent::start(&host, &[])?;
//! let image = images::debian(|line| eprintln!("{line}"))?;
//! agent.cli(&["image", "import", "debian:12", image.to_str().unwrap()])?;
//! let key = Key::new(host.dir())?;
//! let vm = agent.cli(&["instance", "create", "--image=debian:12", "--ssh-key", key.public(), "--wait"])?;
//! let guest = host.internet().ssh(&key, vm["ipv6"].as_str().unwrap());
//! assert_eq!(guest.run("id -un")?, "root\n");
//! # Ok(()) }
//! ```
//!
//! [`bare`] is the smaller half: a host without an internet, in the network of its test.
//!
//! Everything that is made here goes away with its owner: processes and links live in namespaces
//! that end with their first process, which is killed when its parent ends, however it ends.

mod agent;
pub mod bare;
mod frames;
mod guest;
mod host;
pub mod images;
mod namespace;
pub mod old_agent;
mod serve_files;
mod snapshot;
mod tiny;

use std::{
    error::Error,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

pub use agent::{Agent, CliError};
pub use frames::{Frame, MacAddress};
pub use guest::{Guest, Key};
pub use host::{Host, Internet, PREFIX, Uplink};
pub use namespace::Namespace;
pub use serve_files::FileServer;
pub use snapshot::Snapshot;
pub use tiny::Tiny;

/// What went wrong is for a person to read.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long anything may take on a slow and busy machine, guests' boots apart.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long an emulated Debian may take to its SSH server.
pub const BOOT_PATIENCE: Duration = Duration::from_secs(900);

/// Runs a command to its end; what it printed, or why it failed.
///
/// # Errors
/// When it cannot be started or fails; with its output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    success(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn success(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{out}{err}", output.status).into())
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none in time, with the reason that was given last.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        let reason = match attempt() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".into(),
            Err(e) => e,
        };
        if Instant::now() >= end {
            let seconds = patience.as_secs();
            return Err(format!("{what}: not within {seconds} s: {reason}").into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}
