//! The command in a build that sends secrets to simulated guests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;

use super::{UnlockArgs, Unlocker, Watch, run};
use crate::endpoint::serve::Command;
use crate::endpoint::tests::guest::{Firmware, Guest, OWNER, Taken, config, key, secrets};
use crate::endpoint::unlock::Target;

#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: UnlockArgs,
}

/// Arguments, with files that they name, in `directory`.
fn args(directory: &Path, target: &Target, more: &[&str]) -> UnlockArgs {
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (measurement, host_data) = ("3e".repeat(48), "40".repeat(32));
    let policy = format!("measurement = [\"{measurement}\"]\nhost_data = \"{host_data}\"\n");
    let (policy, disk, owner) = (
        file("policy.toml", &policy),
        file("disk.key", "correct horse"),
        file("owner.key", OWNER),
    );
    let cache = directory.display().to_string();
    let target = target.to_string();
    let given = [
        "unlock",
        &target,
        "--policy",
        &policy,
        "--key-file",
        &disk,
        "--owner-key",
        &owner,
        "--offline",
        "--cache-dir",
        &cache,
        "--aleph-cache",
        &cache,
        "--allow-foreign-root",
    ];
    Cli::parse_from(given.iter().chain(more)).args
}

fn unlock(target: &Target, more: &[&str]) -> (u8, String) {
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), target, more);
    let mut out = Vec::new();
    let status = run(&args, &mut out).unwrap();
    (status, String::from_utf8(out).unwrap())
}

#[test]
fn unlocked() {
    let guest = Guest::sound();
    let (status, said) = unlock(&guest.target, &[]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.ends_with(&format!("{}: took the secret\n", guest.target)),
        "{said}"
    );
    assert_eq!(guest.taken.all(), [secrets()]);
    let (status, said) = unlock(&guest.target, &["--json"]);
    assert_eq!(status, 0, "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["unlocked"], true);
    assert_eq!(json["may_send_secret"], true);
    let of_channel = json["findings"].as_array().unwrap().iter();
    let mut of_channel = of_channel.filter(|finding| finding["check"] == "channel.binding");
    assert_eq!(of_channel.next().unwrap()["status"], "ok");
    assert!(!said.contains("correct horse") && !said.contains(OWNER));
}

#[test]
fn refused_with_the_findings() {
    let mut firmware = Firmware::sound();
    firmware.bend = Box::new(|spec| spec.measurement[0] ^= 1);
    let guest = Guest::with(firmware);
    let (status, said) = unlock(&guest.target, &[]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("FAILED       measurement  3f3e3e"), "{said}");
    assert!(said.ends_with("NO SECRET WAS SENT\n"), "{said}");
    let (status, said) = unlock(&guest.target, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &json["unlocked"]), (1, &false.into()));
    assert!(guest.taken.all().is_empty());
}

/// Without a certificate nothing is decided: today's guests bring none, and the network is not asked.
#[test]
fn undecided_without_certificates_and_key_only_without_leave() {
    let guest = Guest::speaking(1, Firmware::sound());
    let (status, said) = unlock(&guest.target, &["--allow-v1"]);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("UNDECIDED    chain"), "{said}");
    let (status, said) = unlock(&guest.target, &[]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("FAILED       channel.binding"), "{said}");
    assert!(said.contains("--allow-v1 takes it"), "{said}");
    assert!(guest.taken.all().is_empty());
}

#[test]
fn verified_and_not_taken() {
    let taken = Taken::default();
    let mut config = config(Firmware::sound(), &taken);
    config.sink = Box::new(Command {
        program: "/bin/false".into(),
        arguments: Vec::new(),
        secret: "luks_passphrase".to_owned(),
        time: Duration::from_secs(30),
    });
    let guest = Guest::start(config, key(3), taken);
    let (status, said) = unlock(&guest.target, &[]);
    assert_eq!(status, 5, "{said}");
    assert!(said.contains("did not take the secret"), "{said}");
    // Whoever is not its owner is told no more than that.
    let directory = tempfile::tempdir().unwrap();
    let args = args(directory.path(), &guest.target, &[]);
    fs::write(directory.path().join("owner.key"), "43".repeat(32)).unwrap();
    let mut out = Vec::new();
    assert_eq!(run(&args, &mut out).unwrap(), 5);
    let said = String::from_utf8(out).unwrap();
    assert!(
        said.contains("(403): owner signature verification failed"),
        "{said}"
    );
}

/// Unlocked once for each start of the guest, and left alone in between.
#[test]
fn watched() {
    let taken = Taken::default();
    let guest = |byte: u8| {
        let config = config(Firmware::sound(), &taken);
        Guest::start(config, key(byte), taken.clone())
    };
    let first = guest(3);
    let directory = tempfile::tempdir().unwrap();
    let mut args = args(directory.path(), &first.target, &["--watch"]);
    let interval = Duration::from_secs(args.interval);
    let mut out = Vec::new();
    {
        let unlocker = Unlocker::new(&args).unwrap().unwrap();
        let mut watch = Watch::new(&unlocker, interval);
        for _ in 0..3 {
            assert_eq!(watch.round(&mut out).unwrap(), interval);
        }
        assert_eq!(taken.all().len(), 1);
    }
    // The same watch, where the guest is started anew: another key at the same place.
    let second = guest(4);
    let known = first.server.spki().to_vec();
    args.target = second.target.clone();
    let unlocker = Unlocker::new(&args).unwrap().unwrap();
    let mut watch = Watch::new(&unlocker, interval);
    watch.unlocked = Some(known);
    assert_eq!(watch.round(&mut out).unwrap(), interval);
    assert_eq!(taken.all().len(), 2);
    assert_eq!(watch.round(&mut out).unwrap(), interval);
    assert_eq!(taken.all().len(), 2);
    // Somebody else in its place: refused, and looked at ever less often.
    let mut firmware = Firmware::sound();
    firmware.bend = Box::new(|spec| spec.host_data[0] ^= 1);
    let other = Guest::with(firmware);
    args.target = other.target.clone();
    let unlocker = Unlocker::new(&args).unwrap().unwrap();
    let mut watch = Watch::new(&unlocker, interval);
    for times in [2, 4] {
        assert_eq!(watch.round(&mut out).unwrap(), times * interval);
    }
    assert!(other.taken.all().is_empty());
    // Nobody there: looked at as often as before.
    args.target = "127.0.0.1:1".parse().unwrap();
    let unlocker = Unlocker::new(&args).unwrap().unwrap();
    let mut watch = Watch::new(&unlocker, interval);
    assert_eq!(watch.round(&mut out).unwrap(), interval);
}
