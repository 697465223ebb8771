//! The agent's side of a launch: opens what the plan names and starts the launcher.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use command_fds::{CommandFdExt, FdMapping};
use nix::sched::{CloneFlags, unshare};
use tokio::{io::AsyncWriteExt, process::ChildStdin};

use super::{
    confine::Lock,
    launcher::{GO, LAUNCH_VM},
    plan::{FdSource, LaunchPlan},
    process::Process,
};

/// Why QEMU could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file that the plan names.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The launcher could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The agent's own program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was gone at once.
    #[error("QEMU exited at once")]
    Gone,
}

fn open(path: &Path, options: &OpenOptions) -> Result<OwnedFd, LaunchError> {
    let file = options.open(path).map_err(|source| LaunchError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(file.into())
}

fn listen(path: &Path) -> Result<OwnedFd, LaunchError> {
    let fail = |source| LaunchError::Open {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    // Whatever the umask is. Until here the directory alone keeps others out.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener.into())
}

/// Opens the plan's descriptors. The tap is moved in where the plan has it.
fn descriptors(plan: &LaunchPlan, tap: OwnedFd) -> Result<Vec<FdMapping>, LaunchError> {
    let mut tap = Some(tap);
    let mut mappings = Vec::with_capacity(plan.fds.len());
    for fd in &plan.fds {
        let parent_fd = match &fd.source {
            FdSource::ReadOnly(path) => open(path, OpenOptions::new().read(true))?,
            FdSource::ReadWrite(path) => open(path, OpenOptions::new().read(true).write(true))?,
            FdSource::Append(path) => open(
                path,
                OpenOptions::new().append(true).create(true).mode(0o600),
            )?,
            FdSource::Listen(path) => listen(path)?,
            FdSource::Tap => match tap.take() {
                Some(tap) => tap,
                None => continue,
            },
        };
        mappings.push(FdMapping {
            parent_fd,
            child_fd: fd.number,
        });
    }
    // Behind those that QEMU gets: the launcher alone reads them.
    for (number, placed) in (plan.next_fd()..).zip(&plan.placed) {
        mappings.push(FdMapping {
            parent_fd: placed
                .content
                .descriptor()
                .map_err(|source| LaunchError::Open {
                    path: placed.path.clone(),
                    source,
                })?,
            child_fd: number,
        });
    }
    Ok(mappings)
}

/// The running program, even if its file was replaced by an upgrade.
pub const SELF: &str = "/proc/self/exe";

/// The process that will be QEMU, waiting for the word. If this is dropped, or the
/// agent dies, it ends without having been QEMU.
#[derive(Debug)]
#[must_use = "a launch that is not released ends"]
pub struct Held {
    process: Process,
    gate: ChildStdin,
}

impl Held {
    /// What is to be recorded before [`Held::release`].
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Lets it become QEMU. That it could not is seen by its end.
    pub async fn release(mut self) -> Process {
        let _ = self.gate.write_all(&[GO]).await;
        self.process
    }
}

/// Prepares a process that becomes QEMU as the plan says once it is released, its
/// messages appended to `log`. Blocking only for opening files; call it where that
/// is allowed.
///
/// # Errors
/// [`LaunchError`]; nothing runs then.
pub fn launch(plan: &LaunchPlan, tap: OwnedFd, log: &Path) -> Result<Held, LaunchError> {
    launch_by(Path::new(SELF), plan, tap, log)
}

/// [`launch`] from another program than the agent, which is named.
///
/// # Errors
/// [`LaunchError`]; nothing runs then.
pub fn launch_by(
    agent: &Path,
    plan: &LaunchPlan,
    tap: OwnedFd,
    log: &Path,
) -> Result<Held, LaunchError> {
    let program = agent.to_owned();
    let mappings = descriptors(plan, tap)?;
    let log = File::from(open(
        log,
        OpenOptions::new().append(true).create(true).mode(0o600),
    )?);
    let log_again = log.try_clone().map_err(|source| LaunchError::Spawn {
        program: program.clone(),
        source,
    })?;
    let mut command = tokio::process::Command::new(&program);
    command
        .arg(LAUNCH_VM)
        .arg("--descriptors")
        .arg(plan.fds.len().to_string())
        .arg("--uid")
        .arg(plan.uid.to_string());
    if plan.isolate_network {
        command.arg("--isolate-network");
    }
    if let Some(procs) = &plan.cgroup_procs {
        command.arg("--cgroup-procs").arg(procs);
    }
    if let Some(bytes) = plan.largest_file {
        command.arg("--largest-file").arg(bytes.to_string());
    }
    for placed in &plan.placed {
        command.arg("--place").arg(&placed.path);
    }
    for device in &plan.devices {
        command.arg("--device").arg(device);
    }
    for refused in &plan.confinement.refused {
        command.arg("--without").arg(refused.lock.word());
    }
    #[cfg(feature = "fault-points")]
    if let Some(library) = std::env::var_os("CRN_TEST_PRELOAD") {
        command.arg("--preload").arg(library);
    }
    command.arg("--").arg(&plan.binary).args(&plan.args);
    command
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(log_again)
        .kill_on_drop(false);
    command
        .fd_mappings(mappings)
        .map_err(|e| LaunchError::Spawn {
            program: program.clone(),
            source: io::Error::other(e.to_string()),
        })?;
    let spawned = if plan.confinement.has(Lock::PidNamespace) {
        let runtime = tokio::runtime::Handle::current();
        in_new_pid_namespace(|| {
            let _runtime = runtime.enter();
            command.spawn()
        })
    } else {
        command.spawn()
    };
    let mut child = spawned.map_err(|source| LaunchError::Spawn {
        program: program.clone(),
        source,
    })?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .ok_or(LaunchError::Gone)?;
    let process = Process::open(pid).map_err(|_| LaunchError::Gone)?;
    let gate = child.stdin.take().ok_or(LaunchError::Gone)?;
    // Reaped here while the agent lives, by init when QEMU outlives it.
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
    Ok(Held { process, gate })
}

/// Runs `start` where what it starts is the first process of a PID namespace of its own.
/// A thread has to be given up for that: what it starts later would be there too.
pub(super) fn in_new_pid_namespace<T: Send>(
    start: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let work = || {
        unshare(CloneFlags::CLONE_NEWPID)
            .map_err(|e| io::Error::other(format!("new PID namespace: {e}")))?;
        start()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("launch".into())
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the launching thread failed")))
    })
}
