//! The child's side of a launch: the agent's own program, run anew as
//! `crn-agent launch-vm …`, gives up what QEMU must not have and becomes QEMU.
//!
//! A process of its own instead of code between fork and exec: nothing here has
//! to be async-signal-safe, and no `unsafe` is needed. It runs before any thread
//! is started. Its pid is the pid that QEMU has.

use std::{ffi::OsString, fs, io, os::unix::process::CommandExt, path::PathBuf, process::Command};

use rustix::{
    process::{Resource, Rlimit, setrlimit, setsid},
    thread::set_no_new_privs,
};

/// What `launch-vm` is told.
#[derive(Debug, clap::Args)]
pub struct LauncherArgs {
    /// User and group to become.
    #[arg(long)]
    pub uid: u32,
    /// Leave the host's network.
    #[arg(long)]
    pub isolate_network: bool,
    /// The `cgroup.procs` to enter.
    #[arg(long)]
    pub cgroup_procs: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes QEMU. Returns only when that failed.
#[must_use]
pub fn run(args: &LauncherArgs) -> io::Error {
    match prepare(args) {
        Ok(mut command) => command.exec(),
        Err(e) => e,
    }
}

fn prepare(args: &LauncherArgs) -> io::Result<Command> {
    // A session of its own: no terminal's signals, no death with the agent's group.
    setsid().map_err(|e| io::Error::other(format!("setsid: {e}")))?;
    if let Some(procs) = &args.cgroup_procs {
        fs::write(procs, std::process::id().to_string())
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", procs.display())))?;
    }
    if args.isolate_network {
        use nix::sched::{CloneFlags, unshare};
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)
            .map_err(|e| io::Error::other(format!("new network namespace: {e}")))?;
    }
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    set_no_new_privs(true)?;
    let (program, rest) = args
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    let mut command = Command::new(program);
    // The environment is the agent's business. `uid` also drops the other groups.
    command
        .args(rest)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    command.gid(args.uid).uid(args.uid);
    Ok(command)
}
