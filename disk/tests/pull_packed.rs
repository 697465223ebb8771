//! Compressed images, made by the programs that publishers use.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod pull_support;

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use disk::{ByteSize, Digest, Error, Flaw, Format, Import, Sha256, StoreOptions, create_volume};
use pull_support::{Scratch, Server, list, noise, options, request};

/// Programs with their options. All write to standard output.
const PROGRAMS: &[&[&str]] = &[
    &["gzip"],
    &["bzip2"],
    &["xz", "-9"],
    &["xz", "--block-size=262144", "--check=sha256"],
    &["zstd"],
    &["zstd", "--long=27", "--no-check"],
];

fn pack(program: &[&str], content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("content");
    std::fs::write(&path, content).unwrap();
    let output = Command::new(program[0])
        .args(&program[1..])
        .args(["-q", "-c"])
        .arg(path)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program:?}");
    output.stdout
}

/// A raw disk: noise, a hole of 8 MiB, noise.
fn content() -> Vec<u8> {
    let mut content = noise(300 << 10, 7);
    content.resize(content.len() + (8 << 20), 0);
    content.extend(noise(64 << 10, 8));
    content
}

fn sha512(bytes: &[u8]) -> Digest {
    let output = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(output.path(), bytes).unwrap();
    let sum = Command::new("sha512sum")
        .arg(output.path())
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    Digest::from_hex(sum.split(' ').next().unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_stored_is_the_content() {
    let content = content();
    for program in PROGRAMS {
        let packed = pack(program, &content);
        let server = Server::of(&packed).await;
        let scratch = Scratch::new();
        let wanted = request(&server.url("/x"), Sha256::of(&packed).into());
        let image = scratch.store.pull(&wanted, |_| ()).await.unwrap();
        assert_eq!(image.digest, Sha256::of(&content), "{program:?}");
        scratch.assert_holds(&content);
        let meta = image.path.metadata().unwrap();
        assert!(meta.blocks() * 512 < 1 << 20, "{program:?}: no hole");
        assert_eq!(meta.mode() & 0o777, 0o400);
        // Known by the digest that its publisher gives: nothing is asked again.
        let asked = server.requests().len();
        scratch.store.pull(&wanted, |_| ()).await.unwrap();
        assert_eq!(server.requests().len(), asked, "{program:?}");
        let found = scratch.store.get(&Sha256::of(&packed).into()).unwrap();
        assert_eq!(found.as_ref(), Some(&image));
        // Damaged, it is fetched and unpacked again.
        let mut damaged = content.clone();
        damaged[5] ^= 1;
        std::fs::remove_file(&image.path).unwrap();
        std::fs::write(&image.path, damaged).unwrap();
        scratch.store.pull(&wanted, |_| ()).await.unwrap();
        scratch.assert_holds(&content);
        // Removed, it is not known by either digest.
        assert!(scratch.store.remove(&image.digest).unwrap());
        assert_eq!(
            list(&scratch.dir.path().join("unpacked")),
            Vec::<std::path::PathBuf>::new()
        );
        assert_eq!(
            scratch.store.get(&Sha256::of(&packed).into()).unwrap(),
            None
        );
    }
}

#[tokio::test]
async fn several_members_and_a_digest_of_the_other_kind() {
    let content = content();
    let (one, two) = content.split_at(1 << 20);
    for program in PROGRAMS {
        let mut packed = pack(program, one);
        if program[0] == "zstd" {
            // A frame to be skipped, as pzstd writes them.
            packed.splice(0..0, *b"\x50\x2a\x4d\x18\x04\0\0\0skip");
            let magic = packed.drain(..12).collect::<Vec<_>>();
            packed.extend(magic);
        }
        packed.extend(pack(program, two));
        let server = Server::of(&packed).await;
        let scratch = Scratch::new();
        let wanted = request(&server.url("/x"), sha512(&packed));
        scratch.store.pull(&wanted, |_| ()).await.unwrap();
        scratch.assert_holds(&content);
        let asked = server.requests().len();
        scratch.store.pull(&wanted, |_| ()).await.unwrap();
        assert_eq!(server.requests().len(), asked, "{program:?}");
    }
}

#[test]
fn imports() {
    let scratch = Scratch::new();
    let content = content();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let import = |expected: Option<Digest>, format| {
        let import = Import { format, expected };
        scratch.store.import(&path, &import, |_| ())
    };
    for program in PROGRAMS {
        let packed = pack(program, &content);
        std::fs::write(&path, &packed).unwrap();
        let error = import(Some(Sha256::of(&content).into()), None).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        let error = import(None, Some(Format::Qcow2)).unwrap_err();
        assert_eq!(error.flaw(), Some(&Flaw::NoMagic));
        scratch.assert_empty();
        let expected: Digest = Sha256::of(&packed).hex().parse().unwrap();
        assert_eq!(
            import(Some(expected), None).unwrap().digest,
            Sha256::of(&content)
        );
        import(None, Some(Format::Raw)).unwrap();
        scratch.assert_holds(&content);
        scratch.store.remove(&Sha256::of(&content)).unwrap();
    }
    // A QCOW2 image in an archive is one; an archive in an archive is not unpacked.
    let disk = dir.path().join("disk");
    create_volume(&disk, ByteSize::from_gib(1), Format::Qcow2).unwrap();
    let packed = pack(&["xz"], &std::fs::read(&disk).unwrap());
    std::fs::write(&path, &packed).unwrap();
    assert_eq!(import(None, None).unwrap().info.format, Format::Qcow2);
    std::fs::write(&path, pack(&["gzip"], &packed)).unwrap();
    let error = import(None, None).unwrap_err();
    assert!(
        matches!(error.flaw(), Some(Flaw::Pretends { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_refused_and_leaves_nothing() {
    let content = content();
    for program in PROGRAMS {
        let packed = pack(program, &content);
        let mut bent = packed.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 0x40;
        // Without a checksum, content that differs is all that can come of it.
        let checked = !program.contains(&"--no-check");
        for (what, packed) in [("cut", packed[..middle].to_vec()), ("bent", bent)] {
            if what == "bent" && !checked {
                continue;
            }
            let server = Server::of(&packed).await;
            let scratch = Scratch::new();
            let error = scratch.pull(&server.url("/"), &packed).await.unwrap_err();
            assert!(
                matches!(error.flaw(), Some(Flaw::Packed { .. })),
                "{program:?} {what}: {error}"
            );
            scratch.assert_empty();
        }
    }
}

#[tokio::test]
async fn limits_hold_while_it_is_unpacked() {
    let content = content();
    for program in PROGRAMS {
        let packed = pack(program, &content);
        let server = Server::of(&packed).await;
        let scratch = Scratch::with(StoreOptions {
            max_image_size: ByteSize::from_mib(4),
            ..options()
        });
        let error = scratch.pull(&server.url("/"), &packed).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        scratch.assert_empty();
    }
    // Memory: an xz file that asks for a dictionary of 4 GiB.
    let mut packed = pack(&["xz"], &content);
    claim_dictionary(&mut packed);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &packed).unwrap();
    let need = xz_would_need(path.path());
    assert!(
        need.contains("097 MiB"),
        "the file is not what it should be: {need}"
    );
    let scratch = Scratch::new();
    let error = scratch
        .store
        .import(path.path(), &Import::default(), |_| ())
        .unwrap_err();
    let Some(Flaw::Packed { why, .. }) = error.flaw() else {
        panic!("{error}")
    };
    assert!(why.contains("mem"), "{why}");
}

/// Sets the size of the dictionary in the first block's header (xz-file-format, 3.1 and 5.3.1).
fn claim_dictionary(xz: &mut [u8]) {
    let header = 12;
    let len = (usize::from(xz[header]) + 1) * 4;
    let filter = xz[header..header + len]
        .windows(2)
        .position(|w| w == [0x21, 0x01])
        .unwrap();
    xz[header + filter + 2] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&xz[header..header + len - 4]);
    xz[header + len - 4..header + len].copy_from_slice(&crc.sum().to_le_bytes());
}

/// What xz says of the memory that a file needs.
fn xz_would_need(path: &Path) -> String {
    let output = Command::new("xz")
        .args(["--list", "--verbose", "--verbose", "--format=xz"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
