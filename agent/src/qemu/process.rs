//! A QEMU process: its identity beyond pid reuse, its end, its killing.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{Interest, unix::AsyncFd};

use super::launcher::LAUNCH_VM;

/// A live (or just dead) process, held by a pidfd: never mistaken for another.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    start_ticks: u64,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// When there is none with that pid.
    pub fn open(pid: i32) -> io::Result<Self> {
        let handle = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(handle, PidfdFlags::NONBLOCK)?;
        // Read after the pidfd was had: if the pid was reused, it is this one's.
        let start_ticks = start_ticks(pid)?;
        #[allow(unsafe_code, reason = "tokio's only way that is not deprecated")]
        // SAFETY: the AsyncFd owns the descriptor; an OwnedFd keeps it open, and
        // the same, until it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self {
            pid,
            start_ticks,
            pidfd,
        })
    }

    /// Takes hold of a process, if there is one with that pid.
    ///
    /// # Errors
    /// When that cannot be known, for want of descriptors or memory: the process may
    /// well live.
    pub fn find(pid: i32) -> io::Result<Option<Self>> {
        match Self::open(pid) {
            Ok(process) => Ok(Some(process)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes hold of the process that was recorded, if it still lives.
    ///
    /// # Errors
    /// Those of [`Self::find`].
    pub fn reopen(pid: i32, recorded_start: u64) -> io::Result<Option<Self>> {
        let found = Self::find(pid)?;
        Ok(found.filter(|p| p.start_ticks == recorded_start && p.is_alive()))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When it started, in clock ticks since boot.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// The pidfd, for `pidfd_getfd`.
    #[must_use]
    pub fn pidfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.get_ref().as_fd()
    }

    /// Whether it runs (a zombie does not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(
            self.pidfd.get_ref(),
            rustix::event::PollFlags::IN,
        )];
        let zero = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(rustix::event::poll(&mut fds, Some(&zero)), Ok(0))
    }

    /// Returns when it has exited.
    pub async fn exited(&self) {
        // An error would mean that the descriptor cannot be polled: then ask.
        while self.is_alive() {
            match self.pidfd.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            }
        }
    }

    /// Asks it to end: QEMU flushes its disks and exits. Already dead is fine.
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::TERM);
    }

    /// Kills it. Already dead is fine.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

/// A process that carries a marker of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Its pid.
    pub pid: i32,
    /// The instance that its marker names.
    pub instance: String,
    /// The user that it runs as.
    pub uid: u32,
}

/// This boot's id.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Field 22 of `/proc/PID/stat`.
fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The second field, in parentheses, may contain anything.
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// All processes whose command line carries `crn:<node>:<instance>` and that run
/// as one of the guests' users or as root. Launchers are none of them: one that
/// was given the word is on record, and the others end. Reads all of `/proc` once:
/// for start-up, not for every operation.
#[must_use]
pub fn scan(node: &str, users: std::ops::Range<u32>) -> Vec<Marked> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let instance = marked_instance(&cmdline, node)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uid = parse_uid(&status)?;
        (users.contains(&uid) || uid == 0).then_some(Marked { pid, instance, uid })
    })
    .collect()
}

fn marked_instance(cmdline: &[u8], node: &str) -> Option<String> {
    let prefix = format!("guest=crn:{node}:");
    if cmdline.split(|b| *b == 0).nth(1) == Some(LAUNCH_VM.as_bytes()) {
        return None;
    }
    cmdline.split(|b| *b == 0).find_map(|arg| {
        let rest = std::str::from_utf8(arg).ok()?.strip_prefix(&prefix)?;
        let id = rest.split(',').next()?;
        (id.len() == 64).then(|| id.to_owned())
    })
}

fn parse_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let mut fields = vec!["S"];
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        fields.extend(numbers.iter().map(String::as_str));
        let stat = format!("7 (a) b) (c)) {}", fields.join(" "));
        assert_eq!(parse_start_ticks(&stat), Some(22));
        for bad in ["", "7 (a", "7 (a) S 1 2", "7 (a) S x"] {
            assert_eq!(parse_start_ticks(bad), None);
        }
    }

    #[test]
    fn markers_of_other_nodes_are_not_ours() {
        let id = "ab".repeat(32);
        let line = |node: &str| format!("qemu\0-name\0guest=crn:{node}:{id},debug-threads=on\0");
        assert_eq!(
            marked_instance(line("n1").as_bytes(), "n1"),
            Some(id.clone())
        );
        assert_eq!(marked_instance(line("n2").as_bytes(), "n1"), None);
        assert_eq!(marked_instance(b"guest=crn:n1:short", "n1"), None);
        let launcher = [b"crn-agent\0launch-vm\0--\0", line("n1").as_bytes()].concat();
        assert_eq!(marked_instance(&launcher, "n1"), None);
    }

    #[tokio::test]
    async fn a_process_is_held_until_its_end() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::open(pid).unwrap();
        assert!(process.is_alive());
        let again = |ticks| Process::reopen(pid, ticks).unwrap();
        assert!(again(process.start_ticks()).is_some());
        assert!(again(process.start_ticks() + 1).is_none());
        process.kill();
        process.exited().await;
        assert!(!process.is_alive());
        assert!(
            again(process.start_ticks()).is_none(),
            "a zombie is not alive"
        );
        child.wait().unwrap();
        assert!(Process::find(pid).unwrap().is_none());
    }
}
