//! The command where it can only refuse, and its usage.

use std::process::Command;

fn guest(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .arg("guest")
        .args(args)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn no_guest_no_report() {
    if std::path::Path::new("/dev/sev-guest").exists() {
        skip::skip!("no-sev-guest", "this is an SEV-SNP guest");
    }
    let nonce = "00112233445566778899aabbccddeeff";
    for (args, expected) in [
        (vec!["report", "--nonce", nonce], "this is no SEV-SNP guest"),
        (
            vec!["report", "--nonce", nonce, "--via", "device"],
            "/dev/sev-guest: not there",
        ),
        (
            vec!["report", "--nonce", nonce, "--via", "configfs"],
            "/sys/kernel/config/tsm/report",
        ),
        (vec!["derive-key", "-o", "-"], "/dev/sev-guest: not there"),
    ] {
        let (status, said) = guest(&args);
        assert_eq!(status, 2, "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn usage() {
    let nonce = "00112233445566778899aabbccddeeff";
    let data = "00".repeat(64);
    for args in [
        vec!["report"],
        vec!["report", "--nonce", "0011"],
        vec!["report", "--nonce", "no hex at all"],
        vec!["report", "--nonce", nonce, "--report-data", &data],
        vec!["report", "--report-data", nonce],
        vec!["report", "--nonce", nonce, "--vmpl", "4"],
        vec!["report", "--nonce", nonce, "--format", "pem"],
        vec!["derive-key"],
        vec!["derive-key", "-o", "-", "--with", "everything"],
        vec!["derive-key", "-o", "-", "--tcb", "0xxyz"],
    ] {
        let (status, said) = guest(&args);
        assert_eq!(status, 2, "{args:?}: {said}");
        assert!(said.starts_with("error: "), "{args:?}: {said}");
    }
}
