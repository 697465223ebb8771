//! Images that QEMU itself cannot read are refused before a guest meets the error, and those
//! that it reads although something is missing are taken.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::{path::Path, process::Command, sync::atomic::AtomicBool};

use disk::{Flaw, Format, check, inspect, make_from};
use disk_support::{change64, get64, put64, qemu_check, qemu_io, run};

/// Where the header names the L1 table.
const L1_OFFSET: usize = 40;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

struct Case {
    what: &'static str,
    options: &'static str,
    /// Spoils the image, whose first L2 table is at the offset.
    bend: fn(&mut [u8], usize),
    flaw: fn(&Flaw) -> bool,
}

const CASES: &[Case] = &[
    Case {
        what: "the zero flag in version 2, which has none",
        options: "compat=0.10",
        bend: |image, l2| change64(image, l2, |entry| entry | 1),
        flaw: |f| matches!(f, Flaw::ReservedBits { .. }),
    },
    Case {
        what: "a subcluster that is there and reads as zeros",
        options: "extended_l2=on",
        bend: |image, l2| change64(image, l2 + 8, |bitmap| bitmap | 1 << 32),
        flaw: |f| matches!(f, Flaw::Subclusters { .. }),
    },
    Case {
        what: "a subcluster that is there, in a cluster that is not",
        options: "extended_l2=on",
        bend: |image, l2| put64(image, l2, 0),
        flaw: |f| matches!(f, Flaw::Subclusters { .. }),
    },
];

fn qemu_reads(image: &Path) -> bool {
    let output = Command::new("qemu-io")
        .args(["-r", "-f", "qcow2", "-c", "read 0 64k"])
        .arg(image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    !said.contains("failed") && !said.contains("error")
}

#[test]
fn what_qemu_cannot_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for case in CASES {
        let what = case.what;
        let words = ["create", "-q", "-f", "qcow2", "-o", case.options];
        run(
            "qemu-img",
            words.into_iter().chain([path.to_str().unwrap(), "64M"]),
        );
        qemu_io(&path, Format::Qcow2, &["write -P 1 0 64k"]);
        assert!(qemu_reads(&path), "{what}: a sound image");
        let judge = || inspect(&std::fs::File::open(&path).unwrap(), None);
        judge().unwrap();
        let mut image = std::fs::read(&path).unwrap();
        let l1 = usize::try_from(get64(&image, L1_OFFSET)).unwrap();
        let l2 = usize::try_from(get64(&image, l1) & OFFSET).unwrap();
        (case.bend)(&mut image, l2);
        std::fs::write(&path, &image).unwrap();
        assert!(!qemu_reads(&path), "{what}: QEMU reads it");
        let error = judge().unwrap_err();
        assert!((case.flaw)(error.flaw().unwrap()), "{what}: {error}");
    }
}

/// Some writers, and copies without trailing zeros, leave out the end of the last table.
#[test]
fn a_table_without_its_zero_tail_is_read_as_qemu_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (whole, trimmed) = (at("whole"), at("trimmed"));
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        whole.to_str().unwrap(),
        "64M",
    ];
    run("qemu-img", create);
    qemu_io(&whole, Format::Qcow2, &["write -z 1M 64k"]);
    let mut image = std::fs::read(&whole).unwrap();
    let l1 = usize::try_from(get64(&image, L1_OFFSET)).unwrap();
    let l2 = usize::try_from(get64(&image, l1) & OFFSET).unwrap();
    let end = image.iter().rposition(|&b| b != 0).unwrap() + 1;
    assert!(end > l2, "the table is the last thing in the file");
    image.truncate(end.next_multiple_of(8));
    std::fs::write(&trimmed, &image).unwrap();

    inspect(&std::fs::File::open(&trimmed).unwrap(), None).unwrap();
    assert_eq!(qemu_check(&trimmed), (0, 0));
    assert!(check(&trimmed).unwrap().is_clean());
    let made = at("made");
    let go = AtomicBool::new(false);
    make_from(&trimmed, None, None, &made, &go, |_| ()).unwrap();
    for other in [&whole, &made] {
        let compare = ["compare", "-f", "qcow2", "-F", "qcow2"].map(std::ffi::OsStr::new);
        let files = [trimmed.as_os_str(), other.as_os_str()];
        run("qemu-img", compare.into_iter().chain(files));
    }

    // Without its beginning nothing says what it was.
    image.truncate(l2);
    std::fs::write(&trimmed, &image).unwrap();
    let error = inspect(&std::fs::File::open(&trimmed).unwrap(), None).unwrap_err();
    let flaw = error.flaw().unwrap();
    assert!(matches!(flaw, Flaw::EntryBeyondFile { .. }), "{flaw}");
}
