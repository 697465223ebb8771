//! The child's side of a launch: the agent's own program, run anew as
//! `crn-agent launch-vm …`, gives up what QEMU must not have and becomes QEMU.
//!
//! A process of its own instead of code between fork and exec: nothing here has
//! to be async-signal-safe, and no `unsafe` is needed. It runs before any thread
//! is started. Its pid is the pid that QEMU has, so the agent records it first and
//! gives the word to go on afterwards, through standard input: no QEMU ever runs
//! that is not on record. When the agent dies before, the launcher ends.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::{fd::BorrowedFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::plan::FIRST_FD;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, setrlimit, setsid},
    thread::set_no_new_privs,
};

/// The subcommand that is the launcher.
pub const LAUNCH_VM: &str = "launch-vm";
/// The agent's word to go on.
pub const GO: u8 = b'\n';

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
    /// How many descriptors, from number 10 on, are for the program.
    #[arg(long, default_value_t = 0)]
    pub descriptors: i32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes QEMU. Returns only when that failed.
#[must_use]
pub fn run(args: &LauncherArgs) -> io::Error {
    match prepare(args).and_then(|command| await_word().map(|()| command)) {
        Ok(mut command) => command.exec(),
        Err(e) => e,
    }
}

fn await_word() -> io::Result<()> {
    let mut word = [0];
    match io::stdin().read_exact(&mut word) {
        Ok(()) if word == [GO] => Ok(()),
        Ok(()) => Err(io::Error::other("not the agent's word")),
        Err(_) => Err(io::Error::other("the agent is gone")),
    }
}

/// What the agent inherited itself, from whoever started it, is not QEMU's: only
/// the standard streams and the planned descriptors pass.
fn close_on_exec_but(planned: i32) -> io::Result<()> {
    let last = FIRST_FD.saturating_add(planned);
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        if number <= 2 || (FIRST_FD..last).contains(&number) {
            continue;
        }
        #[allow(
            unsafe_code,
            reason = "a descriptor that nothing here owns has only a number"
        )]
        // SAFETY: there is one thread; the number was just listed, and the only one
        // that is closed meanwhile is that of the listing, which is at its end then.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(())
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
    close_on_exec_but(args.descriptors)?;
    // The environment is the agent's business. `uid` also drops the other groups.
    command
        .args(rest)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    command.gid(args.uid).uid(args.uid);
    Ok(command)
}
