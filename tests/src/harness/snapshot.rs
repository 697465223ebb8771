//! What a host has, to be compared with what it had.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Agent, Host, Result, run};

/// Processes, links, addresses, routes, proxied neighbours, firewall, mounts and files of a host, a
/// line each. What changes by itself (numbers, times, the database's bytes) is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Takes one. The agent itself is not part of it.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn take(host: &Host, agent: Option<&Agent<'_>>) -> Result<Self> {
        let mut lines = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            lines.extend(text.lines().map(|line| format!("{kind}: {}", line.trim())));
        };
        add("process", &processes(host, agent)?);
        let ip = |words: &str| run(host.namespace().net_command("ip").args(words.split(' ')));
        // Without flags and numbers that traffic changes.
        let links = run(host
            .namespace()
            .net_command("ls")
            .arg("/proc/sys/net/ipv6/conf"))?;
        add("link", &links);
        add("address", &ip("-o -6 address show scope global")?);
        add("route", &ip("-6 route show table all proto boot")?);
        add("route", &ip("-6 route show proto static")?);
        add("neighbour", &ip("-6 neighbour show proxy")?);
        // Stateless: without counters; sets as they are, but for those that packets fill and time
        // empties.
        let ruleset = run(host
            .namespace()
            .net_command("nft")
            .args(["-s", "list", "ruleset"]))?;
        let metered = |line: &&str| line.contains("\" limit rate");
        let lasting: Vec<_> = ruleset.lines().filter(|line| !metered(line)).collect();
        add("nft", &lasting.join("\n"));
        add(
            "mount",
            &mounts(&run(host
                .namespace()
                .command("cat")
                .arg("/proc/self/mountinfo"))?),
        );
        files(host.dir(), host.dir(), &mut |path| add("file", path))?;
        Ok(Self(lines))
    }

    /// What is here and not there, and the other way round.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

/// Mount points and what is mounted there. Network namespaces of other tests come and go on the
/// machine meanwhile, and their mounts with them.
fn mounts(mountinfo: &str) -> String {
    mountinfo
        .lines()
        .filter(|line| !line.contains(" - nsfs "))
        .map(|line| line.splitn(4, ' ').last().unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// Every process of the host's namespace but its init, the agent, and kernel leftovers.
fn processes(host: &Host, agent: Option<&Agent<'_>>) -> Result<String> {
    let listing = run(host
        .namespace()
        .command("ps")
        .args(["-e", "-o", "pid=,ppid=,stat=,args="]))?;
    let agent = agent.map(Agent::inner_pid).transpose()?;
    let mut lines = String::new();
    for line in listing.lines() {
        let mut words = line.split_whitespace();
        let pid: u64 = words.next().unwrap_or_default().parse()?;
        let rest: Vec<&str> = words.collect();
        let init = pid == 1 || rest.ends_with(&["sleep", "infinity"]);
        if init || Some(pid) == agent || rest.contains(&"ps") {
            continue;
        }
        lines.push_str(&rest.join(" "));
        lines.push('\n');
    }
    Ok(lines)
}

/// Paths below a directory; databases and logs only by name.
fn files(root: &Path, dir: &Path, add: &mut impl FnMut(&str)) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let shown = path.strip_prefix(root)?.display().to_string();
        // SQLite makes and removes these as it likes.
        if shown.ends_with("-wal") || shown.ends_with("-shm") {
            continue;
        }
        add(&shown);
        if path.is_dir() && !path.is_symlink() {
            files(root, &path, add)?;
        }
    }
    Ok(())
}
