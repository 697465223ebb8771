//! What the tests of the seed share.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use disk::seed::{Filesystem, NetworkSpec, SeedSpec, SeedVolume};

/// Runs a program that must succeed; gives both of its outputs.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Directory of cloud-init's Python modules, of the version in Debian 12 (or of whatever release
/// the tests run on). The package is unpacked, not installed: a host does not want it to run.
pub(crate) fn cloud_init() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-init");
        let modules = dir.join("usr/lib/python3/dist-packages");
        if !modules.join("cloudinit/version.py").exists() {
            let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            run(Command::new("apt-get")
                .args(["download", "cloud-init"])
                .current_dir(new.path()));
            let package = fs::read_dir(new.path())
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            run(Command::new("dpkg")
                .arg("-x")
                .arg(package)
                .arg(new.path().join("x")));
            // Another test may have been quicker: what is there then is the same.
            let _ = fs::rename(new.path().join("x"), &dir);
        }
        modules
    })
}

pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me@home";

/// A VM with everything but user data.
pub(crate) fn spec() -> SeedSpec {
    SeedSpec {
        instance_id: "iid-0123456789ab".to_owned(),
        hostname: "web-1".parse().unwrap(),
        ssh_keys: vec![KEY.parse().unwrap()],
        network: NetworkSpec {
            mac: [0x52, 0x54, 0, 1, 2, 3],
            ipv6: ("2001:db8:0:1::2".parse().unwrap(), 64),
            gateway6: "2001:db8:0:1::1".parse().unwrap(),
            ipv4: Some((
                "172.16.4.2".parse().unwrap(),
                24,
                "172.16.4.1".parse().unwrap(),
            )),
            nameservers: vec!["2606:4700:4700::1111".parse().unwrap()],
            mtu: Some(1400),
        },
        volumes: vec![
            SeedVolume {
                serial: "vol-2".to_owned(),
                mount: "/data/sub".parse().unwrap(),
                fs: Filesystem::Ext4,
            },
            SeedVolume {
                serial: "vol-data".to_owned(),
                mount: "/data".parse().unwrap(),
                fs: Filesystem::Ext4,
            },
        ],
        user_data: None,
    }
}
