//! Namespaces that live as long as their owner.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::Result;

/// The first process of a namespace: reaps what its children leave behind, as an init does.
///
/// Its `/sys` shows the namespace's own interfaces; the cgroups under it stay those of the machine.
const INIT: &str = "
set -e
mount -t tmpfs none /mnt
mkdir /mnt/cgroup
mount --rbind /sys/fs/cgroup /mnt/cgroup
mount -t sysfs none /sys
mount --rbind /mnt/cgroup /sys/fs/cgroup
umount -l /mnt
ip link set lo up
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo ready
sleep infinity </dev/null >/dev/null 2>&1 &
while :; do wait; done
";

/// Network, mount and process namespace of its own. Dropping it kills every process in it.
#[derive(Debug)]
pub struct Namespace {
    unshare: Child,
    init: u32,
}

impl Namespace {
    /// Makes one; needs root.
    ///
    /// # Errors
    /// When the kernel or the tools of util-linux and iproute2 refuse.
    pub fn new() -> Result<Self> {
        // Killed when the thread that made it ends, and the whole namespace with it.
        let mut unshare = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args([
                "--kill-child",
                "--mount-proc",
                "--propagation",
                "private",
                "bash",
                "-c",
                INIT,
            ])
            // Ctrl-C is for the test.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = unshare.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let init = child_of(unshare.id());
        match init {
            Some(init) if line == "ready\n" => Ok(Self { unshare, init }),
            _ => {
                let _ = unshare.kill();
                let _ = unshare.wait();
                Err(
                    "no namespace could be made: root is needed, and util-linux and iproute2"
                        .into(),
                )
            }
        }
    }

    /// A command that runs in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.init.to_string(),
                "--net",
                "--mount",
                "--pid",
                "--wd=/",
                "--",
            ])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// A command that shares only its network, and so sees the machine's processes.
    #[must_use]
    pub fn net_command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--net", "--"])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a function in a thread that is in this network.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or those of the function.
    pub fn enter<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let net = File::open(self.path("net"))?;
        let thread = thread::spawn(move || {
            setns(net, CloneFlags::CLONE_NEWNET)?;
            function()
        });
        thread
            .join()
            .map_err(|_| "a function in a namespace panicked")?
    }

    /// The process that keeps it, as the machine numbers it.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init
    }

    fn path(&self, kind: &str) -> PathBuf {
        format!("/proc/{}/ns/{kind}", self.init).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // The kernel kills the others after their init: links and files are free when they are gone.
        let proc = PathBuf::from(format!("/proc/{}", self.init));
        for _ in 0..500 {
            if !proc.exists() {
                break;
            }
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The first child of a process, as the machine numbers it.
pub(super) fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
