mod kernel;

use super::*;
use crate::qemu::plan::Accelerator;
use kernel::self_check;

fn plan() -> CgroupPlan {
    CgroupPlan::new(2, 512, Accelerator::Kvm)
}

/// Directory and files that stand for a mounted hierarchy: only what is written
/// where is tested with it, not what the kernel makes of it.
fn imitation(controllers: &str, files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let group = dir.path().join("crn-agent/0123456789abcdef");
    fs::create_dir_all(&group).unwrap();
    fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
    for control in [dir.path(), &dir.path().join("crn-agent")] {
        fs::write(control.join("cgroup.subtree_control"), "").unwrap();
    }
    for file in files {
        fs::write(group.join(file), "").unwrap();
    }
    dir
}

const ID: &str = "0123456789abcdef";
const ALL: &[&str] = &[
    "cpu.max",
    "cpu.weight",
    "memory.max",
    "memory.swap.max",
    "io.weight",
    "pids.max",
];

#[test]
fn limits_go_to_their_files_and_controllers_are_enabled_on_the_way() {
    let dir = imitation("cpuset cpu io memory pids", ALL);
    let cgroups = Cgroups::at(dir.path(), "crn-agent").unwrap();
    let applied = cgroups.prepare(ID, &plan()).unwrap();
    assert_eq!(applied.missing, []);
    let group = dir.path().join("crn-agent").join(ID);
    assert_eq!(applied.procs, Some(group.join("cgroup.procs")));
    assert_eq!(applied.set.len(), 6);
    for setting in &applied.set {
        assert_eq!(
            fs::read_to_string(group.join(setting.file)).unwrap(),
            setting.value
        );
    }
    // Each is written by itself; a plain file keeps the last one.
    let control = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
    assert!(control.contains("+pids"), "{control}");
}

#[test]
fn what_is_lacking_is_named_with_its_reason() {
    for (controllers, files, missing) in [
        ("cpu memory pids", ALL, &[][..]),
        ("cpu pids", ALL, &["memory.max"][..]),
        (
            "",
            ALL,
            &["cpu.max", "cpu.weight", "memory.max", "pids.max"][..],
        ),
        // Offered, but the file does not appear.
        (
            "cpu memory pids",
            &["cpu.max", "cpu.weight", "pids.max"][..],
            &["memory.max"][..],
        ),
    ] {
        let dir = imitation(controllers, files);
        let cgroups = Cgroups::at(dir.path(), "crn-agent").unwrap();
        let applied = cgroups.prepare(ID, &plan()).unwrap();
        let found: Vec<_> = applied.missing.iter().map(|m| m.file.as_str()).collect();
        assert_eq!(found, missing, "{controllers}");
        assert!(applied.missing.iter().all(|m| !m.why.is_empty()));
        // Never created by the agent.
        let made = fs::read_dir(dir.path().join("crn-agent").join(ID))
            .unwrap()
            .count();
        assert_eq!(made, files.len());
    }
}

#[test]
fn a_host_without_cgroup2_is_no_error() {
    let v1 = [Hierarchy::V1("/sys/fs/cgroup/cpu".into(), BTreeSet::new())];
    let read_only = Cgroups::at(Path::new("/proc/does-not-exist"), "crn-agent").unwrap();
    for cgroups in [Cgroups::among(&v1, "crn-agent").unwrap(), read_only] {
        assert!(cgroups.unavailable().is_some());
        let applied = cgroups.prepare(ID, &plan()).unwrap();
        assert_eq!(applied.procs, None);
        assert_eq!(applied.missing.len(), 4);
        assert_eq!(cgroups.remove(ID).unwrap(), Removal::Absent);
        assert!(cgroups.groups().unwrap().is_empty());
        assert!(cgroups.remove_root().unwrap());
    }
}

#[test]
fn names_cannot_leave_the_root() {
    let dir = imitation("cpu", &[]);
    let cgroups = Cgroups::at(dir.path(), "crn-agent").unwrap();
    let long = "a".repeat(65);
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "../x",
        "A",
        "a\0",
        "cgroup.procs",
        &long,
    ] {
        assert!(
            matches!(cgroups.prepare(name, &plan()), Err(CgroupError::Name(_))),
            "{name:?}"
        );
        assert!(
            matches!(cgroups.remove(name), Err(CgroupError::Name(_))),
            "{name:?}"
        );
        assert!(
            matches!(Cgroups::at(dir.path(), name), Err(CgroupError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn unowned_groups_are_those_that_nobody_has() {
    let dir = imitation("", &[]);
    fs::create_dir(dir.path().join("crn-agent/feedfacefeedface")).unwrap();
    let cgroups = Cgroups::at(dir.path(), "crn-agent").unwrap();
    let unowned = cgroups.unowned([ID, "0000000000000000"]).unwrap();
    assert_eq!(
        unowned.into_iter().collect::<Vec<_>>(),
        ["feedfacefeedface"]
    );
}

/// On the running kernel, with whatever controllers it has on cgroup2.
#[test]
fn the_kernel_takes_and_gives_back_a_group() {
    let root = format!("crn-test-{}", std::process::id());
    let cgroups = Cgroups::discover(&root).unwrap();
    if let Some(why) = cgroups.unavailable() {
        let checked = self_check(&root);
        assert!(
            matches!(checked, Err(CgroupError::Unavailable(_))),
            "{checked:?}"
        );
        skip::skip!("cgroup2", "{why}");
    }
    let offered = cgroups.controllers();
    let checked = self_check(&root).unwrap();
    assert_eq!(checked.different, []);
    assert!(
        checked.process_seen && checked.busy_while_used && checked.removed,
        "{checked:?}"
    );
    // In force or missing, according to what the kernel offers.
    for setting in plan().settings.iter().filter(|s| s.required) {
        let in_force = checked.in_force.iter().any(|f| f == setting.file);
        let missing = checked.missing.iter().any(|m| m.file == setting.file);
        assert_eq!(
            in_force,
            offered.contains(setting.controller),
            "{}: {checked:?}",
            setting.file
        );
        assert_eq!(missing, !in_force, "{}", setting.file);
    }
    if offered.contains("hugetlb") {
        assert!(
            checked.in_force.iter().any(|f| f == "hugetlb.2MB.max"),
            "{checked:?}"
        );
    }
    // Again: everything may be repeated.
    assert_eq!(cgroups.remove(ID).unwrap(), Removal::Absent);
    assert!(cgroups.remove_root().unwrap());
    for _ in 0..2 {
        cgroups.prepare(ID, &plan()).unwrap();
    }
    assert_eq!(
        cgroups.groups().unwrap().into_iter().collect::<Vec<_>>(),
        [ID]
    );
    assert!(
        !cgroups.remove_root().unwrap(),
        "an instance's group is in it"
    );
    assert_eq!(cgroups.remove(ID).unwrap(), Removal::Removed);
    assert!(cgroups.remove_root().unwrap());
    assert!(!Path::new("/sys/fs/cgroup").join(&root).exists());
}
