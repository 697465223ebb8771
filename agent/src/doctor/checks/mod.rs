//! From facts to verdicts. Pure, apart from [`cgroups`] which reads.

pub mod confinement;
pub mod directory;
pub mod net;
pub mod others;
pub mod sev;
pub mod system;
pub mod virt;

use std::{collections::BTreeSet, path::Path};

use super::{CATALOGUE, Check, Status};
use crate::{
    cgroup::Cgroups,
    mounts::{self, Hierarchy, Layout},
};

/// A check with title and weight from the catalogue.
pub(super) fn check(
    id: &'static str,
    status: Status,
    found: impl Into<String>,
    meaning: impl Into<String>,
    remedy: Option<&str>,
) -> Check {
    let entry = CATALOGUE.iter().find(|e| e.id == id);
    Check {
        id,
        title: entry.map_or(id, |e| e.title),
        required: entry.is_some_and(|e| e.required),
        status,
        found: found.into(),
        meaning: meaning.into(),
        remedy: remedy.map(str::to_owned),
    }
}

/// The host's cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupFacts {
    /// How they are mounted.
    pub layout: Layout,
    /// Controllers on version 2.
    pub controllers: BTreeSet<String>,
    /// Controllers that version 1 holds.
    pub held_by_v1: BTreeSet<String>,
    /// Why version 2 cannot be used, if it cannot.
    pub unavailable: Option<String>,
}

/// Reads them. Blocks for a few small files.
#[must_use]
pub fn cgroups() -> CgroupFacts {
    let mountinfo = crate::host::text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let hierarchies = mounts::parse(&mountinfo);
    let held_by_v1 = hierarchies
        .iter()
        .filter_map(|h| match h {
            Hierarchy::V1(_, controllers) => Some(controllers.iter().cloned()),
            Hierarchy::V2(_) => None,
        })
        .flatten()
        .collect();
    // The name is not used: nothing is made.
    let (controllers, unavailable) = match Cgroups::discover("crn-agent") {
        Ok(c) => (c.controllers(), c.unavailable().map(str::to_owned)),
        Err(e) => (BTreeSet::new(), Some(e.to_string())),
    };
    CgroupFacts {
        layout: mounts::layout(&hierarchies),
        controllers,
        held_by_v1,
        unavailable,
    }
}

/// `a, b and c`.
fn list<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<S> = words.into_iter().collect();
    match words.split_last() {
        None => "none".into(),
        Some((last, [])) => last.as_ref().into(),
        Some((last, front)) => {
            let front: Vec<_> = front.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", front.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests;
