//! Disks of ours read and written by QEMU's tools, and images of QEMU's inspected by us.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod disk_support;

use std::{fs::File, path::Path};

use disk::{
    ByteSize, Created, Error, Flaw, Format, OverlaySpec, check, create_overlay, create_volume,
    grow, info, inspect,
};
use disk_support::{
    InUse, base, full_image, get64, put64, qemu_check, qemu_img, qemu_info, qemu_io, raw_noise, run,
};

const SIZES: [u64; 10] = [
    512,
    65_536,
    1 << 20,
    (512 << 20) - 512,
    512 << 20,
    (512 << 20) + 512,
    20 << 30,
    2 << 40,
    (4 << 40) + 512,
    16 << 40,
];

#[test]
fn volumes_of_all_sizes() {
    let dir = tempfile::tempdir().unwrap();
    for size in SIZES {
        for format in [Format::Qcow2, Format::Raw] {
            // ext4 has no raw files of 16 TiB.
            if format == Format::Raw && size > 8 << 40 {
                continue;
            }
            let path = dir.path().join(format!("{size}.{format}"));
            let bytes = ByteSize::from_bytes(size);
            assert_eq!(create_volume(&path, bytes, format).unwrap(), Created::New);
            assert_eq!(
                create_volume(&path, bytes, format).unwrap(),
                Created::Existed
            );
            let seen = qemu_info(&path, format);
            assert_eq!(seen["virtual-size"], size, "{format}");
            let ours = info(&path, format, None).unwrap();
            assert_eq!(ours.virtual_size, bytes);
            assert!(
                ours.allocated.bytes() <= 256 << 10,
                "{format} {size}: {ours:?}"
            );
            let last = format!("write -P 5 {} 512", size - 512);
            let read = format!("read -P 5 {} 512", size - 512);
            if format == Format::Qcow2 {
                assert_eq!(seen["cluster-size"], 65536);
                assert_eq!(qemu_check(&path), (0, 0), "{size}");
                assert!(check(&path).unwrap().is_clean());
            }
            qemu_io(&path, format, &[&last, &read, "read -P 0 0 0"]);
            if format == Format::Qcow2 {
                assert_eq!(qemu_check(&path), (0, 0), "{size}");
                let report = check(&path).unwrap();
                assert!(report.is_clean(), "{report:?}");
                assert_eq!(report.allocated_clusters, 1);
            }
            // Still the same disk, with its data.
            assert_eq!(
                create_volume(&path, bytes, format).unwrap(),
                Created::Existed
            );
            qemu_io(&path, format, &[&read]);
        }
    }
}

#[test]
fn an_overlay_shows_its_base_and_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("base.raw"), 4 << 20);
    let qcow2 = dir.path().join("base.qcow2");
    run(
        "qemu-img",
        [
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            p(&raw),
            p(&qcow2),
        ],
    );
    let four = ByteSize::from_mib(4);
    for (path, format) in [(&raw, Format::Raw), (&qcow2, Format::Qcow2)] {
        let before = std::fs::read(path).unwrap();
        let overlay = dir.path().join(format!("overlay-{format}"));
        let spec = OverlaySpec::new(base(path, format, four), ByteSize::from_gib(1));
        assert_eq!(create_overlay(&overlay, &spec).unwrap(), Created::New);
        let seen = qemu_info(&overlay, Format::Qcow2);
        assert_eq!(seen["virtual-size"], 1 << 30);
        assert_eq!(seen["backing-filename"], p(path));
        assert_eq!(seen["backing-filename-format"], format.as_str());
        assert_eq!(qemu_check(&overlay), (0, 0));
        let ours = info(&overlay, Format::Qcow2, Some(&spec.base)).unwrap();
        assert_eq!(ours.backing.as_deref(), Some(path.as_path()));

        // Same content, zeros beyond the base's end.
        run(
            "qemu-img",
            ["compare", "-f", "qcow2", "-F", "raw", p(&overlay), p(&raw)],
        );
        qemu_io(
            &overlay,
            Format::Qcow2,
            &[
                "write -P 9 1M 64k",
                "write -P 8 1000M 64k",
                "read -P 9 1M 64k",
                "read -P 0 4M 100M",
            ],
        );
        assert!(std::fs::read(path).unwrap() == before);
        let report = check(&overlay).unwrap();
        assert!(
            report.is_clean() && report.allocated_clusters == 2,
            "{report:?}"
        );
        assert_eq!(qemu_check(&overlay), (0, 0));
        assert_eq!(create_overlay(&overlay, &spec).unwrap(), Created::Existed);
        qemu_io(&overlay, Format::Qcow2, &["read -P 9 1M 64k"]);

        // Something else under the name is an error, and stays what it is.
        for other in [
            OverlaySpec::new(base(path, format, four), ByteSize::from_gib(2)),
            OverlaySpec {
                name_base: false,
                ..spec.clone()
            },
            OverlaySpec::new(
                base(Path::new("/other"), format, four),
                ByteSize::from_gib(1),
            ),
        ] {
            let error = create_overlay(&overlay, &other).unwrap_err();
            assert!(matches!(error, Error::Exists { .. }), "{error}");
        }
        qemu_io(&overlay, Format::Qcow2, &["read -P 9 1M 64k"]);
    }
    let small = OverlaySpec::new(base(&raw, Format::Raw, four), ByteSize::from_mib(3));
    let error = create_overlay(&dir.path().join("small"), &small).unwrap_err();
    assert!(matches!(error, Error::SmallerThanBase { .. }), "{error}");
}

#[test]
fn an_overlay_need_not_name_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("base.raw"), 1 << 20);
    let overlay = dir.path().join("overlay");
    let mib = ByteSize::from_mib(1);
    let mut spec = OverlaySpec::new(base(&raw, Format::Raw, mib), mib);
    spec.name_base = false;
    create_overlay(&overlay, &spec).unwrap();
    assert_eq!(info(&overlay, Format::Qcow2, None).unwrap().backing, None);
    let error = info(&overlay, Format::Qcow2, Some(&spec.base)).unwrap_err();
    assert!(
        matches!(error.flaw(), Some(Flaw::WrongBacking { .. })),
        "{error}"
    );
    // QEMU is told.
    let node = |driver: &str, path: &Path| serde_json::json!({"driver": driver, "file": {"driver": "file", "filename": path}});
    let mut top = node("qcow2", &overlay);
    top["backing"] = node("raw", &raw);
    run(
        "qemu-img",
        ["compare", "-F", "raw", &format!("json:{top}"), p(&raw)],
    );
}

#[test]
fn names_that_look_like_something_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "nbd:localhost:1",
        "json:{}",
        "a b,c=d",
        "file:x",
        "ünï \"q\" 'x'",
        "%41",
        "-x",
    ] {
        let raw = raw_noise(&dir.path().join(name), 64 << 10);
        let overlay = dir.path().join("overlay");
        let size = ByteSize::from_bytes(64 << 10);
        create_overlay(
            &overlay,
            &OverlaySpec::new(base(&raw, Format::Raw, size), size),
        )
        .unwrap();
        let copy = dir.path().join("copy");
        run(
            "qemu-img",
            ["convert", "-f", "qcow2", "-O", "raw", p(&overlay), p(&copy)],
        );
        assert!(
            std::fs::read(&copy).unwrap() == std::fs::read(&raw).unwrap(),
            "{name}"
        );
        std::fs::remove_file(&overlay).unwrap();
    }
    let size = ByteSize::from_mib(1);
    for bad in ["relative", &format!("/{}", "x".repeat(1023)), "/nul\0"] {
        let spec = OverlaySpec::new(base(Path::new(bad), Format::Raw, size), size);
        let error = create_overlay(&dir.path().join("overlay"), &spec).unwrap_err();
        assert!(matches!(error, Error::BasePath { .. }), "{bad}: {error}");
    }
}

#[test]
fn a_chain_of_layers() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("0"), 1 << 20);
    let size = ByteSize::from_mib(8);
    let mut below = base(&raw, Format::Raw, ByteSize::from_mib(1));
    for n in 1..disk::MAX_CHAIN_DEPTH {
        let path = dir.path().join(n.to_string());
        create_overlay(&path, &OverlaySpec::new(below.clone(), size)).unwrap();
        qemu_io(&path, Format::Qcow2, &[&format!("write -P {n} {n}M 64k")]);
        below = base(&path, Format::Qcow2, size);
    }
    let reads: Vec<_> = (1..disk::MAX_CHAIN_DEPTH)
        .map(|n| format!("read -P {n} {n}M 64k"))
        .collect();
    qemu_io(
        &below.path,
        Format::Qcow2,
        &reads.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let chain = qemu_img("info -f qcow2 --backing-chain --output=json", &below.path);
    let chain: serde_json::Value = serde_json::from_str(&chain).unwrap();
    assert_eq!(chain.as_array().unwrap().len(), disk::MAX_CHAIN_DEPTH);
}

/// Every kind of image that `qemu-img create` makes and that stands alone.
#[test]
fn images_of_qemu_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("raw"), 3 << 20);
    for options in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "extended_l2=on",
        "extended_l2=on,cluster_size=128k",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=full",
    ] {
        for compress in [false, true] {
            if compress && options.starts_with("preallocation") {
                continue;
            }
            let path = dir.path().join("image");
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            args.extend(compress.then_some("-c"));
            args.extend([p(&raw), p(&path)]);
            run("qemu-img", args);
            let found = inspect(&File::open(&path).unwrap(), Some(Format::Qcow2))
                .unwrap_or_else(|e| panic!("{options}: {e}"));
            let seen = qemu_info(&path, Format::Qcow2);
            assert_eq!(
                seen["virtual-size"],
                found.virtual_size.bytes(),
                "{options}"
            );
            assert_eq!(
                seen["cluster-size"],
                found.cluster_size.unwrap().bytes(),
                "{options}"
            );
            // Noise does not compress; a cluster that does not shrink is stored plain.
            assert!(!found.compressed || compress, "{options}");
            if !options.starts_with("preallocation") {
                let report = check(&path).unwrap();
                assert!(report.is_clean(), "{options}: {report:?}");
            }
        }
    }
    // Zeros do compress, and so do empty images of any size pass.
    let path = dir.path().join("zeros");
    std::fs::write(dir.path().join("sevens"), vec![7; 1 << 20]).unwrap();
    let sevens = dir.path().join("sevens");
    run(
        "qemu-img",
        [
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            p(&sevens),
            p(&path),
        ],
    );
    assert!(
        inspect(&File::open(&path).unwrap(), None)
            .unwrap()
            .compressed
    );
    for size in ["512", "1T", "16T"] {
        let path = dir.path().join(size);
        run("qemu-img", ["create", "-q", "-f", "qcow2", p(&path), size]);
        inspect(&File::open(&path).unwrap(), None).unwrap();
    }
}

/// What QEMU makes of the features that reach outside or hide something.
#[test]
fn images_of_qemu_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_noise(&dir.path().join("raw"), 1 << 20);
    let path = dir.path().join("image");
    let image = p(&path).to_owned();
    let data = p(&dir.path().join("data")).to_owned();
    let data_file = format!("data_file={data}");
    let raw_data_file = format!("data_file={data},data_file_raw=on");
    let secret = "--object=secret,id=s,data=abc";
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let create = ["create", "-q", "-f", "qcow2"];
    type Case<'a> = (&'a str, Vec<Vec<&'a str>>, fn(&Flaw) -> bool);
    let cases: [Case; 7] = [
        (
            "backing file",
            vec![[&create[..], &["-b", p(&raw), "-F", "raw", &image]].concat()],
            |f| matches!(f, Flaw::BackingFile { .. }),
        ),
        (
            "data file",
            vec![[&create[..], &["-o", &data_file, &image, "1M"]].concat()],
            |f| matches!(f, Flaw::ExternalData),
        ),
        (
            "raw data file",
            vec![[&create[..], &["-o", &raw_data_file, &image, "1M"]].concat()],
            |f| matches!(f, Flaw::ExternalData),
        ),
        (
            "LUKS",
            vec![[&create[..], &[secret, "-o", encrypt, &image, "1M"]].concat()],
            |f| matches!(f, Flaw::Encrypted { method: 2 }),
        ),
        (
            "snapshot",
            vec![
                [&create[..], &[&image, "1M"]].concat(),
                vec!["snapshot", "-c", "s", &image],
            ],
            |f| matches!(f, Flaw::Snapshots { count: 1 }),
        ),
        (
            "bitmap",
            vec![
                [&create[..], &[&image, "1M"]].concat(),
                vec!["bitmap", "--add", "-f", "qcow2", &image, "b"],
            ],
            |f| matches!(f, Flaw::Bitmaps),
        ),
        (
            "VMDK",
            vec![vec!["create", "-q", "-f", "vmdk", &image, "1M"]],
            |f| matches!(f, Flaw::Pretends { .. }),
        ),
    ];
    for (name, steps, check) in cases {
        let _ = std::fs::remove_file(&path);
        for step in steps {
            run("qemu-img", step);
        }
        let error = inspect(&File::open(&path).unwrap(), None).unwrap_err();
        assert!(error.flaw().is_some_and(check), "{name}: {error}");
    }
}

#[test]
fn damage_is_counted_as_qemu_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let image = full_image();
    let l1 = 3 << 16;
    let l2 = (get64(&image, l1) & !(1 << 63)) as usize;
    let data = (get64(&image, l2) & !(1 << 63)) >> 16;
    let refcount = |cluster: u64| (2 << 16) + 2 * cluster as usize;
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>), bool);
    let cases: [Damage; 6] = [
        ("none", &|_| (), false),
        (
            "a cluster of nobody",
            &|i| {
                let end = i.len();
                i[refcount(end as u64 >> 16) + 1] = 1;
                i.resize(end + (1 << 16), 0);
            },
            false,
        ),
        ("a refcount too high", &|i| i[refcount(data) + 1] = 2, true),
        ("a lost refcount", &|i| i[refcount(data) + 1] = 0, true),
        ("a cluster that leaks", &|i| put64(i, l2, 0), false),
        (
            "a cluster used twice",
            &|i| {
                let entry = get64(i, l2);
                put64(i, l2 + 8, entry);
            },
            true,
        ),
    ];
    for (name, damage, corrupt) in cases {
        let mut image = image.clone();
        damage(&mut image);
        std::fs::write(&path, image).unwrap();
        let ours = check(&path).unwrap();
        let (corruptions, leaks) = qemu_check(&path);
        assert_eq!(ours.leaked_clusters, leaks, "{name}: {ours:?}");
        assert_eq!(ours.corruptions, corruptions, "{name}: {ours:?}");
        assert_eq!(corruptions > 0, corrupt, "{name}");
        assert_eq!(ours.is_clean(), ours.findings.is_empty(), "{name}");
    }
}

/// Sizes around each boundary of the L1 table, with data at both ends.
#[test]
fn grown_disks_keep_their_data_and_stay_clean() {
    let dir = tempfile::tempdir().unwrap();
    let mib = 1 << 20;
    let l2 = 512 * mib;
    // 8192 entries of 512 MiB fill the L1 table's first cluster.
    let cases = [
        (mib, mib + 512),
        (mib, l2),
        (l2, l2 + 512),
        (l2, 20 << 30),
        (20 << 30, 8192 * l2),
        (mib, 8192 * l2 + 512),
        (8192 * l2, 8192 * l2 + 512),
        (8192 * l2, 16 << 40),
        (8192 * l2 + 512, 2 * 8192 * l2 + 512),
    ];
    for (from, to) in cases {
        let path = dir.path().join("disk");
        create_volume(&path, ByteSize::from_bytes(from), Format::Qcow2).unwrap();
        let last = from - 512;
        qemu_io(
            &path,
            Format::Qcow2,
            &["write -P 1 0 512", &format!("write -P 2 {last} 512")],
        );
        let wanted = ByteSize::from_bytes(to);
        for _ in 0..2 {
            grow(&path, Format::Qcow2, wanted).unwrap();
            assert_eq!(qemu_info(&path, Format::Qcow2)["virtual-size"], to);
            assert_eq!(qemu_check(&path), (0, 0), "{from} to {to}");
            assert!(check(&path).unwrap().is_clean(), "{from} to {to}");
        }
        qemu_io(
            &path,
            Format::Qcow2,
            &[
                "read -P 1 0 512",
                &format!("read -P 2 {last} 512"),
                &format!("read -P 0 {from} 512"),
                &format!("write -P 3 {} 512", to - 512),
                &format!("read -P 3 {} 512", to - 512),
            ],
        );
        assert_eq!(qemu_check(&path), (0, 0), "{from} to {to}");
        let error = grow(&path, Format::Qcow2, ByteSize::from_bytes(from)).unwrap_err();
        assert!(matches!(error, Error::Shrink { .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}

/// Whoever had a disk may have written its header.
#[test]
fn a_disk_that_reaches_outside_its_file_is_refused_at_any_size() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let size = ByteSize::from_mib(1);
    create_volume(&path, size, Format::Qcow2).unwrap();
    grow(&path, Format::Qcow2, size).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let data_file = 1u64 << 2;
    file.write_all_at(&data_file.to_be_bytes(), 72).unwrap();
    let error = grow(&path, Format::Qcow2, size).unwrap_err();
    let flaw = matches!(&error, Error::Unusable { flaw, .. } if matches!(flaw, Flaw::ExternalData));
    assert!(flaw, "{error}");
}

#[test]
fn disks_of_other_shapes_grow_or_say_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for (options, grows) in [
        ("cluster_size=512", true),
        ("cluster_size=2M", true),
        ("compat=0.10", true),
        ("preallocation=metadata", true),
        ("refcount_bits=1,cluster_size=512", false),
        ("extended_l2=on", false),
    ] {
        run(
            "qemu-img",
            [
                "create",
                "-q",
                "-f",
                "qcow2",
                "-o",
                options,
                p(&path),
                "40M",
            ],
        );
        qemu_io(&path, Format::Qcow2, &["write -P 1 0 40M"]);
        let before = std::fs::read(&path).unwrap();
        let result = grow(&path, Format::Qcow2, ByteSize::from_gib(2));
        assert_eq!(result.is_ok(), grows, "{options}: {result:?}");
        if grows {
            assert_eq!(qemu_check(&path), (0, 0), "{options}");
            let commands = [
                "read -P 1 0 40M",
                "write -P 2 2000M 1M",
                "read -P 2 2000M 1M",
            ];
            qemu_io(&path, Format::Qcow2, &commands);
            assert_eq!(qemu_check(&path), (0, 0), "{options}");
        } else {
            assert!(matches!(
                result.unwrap_err().flaw(),
                Some(Flaw::Unsupported { .. })
            ));
            assert!(std::fs::read(&path).unwrap() == before, "{options}");
        }
        std::fs::remove_file(&path).unwrap();
    }
    // An overlay grows like any other disk.
    let raw = raw_noise(&dir.path().join("raw"), 1 << 20);
    let mib = ByteSize::from_mib(1);
    create_overlay(&path, &OverlaySpec::new(base(&raw, Format::Raw, mib), mib)).unwrap();
    grow(&path, Format::Qcow2, ByteSize::from_gib(600)).unwrap();
    run(
        "qemu-img",
        ["compare", "-f", "qcow2", "-F", "raw", p(&path), p(&raw)],
    );
    let raw_size = ByteSize::from_mib(2);
    grow(&raw, Format::Raw, raw_size).unwrap();
    assert_eq!(raw.metadata().unwrap().len(), raw_size.bytes());
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Qcow2, Format::Raw] {
        let path = dir.path().join(format!("disk.{format}"));
        create_volume(&path, ByteSize::from_mib(64), format).unwrap();
        let in_use = InUse::new(&path, format);
        let error = grow(&path, format, ByteSize::from_mib(128)).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{format}: {error}");
        if format == Format::Qcow2 {
            let error = check(&path).unwrap_err();
            assert!(matches!(error, Error::InUse { .. }), "{error}");
        }
        // Nor is it made an image of, torn as it may be.
        let store = disk::ImageStore::open(&dir.path().join(format!("store-{format}"))).unwrap();
        let import = || store.import(&path, &disk::Import::default(), |_| ());
        let error = import().unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        in_use.close();
        import().unwrap();
        grow(&path, format, ByteSize::from_mib(128)).unwrap();
        qemu_io(&path, format, &["read -P 1 0 64k"]);
    }
}

fn p(path: &Path) -> &str {
    path.to_str().unwrap()
}
