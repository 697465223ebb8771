//! The child's side of a launch: the agent's own program, run anew as
//! `crn-agent launch-vm …`, gives up what QEMU must not have and becomes QEMU.
//!
//! A process of its own instead of code between fork and exec: nothing here has
//! to be async-signal-safe, and no `unsafe` is needed. It runs before any thread
//! is started. Its pid is the pid that QEMU has, so the agent records it first and
//! gives the word to go on afterwards, through standard input: no QEMU ever runs
//! that is not on record. When the agent dies before, the launcher ends.
//!
//! All that needs privileges or `/proc` comes before the private root, all that would
//! take away what a later step needs comes after it: see [`prepare`] and [`shut_in`].

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::{fd::BorrowedFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::sethostname,
};
use rustix::{
    fs::Mode,
    io::{FdFlags, fcntl_setfd},
    process::{setsid, umask},
    thread::set_no_new_privs,
};

use super::{
    confine::{
        Lock, landlock, privileges,
        root::{self, Contents},
        seccomp,
    },
    plan::FIRST_FD,
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
    /// The longest file that it may write, bytes.
    #[arg(long)]
    pub largest_file: Option<u64>,
    /// A file for the private root: what the next descriptor after the program's holds
    /// gets this path.
    #[arg(long)]
    pub place: Vec<PathBuf>,
    /// A device node for the private root.
    #[arg(long)]
    pub device: Vec<PathBuf>,
    /// A library that the program is made to load first.
    #[cfg(feature = "fault-points")]
    #[arg(long)]
    pub preload: Option<PathBuf>,
    /// A confinement that the host refuses.
    #[arg(long, value_enum)]
    pub without: Vec<Lock>,
    /// Go all the way, and end instead of becoming the program.
    #[arg(long)]
    pub check: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl LauncherArgs {
    fn has(&self, lock: Lock) -> bool {
        !self.without.contains(&lock)
    }
}

/// Becomes QEMU. Returns only when that failed, or with nothing after a check.
///
/// # Errors
/// What kept it from becoming QEMU.
pub fn run(args: &LauncherArgs) -> io::Result<()> {
    let (mut command, contents) = prepare(args)?;
    if args.check {
        shut_in(args, &contents)?;
        return Ok(());
    }
    await_word()?;
    shut_in(args, &contents)?;
    Err(command.exec())
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

/// What needs the host: groups, namespaces, the private root.
fn prepare(args: &LauncherArgs) -> io::Result<(Command, Contents)> {
    // A session of its own: no terminal's signals, no death with the agent's group.
    setsid().map_err(|e| io::Error::other(format!("setsid: {e}")))?;
    if let Some(procs) = &args.cgroup_procs {
        // The writer itself: in a PID namespace its number is another one.
        fs::write(procs, "0")
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", procs.display())))?;
    }
    if let Err(e) = privileges::usual_oom_score() {
        eprintln!("the out-of-memory score stays the agent's: {e}");
    }
    close_on_exec_but(args.descriptors)?;
    let (program, rest) = args
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    let program = fs::canonicalize(program).map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("{}: {e}", PathBuf::from(program).display()),
        )
    })?;
    let first = FIRST_FD.saturating_add(args.descriptors);
    let contents = Contents {
        program,
        files: (first..).zip(args.place.iter().cloned()).collect(),
        devices: args.device.clone(),
        uid: args.uid,
        #[cfg(feature = "fault-points")]
        preload: args.preload.clone(),
    };
    let mut command = Command::new(&contents.program);
    // The environment is the agent's business.
    command
        .args(rest)
        .stdin(Stdio::from(File::open("/dev/null")?))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/");
    #[cfg(feature = "fault-points")]
    if let Some(library) = &args.preload {
        command.env("LD_PRELOAD", library);
    }
    // `uid` also drops the other groups.
    command.gid(args.uid).uid(args.uid);

    let mut namespaces = CloneFlags::CLONE_NEWIPC;
    if args.isolate_network {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    if args.has(Lock::PrivateRoot) {
        namespaces |=
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    }
    let brings_files = !args.place.is_empty() || !args.device.is_empty();
    if brings_files && !args.has(Lock::PrivateRoot) {
        let message = "this guest needs files in a private root, which the host refuses";
        return Err(io::Error::other(message));
    }
    unshare(namespaces).map_err(|e| io::Error::other(format!("new namespaces: {e}")))?;
    if args.has(Lock::PrivateRoot) {
        // The program's user must get through the directories that are made now.
        let before = umask(Mode::from_raw_mode(0o022));
        root::enter(&contents)?;
        umask(before);
        // A new namespace begins with the host's name.
        sethostname("guest").map_err(|e| io::Error::other(format!("host name: {e}")))?;
    }
    privileges::limit(args.largest_file)?;
    privileges::empty_bounding_set()?;
    set_no_new_privs(true)?;
    Ok((command, contents))
}

/// What this process could not undo, nor do much after.
fn shut_in(args: &LauncherArgs, contents: &Contents) -> io::Result<()> {
    if args.has(Lock::Landlock) {
        let mut readable = contents.readable();
        readable.extend(contents.placed().cloned());
        landlock::restrict(&readable, &contents.nodes())?;
    }
    if args.has(Lock::Seccomp) {
        seccomp::restrict()?;
    }
    Ok(())
}
