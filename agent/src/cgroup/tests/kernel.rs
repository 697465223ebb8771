//! The limits tried on the running kernel.

use std::{fs, path::Path, process::Command};

use super::{CgroupError, Cgroups, MissingLimit, Removal, plan, read};

/// What the run showed.
#[derive(Debug)]
pub(super) struct SelfCheck {
    /// The kernel says the limits that were written.
    pub(super) in_force: Vec<String>,
    /// Written, and the kernel says something else: file, written, read.
    pub(super) different: Vec<(String, String, String)>,
    /// Required limits that could not be set.
    pub(super) missing: Vec<MissingLimit>,
    /// A process was taken into the group and found there.
    pub(super) process_seen: bool,
    /// Removal was refused while the process lived.
    pub(super) busy_while_used: bool,
    /// Nothing is left.
    pub(super) removed: bool,
}

/// Makes a group of its own under `root_name`, sets the limits of a guest, takes a
/// short-lived process in, reads everything back from the kernel and removes it all.
pub(super) fn self_check(root_name: &str) -> Result<SelfCheck, CgroupError> {
    const NAME: &str = "self-check";
    let cgroups = Cgroups::discover(root_name)?;
    if let Some(why) = cgroups.unavailable() {
        return Err(CgroupError::Unavailable(why.to_owned()));
    }
    let applied = cgroups.prepare(NAME, &plan())?;
    let (mut in_force, mut different) = (Vec::new(), Vec::new());
    for setting in &applied.set {
        let path = cgroups.group(NAME)?.join(setting.file);
        let found = read(&path)?.trim().to_owned();
        if same(&setting.value, &found) {
            in_force.push(setting.file.to_owned());
        } else {
            different.push((setting.file.to_owned(), setting.value.clone(), found));
        }
    }
    let seen = with_process(&cgroups, NAME);
    let removed = cgroups.remove(NAME);
    let root = cgroups.remove_root()?;
    let (process_seen, busy_while_used) = seen?;
    Ok(SelfCheck {
        in_force,
        different,
        missing: applied.missing,
        process_seen,
        busy_while_used,
        removed: removed? == Removal::Removed && root,
    })
}

/// The kernel rounds memory down to pages; weights are read back in several lines.
fn same(written: &str, found: &str) -> bool {
    const PAGE: u64 = 4096;
    match (written.parse::<u64>(), found.parse::<u64>()) {
        (Ok(w), Ok(f)) => f <= w && w - f < PAGE,
        _ => found.lines().any(|line| line == written),
    }
}

fn with_process(cgroups: &Cgroups, name: &str) -> Result<(bool, bool), CgroupError> {
    let program = Path::new("/bin/sleep");
    let fail = |source| CgroupError::File {
        path: program.to_owned(),
        source,
    };
    let mut child = Command::new(program).arg("60").spawn().map_err(fail)?;
    let run = || {
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let procs = cgroups.group(name)?.join("cgroup.procs");
        fs::write(procs, pid.to_string()).map_err(fail)?;
        let seen = cgroups.processes(name)?.contains(&pid);
        let busy = matches!(cgroups.remove(name)?, Removal::Busy(pids) if pids.contains(&pid));
        Ok((seen, busy))
    };
    let result = run();
    let ended = child.kill().and_then(|()| child.wait().map(drop));
    let result = result?;
    ended.map_err(fail)?;
    Ok(result)
}

#[test]
fn read_back_values_are_compared_as_the_kernel_shows_them() {
    for (written, found, equal) in [
        ("130", "130", true),
        ("225000 100000", "225000 100000", true),
        ("225000 100000", "max 100000", false),
        ("8193", "8192", true),
        ("8193", "4096", false),
        ("8192", "8193", false),
        ("0", "max", false),
        ("default 200", "default 200\n8:0 300", true),
    ] {
        assert_eq!(same(written, found), equal, "{written:?} {found:?}");
    }
}
