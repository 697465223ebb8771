//! The commands as they are released: a simulated guest gets no secret, whatever is allowed.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use sev_attest::channel::Secrets;
use sev_attest::channel::ethereum::OwnerKey;
use sev_attest::endpoint::serve::{Config, Server, Sink, SinkError, Versions};
use sev_attest::guest::{GuestError, GuestReport, ReportProvider, ReportRequest};
use sev_attest::product::Product;
use sev_attest::report::Report;
use sev_attest_issuer::{Issuer, Leaf, ReportSpec, table};

const OWNER: &str = "4242424242424242424242424242424242424242424242424242424242424242";

/// Firmware that signs with the key of a simulated chip.
struct Firmware {
    spec: ReportSpec,
    issuer: Issuer,
    leaf: Leaf,
}

impl ReportProvider for Firmware {
    fn name(&self) -> String {
        "simulated".to_owned()
    }

    fn report(&mut self, request: &ReportRequest) -> Result<GuestReport, GuestError> {
        self.spec.report_data = request.data;
        let report = Report::parse(&self.leaf.sign(self.spec.to_bytes()))?;
        let table = table::table(&[
            (table::VCEK, &self.leaf.der),
            (table::ASK, &self.issuer.ask),
            (table::ARK, &self.issuer.ark),
        ]);
        Ok(GuestReport { report, table })
    }
}

#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Secrets>>>);

impl Sink for Taken {
    fn take(&mut self, secrets: &Secrets) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(secrets.clone());
        Ok(())
    }
}

/// A guest and where it listens.
fn guest(taken: &Taken) -> (Server, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let spec = ReportSpec::new(Product::Genoa);
    let issuer = Issuer::new(Product::Genoa);
    let config = Config {
        owner: OwnerKey::from_text(OWNER).unwrap().address(),
        versions: Versions::Both,
        tls12: false,
        vmpl: None,
        reports: Box::new(Firmware {
            leaf: issuer.vcek(&spec),
            spec,
            issuer,
        }),
        sink: Box::new(taken.clone()),
        listener: Box::new(|_| {}),
    };
    (Server::start(config, vec![listener]).unwrap(), address)
}

/// The files that `unlock` needs.
fn files(directory: &Path, policy: &str) {
    std::fs::write(directory.join("policy.toml"), policy).unwrap();
    std::fs::write(directory.join("disk.key"), "correct horse").unwrap();
    std::fs::write(directory.join("owner.key"), OWNER).unwrap();
}

fn unlock(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .current_dir(directory)
        .env("SEV_ATTEST_CACHE_DIR", directory.join("cache"))
        .env("SEV_ATTEST_ALEPH_CACHE", directory.join("aleph"))
        .arg("unlock")
        .args(args)
        .args(["--policy", "policy.toml", "--key-file", "disk.key"])
        .args(["--owner-key", "owner.key", "--offline"])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}

fn sound_policy() -> String {
    let (measurement, host_data) = ("3e".repeat(48), "40".repeat(32));
    format!("measurement = [\"{measurement}\"]\nhost_data = \"{host_data}\"\n")
}

#[test]
fn the_released_program_sends_nothing_to_a_simulated_guest() {
    let (taken, directory) = (Taken::default(), tempfile::tempdir().unwrap());
    let (_server, address) = guest(&taken);
    files(directory.path(), &sound_policy());
    let (status, out, _) = unlock(directory.path(), &[&address]);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("FAILED       chain.root"), "{out}");
    // All is as expected but the root, and that can't be waived.
    let foreign = [&address, "--allow-foreign-root", "--allow-v1"];
    let (status, out, _) = unlock(directory.path(), &foreign);
    assert_eq!(status, 1, "{out}");
    assert!(
        out.contains("FOREIGN ROOT, not AMD's: genuine and as expected"),
        "{out}"
    );
    assert!(
        out.contains("the chain does not end in AMD's root"),
        "{out}"
    );
    assert!(out.contains("NO SECRET WAS SENT"), "{out}");
    assert!(!out.contains("correct horse"));
    assert!(taken.0.lock().unwrap().is_empty());
}

#[test]
fn policies_that_expect_too_little_ask_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let sound = sound_policy();
    let (measurement, host_data) = sound.split_once('\n').unwrap();
    for (policy, expected) in [
        (host_data.to_owned(), "measurement must be there"),
        (measurement.to_owned(), "host_data must be there"),
        (
            format!("{sound}any_guest = true\n"),
            "measurement must be there",
        ),
        (
            format!("{sound}any_time = true\n"),
            "report_data and any_time",
        ),
        (
            format!("{sound}report_data = \"{}\"\n", "00".repeat(64)),
            "report_data and any_time",
        ),
    ] {
        files(directory.path(), &policy);
        // Nothing listens there.
        let (status, out, said) = unlock(directory.path(), &["127.0.0.1:1"]);
        assert_eq!((status, &*out), (4, ""), "{policy}: {said}");
        assert!(said.contains(expected), "{policy}: {said}");
    }
}

#[test]
fn usage() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), &sound_policy());
    let (status, out, _) = unlock(directory.path(), &["127.0.0.1:1"]);
    assert_eq!(status, 3, "{out}");
    assert!(out.contains("can't be reached"), "{out}");
    for args in [
        &["http://127.0.0.1:1"][..],
        &["127.0.0.1:1", "--secret", "nothing"],
        &["127.0.0.1:1", "--secret", "a/b=disk.key"],
        &["127.0.0.1:1", "--secret", "luks_passphrase=disk.key"],
        &["127.0.0.1:1", "--interval", "5"],
        &["127.0.0.1:1", "--any-guest"],
    ] {
        let (status, out, said) = unlock(directory.path(), args);
        assert_eq!((status, &*out), (2, ""), "{args:?}: {said}");
        assert!(!said.contains("correct horse"));
    }
    std::fs::write(
        directory.path().join("owner.key"),
        "no key, but secret all the same",
    )
    .unwrap();
    let (status, _, said) = unlock(directory.path(), &["127.0.0.1:1"]);
    assert_eq!(status, 2);
    assert!(!said.contains("secret all the same"), "{said}");
    let owner = "0x5ce9454909639d2d17a3f753ce7d93fa0b9ab12e";
    for args in [
        &["--owner", owner][..],
        &["--secrets-dir", "s"],
        &[
            "--owner",
            owner,
            "--owner-from-cmdline",
            "--secrets-dir",
            "s",
        ],
        &["--owner", owner, "--secrets-dir", "s", "--", "true"],
        &["--owner", owner, "--secrets-dir", "s", "--no-v1", "--tls12"],
        &["--owner", "0x00", "--secrets-dir", "s"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .args(["guest", "serve"])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("error: "), "{args:?}: {said}");
    }
    if std::path::Path::new("/dev/sev-guest").exists() {
        skip::skip!("no-sev-guest", "this is an SEV-SNP guest");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .args(["guest", "serve", "--owner", owner, "--secrets-dir", "s"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this is no SEV-SNP guest"), "{said}");
}
