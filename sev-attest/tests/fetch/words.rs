//! What is told of the service's answers, how long it may take, and where else is looked.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sev_attest::fetch::{AlephCache, Document};
use sev_attest::product::Product;

use crate::server::{Reply, Server};
use crate::support::{MILAN_CRL, files, milan, wanted};

fn run(directory: &Path, url: &str, args: &[&str]) -> Output {
    let report = directory.join("report.bin");
    fs::write(&report, milan().0.as_bytes()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .args(args)
        .arg(&report)
        .args(["--kds-url", url, "--cache-dir"])
        .arg(directory.join("cache"))
        .arg("--aleph-cache")
        .arg(directory.join("aleph"))
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_404_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], |_| Reply::status(404));
    let output = run(directory.path(), &server.url, &["verify"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    let expected = "the service knows no certificate of this chip and TCB (404)";
    assert!(
        said.contains(expected) && said.contains(&server.url),
        "{said}"
    );
    let output = run(directory.path(), &server.url, &["verify", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        json["notes"][0].as_str().unwrap().contains(expected),
        "{json}"
    );
    let output = run(directory.path(), &server.url, &["fetch", "vcek"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

/// One deadline for requests, waits and repetitions together.
#[test]
fn max_wait_is_a_deadline() {
    let directory = tempfile::tempdir().unwrap();
    for reply in [
        Reply::Hang(Duration::from_secs(20)),
        Reply::Drip(Duration::from_secs(20)),
    ] {
        let server = Server::start(vec![], move |_| reply.clone());
        let start = Instant::now();
        let args = ["verify", "--max-wait", "2", "--request-timeout", "15"];
        let output = run(directory.path(), &server.url, &args);
        assert_eq!(output.status.code(), Some(3));
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{:?}",
            start.elapsed()
        );
    }
}

/// What Aleph Cloud's client has fetched serves, is verified, and is left alone.
#[test]
fn the_cache_of_alephs_client_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (report, vcek) = milan();
    let root = directory.path().join("aleph");
    let vcek_document = Document::Vcek {
        product: Product::Milan,
        chip_id: report.chip_id,
        tcb: wanted(&report).reported_tcb,
    };
    let cache = AlephCache::new(root.clone());
    let path = cache.path(&vcek_document).unwrap();
    let tcb = report.reported_tcb.decode(Product::Milan);
    let name = format!(
        "Milan/vcek_{}_{}_{}_{}_{}.der",
        report.chip_id, tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode
    );
    assert_eq!(path, root.join(name));
    let args = ["verify", "--offline", "--at", "2026-08-18T00:00:00Z"];
    let nowhere = "http://127.0.0.1:9";
    assert_eq!(run(directory.path(), nowhere, &args).status.code(), Some(3));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &vcek).unwrap();
    let verdict = |args: &[&str]| {
        let output = run(directory.path(), nowhere, args);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == "leaf.signature")
            .map(|finding| finding["status"].clone())
            .unwrap()
    };
    let json = [&args[..], &["--json"]].concat();
    assert_eq!(verdict(&json), "ok");
    assert_eq!(
        files(&root),
        std::slice::from_ref(&path),
        "nothing is written there"
    );
    // the revocation list too
    fs::write(root.join("Milan/crl.der"), MILAN_CRL).unwrap();
    let output = run(
        directory.path(),
        nowhere,
        &[&json[..], &["--require-crl"]].concat(),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("a revocation list is required"), "{text}");
    // one that does not verify counts as absent
    let mut damaged = vcek;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&path, damaged).unwrap();
    assert_eq!(verdict(&json), "not_checked");
}

/// A list that ran out is told when it is fetched, and leaves a verdict open that requires one.
#[test]
fn a_list_that_ran_out() {
    let directory = tempfile::tempdir().unwrap();
    let vcek = milan().1;
    let server = Server::start(vec![], move |path| match path {
        "/vcek/v1/Milan/crl" => Reply::Ok(MILAN_CRL.to_vec()),
        _ => Reply::Ok(vcek.clone()),
    });
    let args = ["verify", "--require-crl", "--at", "2028-01-01T00:00:00Z"];
    let output = run(directory.path(), &server.url, &args);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("out of date"), "{said}");
}
