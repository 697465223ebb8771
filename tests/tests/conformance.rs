//! The verifier under the contract of tinfoil's conformance suite: their cases from a directory, and
//! some of our own vectors in the same shape.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::conformance::STAGE;

/// Runs the program as the contract says; its exit status and output.
fn adapter(stage: &str, input: &[u8]) -> (i32, Value) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg(stage)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // a program that has no use for its input may be gone
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), said)
}

/// How the program's answer to a case differs from what is expected, if it does.
fn differs(directory: &Path) -> Option<String> {
    let expected: Value =
        serde_json::from_slice(&fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let input = fs::read(directory.join("input.json")).unwrap();
    let (status, said) = adapter(expected["stage"].as_str().unwrap(), &input);
    if expected["accepted"] == true {
        let wanted = &expected["outputs"]["measurement"];
        let same = wanted.is_null() || *wanted == said["outputs"]["measurement"];
        return (status != 0 || !same).then(|| format!("expected accepted, {status}: {said}"));
    }
    let code = &said["rejection"]["code"];
    let wanted = &expected["rejection"]["code"];
    let named = match wanted {
        Value::Array(any) => any.contains(code),
        one => one == code,
    };
    (status != 10 || !named).then(|| format!("expected {wanted}, {status}: {said}"))
}

/// All directories below `root` with a case for our stage.
fn cases(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            }
        }
        let Ok(expected) = fs::read(directory.join("expected.json")) else {
            continue;
        };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        if expected["stage"] == STAGE && directory.join("input.json").is_file() {
            found.push(directory);
        }
    }
    found.sort();
    found
}

fn hold(root: &Path) -> usize {
    let cases = cases(root);
    let told: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.display(), differs(case)?)))
        .collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    cases.len()
}

/// The suite, from a directory that `CONFORMANCE_SUITE` names: a copy of tinfoil's
/// `vectors/attestation-sev`, or any of that shape.
#[test]
fn a_suite_from_a_directory() {
    let Some(root) = std::env::var_os("CONFORMANCE_SUITE") else {
        skip::skip!(
            "conformance-suite",
            "CONFORMANCE_SUITE names no directory with cases"
        );
    };
    let held = hold(Path::new(&root));
    assert!(held > 0, "no cases for {STAGE} in {}", root.display());
}

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sev-attest/tests/vectors");
    fs::read(path.join(name)).unwrap()
}

/// An input of the contract.
fn input(report: &[u8], vcek: &[u8], policy: &Value) -> Value {
    json!({
        "schema_version": "1",
        "attestation_doc_b64": STANDARD.encode(report),
        "vcek_der_b64": STANDARD.encode(vcek),
        // 2026-06-01
        "expiration_check_date_unix": 1_780_272_000,
        "policy": policy,
    })
}

#[test]
fn our_own_vectors() {
    let (report, vcek) = (vector("az-genoa-report.bin"), vector("az-genoa-vcek.der"));
    let flipped = |at: usize| {
        let mut bytes = report.clone();
        bytes[at] ^= 1;
        bytes
    };
    let other = vector("coco-milan-vcek.der");
    let (none, zeros) = (json!({}), "0".repeat(96));
    let measurement = hex::encode(&report[0x90..0xc0]);
    let pin = |name: &str, digits: &str| json!({format!("expected_{name}_hex"): digits});
    let root = tempfile::tempdir().unwrap();
    let (debug, debug_vcek) = (
        vector("gsg-milan-debug-report.bin"),
        vector("gsg-milan-debug-vcek.der"),
    );
    for (name, input, code) in [
        ("genuine", input(&report, &vcek, &none), None),
        (
            "pinned",
            input(&report, &vcek, &pin("measurement", &measurement)),
            None,
        ),
        (
            "measurement",
            input(&report, &vcek, &pin("measurement", &zeros)),
            Some("MEASUREMENT_MISMATCH"),
        ),
        (
            "host data",
            input(&report, &vcek, &pin("host_data", &"11".repeat(32))),
            Some("HOST_DATA_MISMATCH"),
        ),
        (
            "report data",
            input(&report, &vcek, &pin("report_data", &"11".repeat(64))),
            Some("REPORT_DATA_MISMATCH"),
        ),
        (
            "tcb",
            input(&report, &vcek, &json!({"min_tcb_snp_spl": 255})),
            Some("TCB_OUT_OF_DATE"),
        ),
        (
            "changed",
            input(&flipped(0x90), &vcek, &none),
            Some("REPORT_SIGNATURE_INVALID"),
        ),
        (
            "signature",
            input(&flipped(0x2a8), &vcek, &none),
            Some("REPORT_SIGNATURE_INVALID"),
        ),
        (
            "version",
            input(&flipped(2), &vcek, &none),
            Some("WRONG_REPORT_VERSION"),
        ),
        (
            "short",
            input(&report[..1183], &vcek, &none),
            Some("REPORT_FORMAT_UNSUPPORTED"),
        ),
        (
            "certificate",
            input(&report, &vcek[1..], &none),
            Some("VCEK_CHAIN_INVALID"),
        ),
        (
            "another chip",
            input(&report, &other, &none),
            Some("VCEK_HWID_MISMATCH"),
        ),
        (
            "debug",
            input(&debug, &debug_vcek, &none),
            Some("GUEST_POLICY_DEBUG_SET"),
        ),
    ] {
        let directory = root.path().join(name);
        fs::create_dir(&directory).unwrap();
        let expected = match code {
            None => json!({"stage": STAGE, "accepted": true}),
            Some(code) => json!({"stage": STAGE, "accepted": false, "rejection": {"code": code}}),
        };
        fs::write(directory.join("input.json"), input.to_string()).unwrap();
        fs::write(directory.join("expected.json"), expected.to_string()).unwrap();
    }
    assert_eq!(hold(root.path()), 13);
}

#[test]
fn what_is_no_verdict() {
    let (report, vcek) = (vector("az-genoa-report.bin"), vector("az-genoa-vcek.der"));
    let good = input(&report, &vcek, &json!({}));
    assert_eq!(adapter(STAGE, good.to_string().as_bytes()).0, 0);
    assert_eq!(
        adapter("verify-attestation-tdx", good.to_string().as_bytes()).0,
        20
    );
    assert_eq!(adapter(STAGE, b"{").0, 30);
    for (key, value) in [
        ("schema_version", json!("2")),
        ("attestation_doc_b64", Value::Null),
        ("expiration_check_date_unix", json!("today")),
        ("policy", json!({"expected_measurement_hex": "00"})),
        ("amd_root_ca_pem", json!("alone")),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert_eq!(adapter(STAGE, bad.to_string().as_bytes()).0, 30, "{key}");
    }
    let (status, said) = adapter("capabilities", b"");
    assert_eq!(
        (status, &said["attestation_sev"]["supported"]),
        (0, &json!(true))
    );
}
