//! What other verifiers accept that this one refuses, recorded in `outcomes.tsv`.
//!
//! Our own outcomes are held against the table, and the table against the documentation. The ignored
//! test asks the peers themselves: `sev-attest/peers/run.sh` builds them and runs it; with
//! PEERS_WRITE=1 it writes the table anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod cases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sev_attest::appraise::appraise;
use sev_attest::assemble;
use sev_attest::cert::{Certificate, Crl};
use sev_attest::formats::{self, Bundle};
use sev_attest::policy::Policy;
use sev_attest::time::UnixTime;

use cases::{AT, Case, cases};

/// What a verifier says.
const ACCEPTS: &str = "accepts";
const REFUSES: &str = "refuses";
/// The peer can't be asked: it insists on a revocation list, and none is at hand, or it knows no VLEK.
const NOT_ASKED: &str = "-";

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/outcomes.tsv")
}

/// Our outcome, with the checks that failed.
fn ours(case: &Case) -> (&'static str, String) {
    let mut policy = Policy::default();
    (policy.any_guest, policy.any_time) = (true, true);
    policy.allow_foreign_root = case.allow_foreign_root;
    let Ok(evidence) = formats::read_report(&case.report) else {
        return (REFUSES, "the report is not read".to_owned());
    };
    let mut bundle = Bundle::default();
    for der in [&case.leaf, &case.intermediate, &case.ark] {
        let Ok(certificate) = Certificate::parse(der) else {
            return (REFUSES, "a certificate is not read".to_owned());
        };
        bundle.certificates.push(certificate);
    }
    if let Some(crl) = &case.crl {
        bundle.crls.push(Crl::parse(crl).unwrap());
    }
    let at = UnixTime::from_rfc3339(AT).unwrap();
    let chain = assemble::chain(&evidence.report, &bundle, at);
    let appraisal = appraise(&evidence.report, chain.as_ref(), &policy, at);
    if appraisal.is_genuine() {
        (ACCEPTS, String::new())
    } else {
        let failed: Vec<&str> = appraisal.failures().map(|finding| &*finding.id).collect();
        (REFUSES, failed.join(", "))
    }
}

/// The table: case, ours, failed checks, then the peers' outcomes.
fn recorded() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(table()).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let mut cells = line.split('\t').map(str::to_owned);
        (cells.next().unwrap(), cells.collect())
    });
    rows.collect()
}

#[test]
fn our_outcomes_are_the_recorded_ones() {
    let recorded = recorded();
    let cases = cases();
    assert_eq!(recorded.len(), cases.len());
    for case in cases {
        let (outcome, failed) = ours(&case);
        let row = &recorded[case.name];
        assert_eq!(
            (row[0].as_str(), &row[1]),
            (outcome, &failed),
            "{}",
            case.name
        );
        // what we accept is accepted by each peer that can be asked: we are stricter, never laxer
        if outcome == ACCEPTS {
            assert!(
                row[2..].iter().all(|said| said != REFUSES),
                "{}: {row:?}",
                case.name
            );
        }
    }
}

/// Each row of a peer that accepts what we refuse stands in the documentation, with a reason.
#[test]
fn documentation_lists_what_others_accept() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attestation.md");
    let docs = fs::read_to_string(docs).unwrap();
    for (name, row) in recorded() {
        if row[0] == REFUSES && row[2..].iter().any(|said| said == ACCEPTS) {
            let line = format!("| {name} | {} | {} | {} | ", row[2], row[3], row[4]);
            assert!(docs.contains(&line), "not in docs/attestation.md: {line}");
        }
    }
}

fn said(output: &Output) -> &'static str {
    if output.status.success() {
        ACCEPTS
    } else {
        REFUSES
    }
}

/// `snpguest verify attestation`, then the same and `snpguest verify certs`.
fn snpguest(program: &Path, case: &Case) -> [&'static str; 2] {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let report = write("report.bin", &case.report);
    write("ark.der", &case.ark);
    let (leaf, above) = if case.vlek {
        ("vlek", "asvk")
    } else {
        ("vcek", "ask")
    };
    write(&format!("{leaf}.der"), &case.leaf);
    write(&format!("{above}.der"), &case.intermediate);
    let run = |args: &[&str]| {
        let mut command = Command::new(program);
        command.arg("verify").args(args).arg(directory.path());
        if args[0] == "attestation" {
            command.arg(&report).args(["-p", case.product]);
        }
        command.output().unwrap()
    };
    let attestation = said(&run(&["attestation"]));
    let both = match said(&run(&["certs"])) {
        ACCEPTS => attestation,
        refuses => refuses,
    };
    [attestation, both]
}

/// aleph-sdk's verifier, its cache filled and its clock set. `programs`: as it is, and with the roots
/// that it is given.
fn aleph(programs: &[PathBuf; 2], faketime: &str, case: &Case) -> &'static str {
    let Some(crl) = case.crl.as_ref().filter(|_| !case.vlek) else {
        return NOT_ASKED;
    };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    };
    let report = write("report.bin", &case.report);
    let product = match case.product {
        "milan" => "Milan",
        "turin" => "Turin",
        _ => "Genoa",
    };
    write(&format!("aleph-sdk/kds/{product}/crl.der"), crl);
    // named as the peer names it, by the report's own claims
    let at = |offset| case.report.get(offset).copied().unwrap_or(0);
    let chip = hex::encode(case.report.get(0x1a0..0x1e0).unwrap_or(&[]));
    let tcb = match product {
        "Turin" => [0x181, 0x182, 0x183, 0x187],
        _ => [0x180, 0x181, 0x186, 0x187],
    };
    let tcb = tcb.map(|offset| at(offset).to_string());
    write(
        &format!("aleph-sdk/kds/{product}/vcek_{chip}_{}.der", tcb.join("_")),
        &case.leaf,
    );
    let mut command = Command::new(&programs[usize::from(case.allow_foreign_root)]);
    if case.allow_foreign_root {
        command
            .env("PEER_ARK", write("ark.der", &case.ark))
            .env("PEER_ASK", write("ask.der", &case.intermediate));
    }
    let output = command
        .arg(product)
        .arg(&report)
        .env("XDG_CACHE_HOME", directory.path())
        .env("LD_PRELOAD", faketime)
        .env(
            "FAKETIME",
            format!("@{}", AT.replace('T', " ").replace('Z', "")),
        )
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("kdsintf"), "it asked the network: {text}");
    assert_ne!(output.status.code(), Some(2));
    said(&output)
}

#[test]
#[ignore = "needs the peers: run peers/run.sh"]
fn peers_answer_as_recorded() {
    let variable = |name| match std::env::var(name) {
        Ok(value) => value,
        Err(_) => panic!("{name} is not set: run peers/run.sh"),
    };
    let snpguest_program = PathBuf::from(variable("SNPGUEST"));
    let aleph_programs =
        ["PEER_ALEPH", "PEER_ALEPH_SIMULATED"].map(|name| PathBuf::from(variable(name)));
    let faketime = variable("LIBFAKETIME");
    let mut text = "case\tsev-attest\tfailed checks\tsnpguest attestation\tsnpguest certs and \
                    attestation\taleph-sdk\n"
        .to_owned();
    for case in cases() {
        let (outcome, failed) = ours(&case);
        let [attestation, both] = snpguest(&snpguest_program, &case);
        let aleph = aleph(&aleph_programs, &faketime, &case);
        let name = case.name;
        writeln!(
            text,
            "{name}\t{outcome}\t{failed}\t{attestation}\t{both}\t{aleph}"
        )
        .unwrap();
    }
    if std::env::var_os("PEERS_WRITE").is_some() {
        fs::write(table(), &text).unwrap();
    }
    assert_eq!(fs::read_to_string(table()).unwrap(), text);
}
