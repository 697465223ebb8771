//! cgroup v2 limits, one group for each instance.
//!
//! Groups are `<cgroup2 mount>/<root name>/<instance>`. What the host's kernel has
//! no controller for is not limited, and [`Applied::missing`] says so; where there
//! is no writable cgroup2 at all, nothing is done and [`Cgroups::unavailable`]
//! says why. Invariants: nothing outside the root's own directory is written but
//! the mount's `cgroup.subtree_control`; no controller is ever taken away; no
//! process is killed here. Every operation may be repeated.
//!
//! All functions block for a few small files; call them where that is allowed.
//! Source: the kernel's Documentation/admin-guide/cgroup-v2.rst.

pub mod plan;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::mounts::{self, Hierarchy};
pub use plan::{CgroupPlan, Setting};

/// Why a group could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Not usable as the name of a group.
    #[error("{0:?} is not a name for a cgroup: 1 to 64 of a-z, 0-9 and '-'")]
    Name(String),
    /// A file or directory of the hierarchy.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no cgroup2 to use.
    #[error("no cgroup limits on this host: {0}")]
    Unavailable(String),
}

/// A limit that was not set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingLimit {
    /// The file: `memory.max`.
    pub file: String,
    /// Why, in words.
    pub why: String,
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// The file that takes a process into the group; `None` where there are no groups.
    pub procs: Option<PathBuf>,
    /// Limits in force.
    pub set: Vec<Setting>,
    /// Required limits that are not in force: worth a warning.
    pub missing: Vec<MissingLimit>,
}

/// What came of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There was none.
    Absent,
    /// Processes are still in it; it stays.
    Busy(Vec<i32>),
}

/// The agent's part of the cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    place: Result<Place, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The root of the mounted hierarchy.
    mount: PathBuf,
    /// The agent's own group in it.
    root: PathBuf,
}

impl Cgroups {
    /// Looks for a writable cgroup2 mount. `root_name` is the agent's group in it;
    /// agents that share a host must have different ones. Writes nothing.
    ///
    /// # Errors
    /// [`CgroupError::Name`]; a host without cgroup2 is no error.
    pub fn discover(root_name: &str) -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        match read(path) {
            Ok(text) => Self::among(&mounts::parse(&text), root_name),
            Err(e) => Self::none(e.to_string(), root_name),
        }
    }

    /// Takes the first version 2 hierarchy that has controllers, else the first.
    fn among(hierarchies: &[Hierarchy], root_name: &str) -> Result<Self, CgroupError> {
        let v2: Vec<_> = hierarchies
            .iter()
            .filter_map(|h| match h {
                Hierarchy::V2(path) => Some(path),
                Hierarchy::V1(..) => None,
            })
            .collect();
        let has_controllers = |p: &&&PathBuf| controllers(p).is_ok_and(|c| !c.is_empty());
        match v2.iter().find(has_controllers).or(v2.first()) {
            Some(mount) => Self::at(mount, root_name),
            None => Self::none(
                "no writable cgroup2 file system is mounted".into(),
                root_name,
            ),
        }
    }

    /// Uses the hierarchy mounted at `mount`.
    ///
    /// # Errors
    /// [`CgroupError::Name`].
    pub fn at(mount: &Path, root_name: &str) -> Result<Self, CgroupError> {
        checked(root_name)?;
        let control = mount.join("cgroup.subtree_control");
        let place = match fs::OpenOptions::new().write(true).open(&control) {
            Ok(_) => Ok(Place {
                mount: mount.to_owned(),
                root: mount.join(root_name),
            }),
            Err(e) => Err(format!("{}: {e}", control.display())),
        };
        Ok(Self { place })
    }

    fn none(why: String, root_name: &str) -> Result<Self, CgroupError> {
        checked(root_name)?;
        Ok(Self { place: Err(why) })
    }

    /// Why there are no groups on this host, if there are none.
    #[must_use]
    pub fn unavailable(&self) -> Option<&str> {
        self.place.as_ref().err().map(String::as_str)
    }

    /// The controllers that the host offers on cgroup2.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<String> {
        self.place
            .as_ref()
            .ok()
            .and_then(|p| controllers(&p.mount).ok())
            .unwrap_or_default()
    }

    /// Makes the instance's group, or finds it, and sets its limits. Limits of a
    /// group that exists are changed to the plan's.
    ///
    /// # Errors
    /// When the group cannot be made. A limit that cannot be set is no error but
    /// among [`Applied::missing`].
    pub fn prepare(&self, name: &str, plan: &CgroupPlan) -> Result<Applied, CgroupError> {
        checked(name)?;
        let place = match &self.place {
            Ok(place) => place,
            Err(why) => {
                let missing = plan.settings.iter().filter(|s| s.required);
                return Ok(Applied {
                    procs: None,
                    set: Vec::new(),
                    missing: missing
                        .map(|s| MissingLimit {
                            file: s.file.into(),
                            why: why.clone(),
                        })
                        .collect(),
                });
            }
        };
        make_dir(&place.root)?;
        let offered = controllers(&place.mount)?;
        // One by one, so that one that is refused does not take the others along.
        let mut refused = Vec::new();
        for controller in plan
            .controllers()
            .into_iter()
            .filter(|&c| offered.contains(c))
        {
            let enabled =
                enable(&place.mount, controller).and_then(|()| enable(&place.root, controller));
            if let Err(e) = enabled {
                refused.push((controller, e.to_string()));
            }
        }
        let group = place.root.join(name);
        make_dir(&group)?;
        let (mut set, mut missing) = (Vec::new(), Vec::new());
        for setting in &plan.settings {
            let file = group.join(setting.file);
            let why = if !offered.contains(setting.controller) {
                format!(
                    "the host has no controller '{}' on cgroup2",
                    setting.controller
                )
            } else if let Some((_, why)) = refused.iter().find(|(c, _)| *c == setting.controller) {
                why.clone()
            } else if let Err(e) = write(&file, &setting.value) {
                e.to_string()
            } else {
                set.push(setting.clone());
                continue;
            };
            if setting.required {
                missing.push(MissingLimit {
                    file: setting.file.into(),
                    why,
                });
            }
        }
        Ok(Applied {
            procs: Some(group.join("cgroup.procs")),
            set,
            missing,
        })
    }

    /// Processes in a group; none where it is missing.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn processes(&self, name: &str) -> Result<Vec<i32>, CgroupError> {
        let path = self.group(name)?.join("cgroup.procs");
        match read(&path) {
            // 0 stands for a process of another pid namespace.
            Ok(text) => Ok(text.lines().filter_map(|l| l.trim().parse().ok()).collect()),
            Err(CgroupError::File { source, .. }) if gone(&source) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// Removes a group that has no processes any more.
    ///
    /// # Errors
    /// When it cannot be removed for another reason than processes in it.
    pub fn remove(&self, name: &str) -> Result<Removal, CgroupError> {
        let group = match self.group(name) {
            Err(CgroupError::Unavailable(_)) => return Ok(Removal::Absent),
            other => other?,
        };
        match fs::remove_dir(&group) {
            Ok(()) => Ok(Removal::Removed),
            Err(e) if gone(&e) => Ok(Removal::Absent),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                Ok(Removal::Busy(self.processes(name)?))
            }
            Err(source) => Err(CgroupError::File {
                path: group,
                source,
            }),
        }
    }

    /// Removes the agent's own group if no instance has one any more; gives
    /// whether it is gone.
    ///
    /// # Errors
    /// When it cannot be removed for another reason than groups in it.
    pub fn remove_root(&self) -> Result<bool, CgroupError> {
        let Ok(place) = &self.place else {
            return Ok(true);
        };
        match fs::remove_dir(&place.root) {
            Ok(()) => Ok(true),
            Err(e) if gone(&e) => Ok(true),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(false)
            }
            Err(source) => Err(CgroupError::File {
                path: place.root.clone(),
                source,
            }),
        }
    }

    /// Names of all groups below the agent's own: what the sweep compares with the
    /// instances on record.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn groups(&self) -> Result<BTreeSet<String>, CgroupError> {
        let Ok(place) = &self.place else {
            return Ok(BTreeSet::new());
        };
        let fail = |source| CgroupError::File {
            path: place.root.clone(),
            source,
        };
        let entries = match fs::read_dir(&place.root) {
            Err(e) if gone(&e) => return Ok(BTreeSet::new()),
            other => other.map_err(fail)?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            if entry.file_type().is_ok_and(|t| t.is_dir())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// The groups that none of `owned` has.
    ///
    /// # Errors
    /// As [`Cgroups::groups`].
    pub fn unowned<'a>(
        &self,
        owned: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeSet<String>, CgroupError> {
        let mut names = self.groups()?;
        for name in owned {
            names.remove(name);
        }
        Ok(names)
    }

    /// The directory of a group, whether it exists or not.
    fn group(&self, name: &str) -> Result<PathBuf, CgroupError> {
        checked(name)?;
        match &self.place {
            Ok(place) => Ok(place.root.join(name)),
            Err(why) => Err(CgroupError::Unavailable(why.clone())),
        }
    }
}

fn checked(name: &str) -> Result<(), CgroupError> {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(CgroupError::Name(name.chars().take(80).collect()))
    }
}

/// The group, or the process meant, does not exist (any more).
fn gone(e: &io::Error) -> bool {
    // ENODEV: read from a file of a group that is being removed.
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(19)
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes to a file that the kernel made; never creates one.
fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    use io::Write;
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::File {
            path: path.to_owned(),
            source,
        })
}

fn controllers(group: &Path) -> Result<BTreeSet<String>, CgroupError> {
    let text = read(&group.join("cgroup.controllers"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Lets the group's children use a controller.
fn enable(group: &Path, controller: &str) -> Result<(), CgroupError> {
    let control = group.join("cgroup.subtree_control");
    if read(&control)?.split_whitespace().any(|c| c == controller) {
        return Ok(());
    }
    write(&control, &format!("+{controller}"))
}

#[cfg(test)]
mod tests;
