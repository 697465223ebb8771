//! What no record owns: processes, sockets, disks, volumes, cgroups, left-overs of
//! downloads. Run once at the agent's start, before requests are taken.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crn_api_types::EventKind;
use serde_json::json;
use tracing::warn;

use crate::{
    db::InstanceRow,
    fs::{blocking, remove_known},
    ids::InstanceId,
    life::Phase,
    node::Node,
    paths::{InstanceFile, Paths},
    qemu::{
        plan::socket,
        process::{Marked, Process},
    },
    volume,
};

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Something that no record owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// A stable word.
    pub kind: &'static str,
    /// Which.
    pub what: String,
    /// Removed, or why not.
    pub outcome: Result<(), String>,
}

/// Which processes are whose. Pure.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// The QEMU of each instance on record.
    pub owned: HashMap<String, i32>,
    /// Processes that nobody owns.
    pub orphans: Vec<i32>,
}

/// Takes out the processes that carry an instance's marker and run as another user than
/// its own: the marker is a process's to write. Pure.
#[must_use]
pub fn forged(marked: &mut Vec<Marked>, users: &HashMap<String, u32>) -> Vec<i32> {
    let is_forged = |m: &Marked| {
        let user = users.get(&m.instance);
        m.uid != 0 && user.is_some_and(|user| *user != m.uid)
    };
    let found = marked.iter().filter(|m| is_forged(m)).map(|m| m.pid);
    let found = found.collect();
    marked.retain(|m| !is_forged(m));
    found
}

/// Sorts marked processes by the records. Of several that carry one instance's
/// marker, the recorded one is its QEMU, else the oldest.
#[must_use]
pub fn sort(marked: &[Marked], recorded: &HashMap<String, Option<i32>>) -> Sorted {
    let mut sorted = Sorted::default();
    for process in marked {
        match recorded.get(&process.instance) {
            None => sorted.orphans.push(process.pid),
            Some(known) => match sorted.owned.get(&process.instance).copied() {
                None => {
                    sorted.owned.insert(process.instance.clone(), process.pid);
                }
                Some(other) => {
                    let better = *known == Some(process.pid)
                        || (*known != Some(other) && process.pid < other);
                    let (kept, surplus) = if better {
                        (process.pid, other)
                    } else {
                        (other, process.pid)
                    };
                    sorted.owned.insert(process.instance.clone(), kept);
                    sorted.orphans.push(surplus);
                }
            },
        }
    }
    sorted
}

/// Kills processes and waits for their end.
pub async fn kill(pids: &[i32]) -> Vec<Orphan> {
    let mut killed = Vec::new();
    for &pid in pids {
        let Ok(process) = Process::open(pid) else {
            continue;
        };
        process.kill();
        let gone = tokio::time::timeout(KILL_LIMIT, process.exited()).await;
        let outcome = gone.map_err(|_| format!("still alive after {} s", KILL_LIMIT.as_secs()));
        killed.push(Orphan {
            kind: "process",
            what: format!("QEMU {pid}"),
            outcome,
        });
    }
    killed
}

/// Removes files, directories, cgroups and left-overs that no record owns. Gives
/// also what is in the agent's directories and not recognisably its own.
pub async fn files(node: &Arc<Node>, rows: &[InstanceRow]) -> io::Result<Vec<Orphan>> {
    let volumes = node.db.volumes().await.map_err(io::Error::other)?;
    let ids: HashSet<String> = rows.iter().map(|r| r.id.to_string()).collect();
    // A run directory belongs to a QEMU; who has none needs no sockets.
    let live =
        |r: &&InstanceRow| r.phase.may_have_qemu() || matches!(r.phase, Phase::Deleting { .. });
    let runs: HashSet<String> = rows
        .iter()
        .filter(live)
        .map(|r| r.id.short().to_owned())
        .collect();
    let volumes: HashSet<String> = volumes
        .into_iter()
        .map(|v| volume::file_name(&v.id))
        .collect();
    let node = node.clone();
    blocking(move || {
        let mut found = Vec::new();
        let paths = &node.paths;
        for path in list(&paths.runs())? {
            found.extend(orphan_dir("run directory", &path, &runs, 16, &socket::ALL));
        }
        for path in list(&paths.instances())? {
            found.extend(orphan_dir(
                "instance",
                &path,
                &ids,
                64,
                &InstanceFile::names(),
            ));
        }
        for path in list(&paths.volumes())? {
            found.extend(orphan_volume(&path, &volumes));
        }
        found.extend(cgroups(&node, &ids));
        found.extend(images(&node));
        Ok(found)
    })
    .await
}

/// What there is on disk although the database is new: somebody's disks, whose
/// records were lost. Nothing may be removed then.
pub fn without_records(node_paths: &Paths) -> io::Result<Option<PathBuf>> {
    let dirs = list(&node_paths.instances())?
        .into_iter()
        .filter(|p| is_hex(name(p), 64));
    let volumes = list(&node_paths.volumes())?
        .into_iter()
        .filter(|p| volume::id_of(name(p)).is_some());
    Ok(dirs.chain(volumes).next())
}

/// Tells of what was found.
pub fn report(node: &Node, found: &[Orphan]) {
    for Orphan {
        kind,
        what,
        outcome,
    } in found
    {
        match outcome {
            Ok(()) => {
                warn!("removed: {kind} {what}, which no record owns");
                node.events.emit(
                    None,
                    EventKind::OrphanRemoved,
                    json!({ "kind": kind, "what": what }),
                );
            }
            Err(e) => {
                warn!("left alone: {kind} {what}: {e}");
                let data = json!({ "kind": kind, "what": what, "why": e });
                node.events.emit(None, EventKind::UnknownLeftAlone, data);
            }
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default()
}

fn is_hex(name: &str, digits: usize) -> bool {
    name.len() == digits && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn unknown(kind: &'static str, path: &Path) -> Orphan {
    let outcome = Err("not recognisably the agent's".into());
    Orphan {
        kind,
        what: path.display().to_string(),
        outcome,
    }
}

/// A directory named by so many digits that is nobody's goes, with the files that
/// the agent puts into such directories.
fn orphan_dir(
    kind: &'static str,
    path: &Path,
    owned: &HashSet<String>,
    digits: usize,
    files: &[&str],
) -> Option<Orphan> {
    if owned.contains(name(path)) {
        return None;
    }
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    if !is_hex(name(path), digits) || !is_dir {
        return Some(unknown(kind, path));
    }
    let outcome = remove_known(path, files).map_err(|e| e.to_string());
    Some(Orphan {
        kind,
        what: path.display().to_string(),
        outcome,
    })
}

fn orphan_volume(path: &Path, owned: &HashSet<String>) -> Option<Orphan> {
    let kind = "volume";
    if owned.contains(name(path)) {
        return None;
    }
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    // `.new-…` is what a creation that was cut off leaves.
    if !is_file || (volume::id_of(name(path)).is_none() && !name(path).starts_with(".new-")) {
        return Some(unknown(kind, path));
    }
    let outcome = fs::remove_file(path).map_err(|e| e.to_string());
    Some(Orphan {
        kind,
        what: path.display().to_string(),
        outcome,
    })
}

fn cgroups(node: &Node, ids: &HashSet<String>) -> Vec<Orphan> {
    let unowned = match node.cgroups.unowned(ids.iter().map(String::as_str)) {
        Ok(unowned) => unowned,
        Err(e) => {
            warn!("cgroups: {e}");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for group in unowned {
        let outcome = if group.parse::<InstanceId>().is_err() {
            Err("not recognisably the agent's".to_owned())
        } else {
            use crate::cgroup::Removal::{Absent, Busy, Removed};
            match node.cgroups.remove(&group) {
                Ok(Removed) => Ok(()),
                Ok(Absent) => continue,
                Ok(Busy(pids)) => Err(format!("processes {pids:?} are in it")),
                Err(e) => Err(e.to_string()),
            }
        };
        found.push(Orphan {
            kind: "cgroup",
            what: group,
            outcome,
        });
    }
    found
}

fn images(node: &Node) -> Vec<Orphan> {
    let report = match node.images.store.sweep() {
        Ok(report) => report,
        Err(e) => {
            warn!("image store: {e}");
            return Vec::new();
        }
    };
    let kind = "image left-over";
    let removed = report.removed.iter().map(|path| Orphan {
        kind,
        what: path.display().to_string(),
        outcome: Ok(()),
    });
    removed
        .chain(report.unknown.iter().map(|path| unknown("image", path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(pid: i32, instance: &str) -> Marked {
        Marked {
            pid,
            instance: instance.into(),
            uid: 7,
        }
    }

    #[test]
    fn a_marker_of_another_users_process_is_not_believed() {
        let users = HashMap::from([("a".to_owned(), 7), ("b".to_owned(), 8)]);
        let mut root = marked(4, "b");
        root.uid = 0;
        let mut found = vec![
            marked(1, "a"),
            marked(2, "b"),
            marked(3, "unknown"),
            root.clone(),
        ];
        assert_eq!(forged(&mut found, &users), [2]);
        assert_eq!(found, [marked(1, "a"), marked(3, "unknown"), root]);
    }

    #[test]
    fn processes_are_sorted_by_the_records() {
        let recorded = HashMap::from([
            ("a".to_owned(), Some(7)),
            ("b".to_owned(), None),
            ("c".to_owned(), Some(1)),
        ]);
        let found = [
            marked(5, "a"),
            marked(7, "a"),
            marked(9, "b"),
            marked(8, "b"),
            marked(3, "x"),
        ];
        let sorted = sort(&found, &recorded);
        assert_eq!(
            sorted.owned,
            HashMap::from([("a".into(), 7), ("b".into(), 8)])
        );
        assert_eq!(sorted.orphans, [5, 9, 3]);
        assert_eq!(
            sort(&[marked(7, "a"), marked(5, "a")], &recorded).orphans,
            [5]
        );
    }

    #[test]
    fn only_what_is_recognisably_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        let make = |name: &str, files: &[&str]| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            for file in files {
                fs::write(path.join(file), "").unwrap();
            }
            path
        };
        let ours = make(&id, &["root.qcow2", "seed.iso", "seed.tmp", ".new-root-1"]);
        let mixed = make(&"cd".repeat(32), &["root.qcow2", "thesis.tex"]);
        let foreign = make("backup", &["root.qcow2"]);
        let owned = make(&"ef".repeat(32), &["root.qcow2"]);
        let link = dir.path().join("12".repeat(32));
        std::os::unix::fs::symlink(&owned, &link).unwrap();
        let records = HashSet::from(["ef".repeat(32)]);
        let files = InstanceFile::names();
        let go = |path: &Path| orphan_dir("instance", path, &records, 64, &files);
        assert_eq!(go(&ours).unwrap().outcome, Ok(()));
        assert!(!ours.exists());
        let refused = go(&mixed).unwrap().outcome.unwrap_err();
        assert!(refused.contains("thesis.tex"), "{refused}");
        assert!(mixed.join("thesis.tex").exists());
        assert!(go(&foreign).unwrap().outcome.is_err() && foreign.join("root.qcow2").exists());
        assert!(go(&link).unwrap().outcome.is_err() && link.exists());
        assert_eq!(go(&owned), None);
        assert!(owned.join("root.qcow2").exists());
    }

    #[test]
    fn volumes_of_nobody_go_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let records = HashSet::from(["00112233445566aa.qcow2".to_owned()]);
        let table = [
            ("00112233445566aa.qcow2", true),
            ("00112233445566bb.qcow2", false),
            (".new-00112233445566bb-1", false),
            ("notes.txt", true),
            ("00112233445566BB.qcow2", true),
        ];
        for (name, stays) in table {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            orphan_volume(&path, &records);
            assert_eq!(path.exists(), stays, "{name}");
        }
    }
}
