//! The seed image read back by readers that are not ours: xorriso, isoinfo, blkid, and a reader
//! of a hundred lines written from ECMA-119 alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod seed_support;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use disk::{
    seed::{Seed, VOLUME_ID, build, render},
    testing::iso9660::{IsoFile, MAX_FILES, SECTOR, image},
};
use proptest::prelude::*;
use seed_support::{run, spec};

type Files = BTreeMap<String, Vec<u8>>;

/// Reads the tree whose volume descriptor has the type `kind` (1: primary, 2: Joliet).
///
/// Names come from `NM` in the primary tree; every structure on the way is checked.
fn read(iso: &[u8], kind: u8) -> Files {
    let le16 = |at: usize| u16::from_le_bytes(iso[at..at + 2].try_into().unwrap());
    let le32 = |at: usize| u32::from_le_bytes(iso[at..at + 4].try_into().unwrap()) as usize;
    let be32 = |at: usize| u32::from_be_bytes(iso[at..at + 4].try_into().unwrap()) as usize;
    let both32 = |at: usize| {
        assert_eq!(le32(at), be32(at + 4), "both byte orders at {at}");
        le32(at)
    };
    assert_eq!(iso.len() % SECTOR, 0);
    let descriptor = (16..)
        .map(|n| n * SECTOR)
        .find(|at| {
            assert_eq!(&iso[at + 1..at + 7], b"CD001\x01");
            assert_ne!(iso[*at], 255, "no descriptor of type {kind}");
            iso[*at] == kind
        })
        .unwrap();
    assert_eq!(
        both32(descriptor + 80),
        iso.len() / SECTOR,
        "volume space size"
    );
    assert_eq!(le16(descriptor + 128) as usize, SECTOR);
    let root = descriptor + 156;
    let (at, len) = (both32(root + 2), both32(root + 10));
    let (table_l, table_m) = (le32(descriptor + 140), be32(descriptor + 148));
    assert_eq!(
        le32(table_l * SECTOR + 2),
        at,
        "path table L leads to the root"
    );
    assert_eq!(
        be32(table_m * SECTOR + 2),
        at,
        "path table M leads to the root"
    );

    let mut files = Files::new();
    let mut identifiers = Vec::new();
    let (mut pos, end) = (at * SECTOR, at * SECTOR + len);
    while pos < end {
        let record = iso[pos] as usize;
        if record == 0 {
            pos = (pos / SECTOR + 1) * SECTOR;
            continue;
        }
        assert!(pos % SECTOR + record <= SECTOR, "a record crosses a sector");
        let (extent, size) = (both32(pos + 2), both32(pos + 10));
        assert!(extent * SECTOR + size <= iso.len());
        let id_len = iso[pos + 32] as usize;
        let id = &iso[pos + 33..pos + 33 + id_len];
        if id != [0] && id != [1] {
            assert_eq!(iso[pos + 25], 0, "flags of a file");
            let name = if kind == 2 {
                let units: Vec<u16> = id
                    .chunks(2)
                    .map(|b| u16::from_be_bytes([b[0], b[1]]))
                    .collect();
                String::from_utf16(&units).unwrap()
            } else {
                identifiers.push(id.to_vec());
                let mut su = pos + 33 + id_len + usize::from(id_len.is_multiple_of(2));
                let mut name = None;
                while su + 4 <= pos + record {
                    let len = iso[su + 2] as usize;
                    assert!(len >= 4 && su + len <= pos + record);
                    if &iso[su..su + 2] == b"NM" {
                        name = Some(String::from_utf8(iso[su + 5..su + len].to_vec()).unwrap());
                    }
                    su += len;
                }
                name.unwrap()
            };
            let data = iso[extent * SECTOR..extent * SECTOR + size].to_vec();
            assert!(files.insert(name, data).is_none());
        }
        pos += record;
    }
    let mut sorted = identifiers.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(
        identifiers.len(),
        sorted.len(),
        "primary identifiers differ"
    );
    files
}

fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let file = (
        "[A-Za-z0-9._-]{1,64}",
        prop::collection::vec(any::<u8>(), 0..6000),
    );
    prop::collection::vec(file, 0..40).prop_map(|files| {
        let mut seen = std::collections::BTreeSet::new();
        files
            .into_iter()
            .filter(|(name, _)| name != "." && name != "..")
            .filter(|(name, _)| seen.insert(name.to_ascii_lowercase()))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(files in files()) {
        let list: Vec<_> = files.iter().map(|(name, data)| IsoFile { name, data }).collect();
        let iso = image("cidata", &list).unwrap();
        prop_assert_eq!(&image("cidata", &list).unwrap(), &iso);
        let expected: Files = files.into_iter().collect();
        prop_assert_eq!(&read(&iso, 1), &expected);
        prop_assert_eq!(&read(&iso, 2), &expected);
    }
}

/// Names of every length, in mixed case, and more than one sector of directory.
fn odd_files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("user-data".to_owned(), b"#cloud-config\n".to_vec()),
        ("empty".to_owned(), Vec::new()),
        ("exactly-a-sector".to_owned(), vec![b'x'; SECTOR]),
        ("MixedCase.Name.Txt".to_owned(), vec![1; 5000]),
        ("a".repeat(64), b"longest".to_vec()),
        (".dot".to_owned(), b"dot".to_vec()),
    ];
    for n in files.len()..MAX_FILES {
        files.push((format!("File-Number-{n}.data"), n.to_string().into_bytes()));
    }
    files
}

fn odd_image() -> (tempfile::TempDir, std::path::PathBuf, Files) {
    let files = odd_files();
    let list: Vec<_> = files
        .iter()
        .map(|(name, data)| IsoFile { name, data })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.iso");
    fs::write(&path, image("cidata", &list).unwrap()).unwrap();
    (dir, path, files.into_iter().collect())
}

fn read_dir(path: &Path) -> Files {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn xorriso_reads_it() {
    let (dir, iso, expected) = odd_image();
    // Rock Ridge first, then Joliet alone.
    for (n, options) in [vec![], vec!["-read_fs", "norock"]].into_iter().enumerate() {
        let out = dir.path().join(format!("out{n}"));
        let output = run(Command::new("xorriso")
            .args(["-abort_on", "WARNING"])
            .args(options)
            .arg("-indev")
            .arg(&iso)
            .args(["-osirrox", "on", "-extract", "/"])
            .arg(&out));
        assert!(output.contains("cidata"), "{output}");
        assert_eq!(read_dir(&out), expected);
    }
}

#[test]
fn isoinfo_reads_it() {
    let (_dir, iso, expected) = odd_image();
    let about = run(Command::new("isoinfo").arg("-d").arg("-i").arg(&iso));
    assert!(about.contains("Volume id: cidata"), "{about}");
    assert!(about.contains("Joliet with UCS level 3 found"), "{about}");
    assert!(
        about.contains("Rock Ridge signatures version 1 found"),
        "{about}"
    );
    for space in ["-R", "-J"] {
        let list = run(Command::new("isoinfo").args([space, "-f", "-i"]).arg(&iso));
        let mut names: Vec<_> = list.lines().filter_map(|l| l.strip_prefix('/')).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            expected.keys().map(String::as_str).collect::<Vec<_>>(),
            "{space}"
        );
        for name in ["user-data", "MixedCase.Name.Txt"] {
            let out = Command::new("isoinfo")
                .args([space, "-x", &format!("/{name}"), "-i"])
                .arg(&iso)
                .output()
                .unwrap();
            assert_eq!(out.stdout, expected[name], "{space} {name}");
        }
    }
    let long = run(Command::new("isoinfo").args(["-R", "-l", "-i"]).arg(&iso));
    let line = long
        .lines()
        .find(|line| line.contains("user-data"))
        .unwrap();
    assert!(line.starts_with("-rw-r--r--   1    0    0"), "{line}");
}

#[test]
fn blkid_finds_the_label() {
    let (_dir, iso, _) = odd_image();
    let about = run(Command::new("blkid").args(["-p", "-o", "export"]).arg(&iso));
    assert!(about.contains("LABEL=cidata\n"), "{about}");
    assert!(about.contains("TYPE=iso9660\n"), "{about}");
}

#[test]
fn a_seed_is_what_cloud_localds_would_write() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec();
    let files = render(&spec).unwrap();
    let Seed { iso, .. } = build(&spec).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("ours.iso"), &iso).unwrap();
    for (name, text) in [
        ("user", &files.user_data),
        ("meta", &files.meta_data),
        ("network", &files.network_config),
    ] {
        fs::write(path(name), text).unwrap();
    }
    run(Command::new("cloud-localds").arg("--network-config").args([
        path("network"),
        path("theirs.iso"),
        path("user"),
        path("meta"),
    ]));

    let theirs = fs::read(path("theirs.iso")).unwrap();
    assert_eq!(read(&iso, 1), read(&theirs, 1), "Rock Ridge");
    assert_eq!(read(&iso, 2), read(&theirs, 2), "Joliet");
    let label = |iso: &[u8], n: usize| iso[n * SECTOR + 40..n * SECTOR + 72].to_vec();
    assert_eq!(label(&iso, 16), label(&theirs, 16));
    assert!(label(&iso, 16).starts_with(VOLUME_ID.as_bytes()));
    // 300 KiB of theirs are padding for old CD-ROM drives.
    assert!(
        iso.len() < theirs.len() && iso.len() < 100 * 1024,
        "{}",
        iso.len()
    );
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let spec = spec();
    let first = build(&spec).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(build(&spec.clone()).unwrap(), first);
    // Changed by intent only: a new digest here means that every guest's seed changes.
    let mut other = spec;
    other.hostname = "other".parse().unwrap();
    assert_ne!(build(&other).unwrap().iso, first.iso);
}
