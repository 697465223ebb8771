use super::{super::directory, *};
use crate::host::directory::{DirectoryFacts, gather};

#[test]
fn who_may_look_into_the_state_directory() {
    let us = rustix::process::geteuid().as_raw();
    let facts = |owner, above: Option<&str>| DirectoryFacts {
        path: "/var/lib/crn-agent".into(),
        owner,
        open_above: above.map(Into::into),
    };
    for (facts, status, words) in [
        (facts(None, None), Good, "not there yet"),
        (facts(Some((us, 0o700)), None), Good, "0700"),
        (facts(Some((0, 0o700)), None), Good, "0700"),
        (facts(Some((0, 0o755)), None), Degraded, "0755"),
        (facts(Some((0, 0o710)), None), Degraded, "0710"),
        (facts(Some((4711, 0o700)), None), Missing, "user 4711"),
        (
            facts(Some((0, 0o700)), Some("/var/lib")),
            Degraded,
            "/var/lib can be written",
        ),
    ] {
        let check = directory::state(&std::io::Result::Ok(facts));
        assert_eq!(check.status, status, "{check:?}");
        assert!(check.found.contains(words), "{check:?}");
    }
    let lost = directory::state(&Err(std::io::Error::other("no answer")));
    assert_eq!(lost.status, Degraded);
}

#[test]
fn a_directory_is_looked_at() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("open/state");
    assert_eq!(gather(&dir).unwrap().owner, None);
    std::fs::create_dir_all(&dir).unwrap();
    let open = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(top.path().join("open"), mode).unwrap();
        gather(&dir).unwrap().open_above
    };
    assert_eq!(open(0o777), Some(top.path().join("open")));
    // As /tmp is.
    assert_eq!(open(0o1777), None);
    assert_eq!(open(0o755), None);
}
