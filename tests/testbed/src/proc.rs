//! What the kernel says of a process. Everything panics when the process is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use rustix::process::{Pid, Signal, kill_process};

fn of(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// `/proc/PID/status`, by name.
#[must_use]
pub fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(of(pid, "status")).unwrap();
    let pairs = text.lines().filter_map(|l| l.split_once(':'));
    pairs
        .map(|(k, v)| {
            (
                k.to_owned(),
                v.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect()
}

/// A namespace of a process: `net`, `ipc`.
#[must_use]
pub fn namespace(pid: i32, kind: &str) -> PathBuf {
    fs::read_link(of(pid, &format!("ns/{kind}"))).unwrap()
}

/// The namespace of this thread.
#[must_use]
pub fn own_namespace(kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap()
}

/// Open descriptors and what they are.
#[must_use]
pub fn descriptors(pid: i32) -> BTreeMap<i32, String> {
    let entries = fs::read_dir(of(pid, "fd")).unwrap().flatten();
    entries
        .filter_map(|e| {
            let target = fs::read_link(e.path()).ok()?;
            let number = e.file_name().to_str()?.parse().ok()?;
            Some((number, target.to_str()?.to_owned()))
        })
        .collect()
}

/// The arguments of a process.
#[must_use]
pub fn arguments(pid: i32) -> Vec<String> {
    words(&fs::read(of(pid, "cmdline")).unwrap())
}

/// The environment of a process.
#[must_use]
pub fn environment(pid: i32) -> Vec<String> {
    words(&fs::read(of(pid, "environ")).unwrap())
}

fn words(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// Soft and hard limit, as `/proc/PID/limits` has them.
#[must_use]
pub fn limit(pid: i32, name: &str) -> (String, String) {
    let text = fs::read_to_string(of(pid, "limits")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// The session that a process belongs to.
#[must_use]
pub fn session(pid: i32) -> i32 {
    let stat = fs::read_to_string(of(pid, "stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Inodes of the unix sockets of this thread's network that are bound below `dir`:
/// those that listen, and the ends of connections that they accepted.
#[must_use]
pub fn sockets_below(dir: &str) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
    let fields = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|f| f.get(7).is_some_and(|path| path.starts_with(dir)))
        .filter_map(|f| f.get(6).map(|inode| format!("socket:[{inode}]")))
        .collect()
}

/// Sends a signal to a process that the test started; one that is gone is fine.
pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
