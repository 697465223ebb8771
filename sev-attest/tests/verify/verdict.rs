//! A verdict that nobody can misread: exit statuses, what a secret may be sent for, a screenful.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sev_attest::appraise::{Appraisal, Expectation, Outcome, appraise};
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::product::{Cpuid, Product};
use sev_attest_issuer::ReportSpec;

use crate::support::{Case, REAL, at, path, real};

const AT: &str = "2026-06-01T00:00:00Z";

/// `verify` of a real report.
fn verify(report: &str, vcek: Option<&str>, more: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sev-attest"));
    command
        .arg("verify")
        .arg(path(report))
        .args(["--offline", "--at", AT, "--cache-dir"])
        .arg(empty.path());
    if let Some(vcek) = vcek {
        command.arg("--certs").arg(path(vcek));
    }
    command.args(more).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each expectation that is not there is missed, and each waiver counts for one of them.
#[test]
fn exit_0_takes_both_expectations() {
    let (report, vcek) = ("az-genoa-report.bin", Some("az-genoa-vcek.der"));
    let (parsed, _) = real(report, "az-genoa-vcek.der");
    let digest = hex::encode(parsed.measurement);
    let data = hex::encode(parsed.report_data);
    let (guest, time) = (["--measurement", &digest], ["--report-data", &data]);
    for (flags, code, missing, digest_is, data_is) in [
        (vec![], 4, 2, "missing", "missing"),
        (guest.to_vec(), 4, 1, "equal", "missing"),
        (time.to_vec(), 4, 1, "missing", "equal"),
        ([guest, time].concat(), 0, 0, "equal", "equal"),
        (vec!["--any-guest"], 4, 1, "waived", "missing"),
        (vec!["--any-time"], 4, 1, "missing", "waived"),
        (vec!["--any-guest", "--any-time"], 0, 0, "waived", "waived"),
        (
            [&guest[..], &["--any-time"]].concat(),
            0,
            0,
            "equal",
            "waived",
        ),
        (
            [&time[..], &["--any-guest"]].concat(),
            0,
            0,
            "waived",
            "equal",
        ),
        // A waiver does not make a wrong value right.
        (
            vec!["--any-time", "--any-guest", "--nonce", "0011223344556677"],
            1,
            0,
            "waived",
            "different",
        ),
    ] {
        let output = verify(report, vcek, &[&flags[..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{flags:?}");
        let value = json(&output);
        assert_eq!(value["exit_status"], code, "{flags:?}");
        assert_eq!(value["expectations"]["measurement"], digest_is, "{flags:?}");
        assert_eq!(value["expectations"]["report_data"], data_is, "{flags:?}");
        let expected = |is: &str| is == "equal" || is == "different";
        assert_eq!(
            value["measurement_expected"],
            expected(digest_is),
            "{flags:?}"
        );
        assert_eq!(
            value["report_data_expected"],
            expected(data_is),
            "{flags:?}"
        );
        assert_eq!(
            value["missing"].as_array().unwrap().len(),
            missing,
            "{flags:?}"
        );
        let may = (digest_is, data_is) == ("equal", "equal");
        assert_eq!(value["may_send_secret"], may, "{flags:?}");
        let words = String::from_utf8(verify(report, vcek, &flags).stdout).unwrap();
        let first = words.lines().next().unwrap();
        assert_eq!(
            first,
            format!("verdict: {}", value["verdict"].as_str().unwrap())
        );
        if code == 4 {
            assert!(first.contains("NOT ENOUGH EXPECTED"), "{first}");
            assert_eq!(first.contains("give --measurement"), digest_is == "missing");
            assert_eq!(first.contains("give --nonce"), data_is == "missing");
        }
        if code == 0 && !may {
            assert!(
                first.contains("ANY GUEST") || first.contains("ANY TIME"),
                "{first}"
            );
        }
    }
}

/// 2 before 1 before 3 before 4 before 0.
#[test]
fn exit_statuses_in_their_order() {
    let (report, vcek) = ("az-genoa-report.bin", Some("az-genoa-vcek.der"));
    for (certificates, flags, code) in [
        (vcek, &["--vmpl", "9"][..], 2),
        (None, &["--vmpl", "1", "--measurement", "zz"], 2),
        (None, &["--vmpl", "1"], 1),
        (vcek, &["--vmpl", "1", "--require-crl"], 1),
        (vcek, &["--require-crl"], 3),
        (None, &["--any-guest", "--any-time"], 3),
        (None, &[], 3),
        (vcek, &[], 4),
        (vcek, &["--any-guest", "--any-time"], 0),
    ] {
        let output = verify(report, certificates, flags);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{certificates:?} {flags:?}"
        );
    }
}

fn expecting(case: &Case) -> Policy {
    let mut policy = Policy::default();
    policy.measurement = vec![HexBytes(case.spec.measurement)];
    policy.report_data = Some(HexBytes(case.spec.report_data));
    policy
}

/// Whatever flags say: a secret is sent under AMD's root alone, to an expected guest, now.
#[test]
fn a_secret_takes_all_of_it() {
    let (report, chain) = real("az-milan-v3-report.bin", "az-milan-v3-vcek.der");
    let mut policy = Policy::default();
    let judge = |policy: &Policy| appraise(&report, Some(&chain), policy, at());
    let refused = |appraisal: &Appraisal, word: &str| {
        let withheld = appraisal.clearance().unwrap_err().to_string();
        assert!(withheld.contains(word), "{withheld}");
    };
    refused(&judge(&policy), "launch digest");
    (policy.any_guest, policy.any_time) = (true, true);
    let waived = judge(&policy);
    assert!(waived.is_genuine());
    refused(&waived, "launch digest");
    policy.measurement = vec![HexBytes(report.measurement)];
    refused(&judge(&policy), "report data");
    policy.report_data = Some(HexBytes(report.report_data));
    let appraisal = judge(&policy);
    let clearance = appraisal.clearance().unwrap();
    assert_eq!(clearance.measurement(), &report.measurement);
    assert_eq!(clearance.report_data(), &report.report_data);
    // What anybody does to the fields afterwards clears nothing.
    policy.vmpl = vec![1];
    let mut bent = judge(&policy);
    bent.outcome = Outcome::Genuine;
    bent.findings.clear();
    bent.launch_digest = Expectation::Equal;
    refused(&bent, "not genuine");
    // Nor does a root that was accepted by request.
    let mut case = Case::new(Product::Genoa);
    case.policy = expecting(&case);
    case.policy.allow_foreign_root = true;
    let foreign = case.appraise();
    assert!(foreign.is_genuine(), "{}", foreign.to_text());
    refused(&foreign, "AMD's root");
    refused(&appraise(&report, None, &policy, at()), "AMD's root");
}

/// A person sees the verdict first, and all of it without scrolling.
#[test]
fn a_genuine_report_fits_a_screen() {
    for (report, vcek) in REAL {
        let flags = ["--allow-debug", "--any-guest", "--any-time"];
        let output = verify(report, Some(vcek), &flags);
        assert_eq!(output.status.code(), Some(0), "{report}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 40, "{report}: {}", lines.len());
        assert!(lines[0].starts_with("verdict: genuine"), "{}", lines[0]);
        for label in [
            "product",
            "chip",
            "TCB",
            "bulletins",
            "measurement",
            "report data",
            "host data",
            "VMPL",
            "policy",
        ] {
            let has = lines.iter().any(|line| line.starts_with(label));
            assert!(has, "{report}: no {label}\n{text}");
        }
        // Whatever was not checked has its name in the last line.
        let last = lines.last().unwrap();
        assert!(last.starts_with("not checked ("), "{last}");
        let value = json(&verify(
            report,
            Some(vcek),
            &[&flags[..], &["--json"]].concat(),
        ));
        for finding in value["findings"].as_array().unwrap() {
            let id = finding["check"].as_str().unwrap();
            if finding["status"] != "not_checked" {
                continue;
            }
            let (place, name) = match id.strip_prefix("advisories.AMD-") {
                Some(bulletin) => (text.as_str(), bulletin),
                None => (*last, id.rsplit('.').next().unwrap()),
            };
            assert!(place.contains(name), "{report}: {id} is silent\n{text}");
        }
    }
}

/// What failed stands directly below the verdict, with both values and the reason.
#[test]
fn failures_come_first() {
    let output = verify(
        "az-genoa-report.bin",
        Some("az-genoa-vcek.der"),
        &["--vmpl", "1", "--nonce", "0011223344556677"],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "verdict: NOT GENUINE OR NOT AS EXPECTED: report_data, vmpl"
    );
    assert!(lines[2].starts_with("FAILED       report_data"), "{text}");
    assert!(
        lines[3].starts_with("FAILED       vmpl  0 (expected 1);"),
        "{text}"
    );
}

/// Newer firmware sets bits that are not known yet: a fault of its own, which can be allowed.
#[test]
fn unknown_bits_have_a_flag() {
    for (name, bend) in [
        (
            "policy.unknown_bits",
            (|spec| spec.policy |= 1 << 30) as fn(&mut ReportSpec),
        ),
        ("platform.unknown_bits", |spec| spec.platform_info |= 1 << 9),
    ] {
        let mut spec = ReportSpec::new(Product::Turin);
        bend(&mut spec);
        let mut case = Case::of(spec);
        case.refused_for(name, &[name]);
        case.policy.allow_unknown_bits = true;
        case.genuine(name);
    }
}

/// A Venice is named, in one finding, and nothing is said of its chain.
#[test]
fn venice_is_one_message() {
    for model in [0x50, 0x57, 0x90, 0xaf, 0xc0, 0xc7] {
        let mut spec = ReportSpec::new(Product::Turin);
        spec.cpuid = Cpuid {
            family: 0x1a,
            model,
            stepping: 0,
        };
        let appraisal = Case::of(spec).appraise();
        let failed: Vec<_> = appraisal.failures().collect();
        assert_eq!(failed.len(), 1, "{}", appraisal.to_text());
        assert!(failed[0].found.starts_with("Venice"), "{:?}", failed[0]);
    }
}

/// All zero is what a report has where there is none: so can be said of each of them.
#[test]
fn none_can_be_pinned() {
    let mut spec = ReportSpec::new(Product::Milan);
    spec.id_key_digest = [0; 48];
    spec.author_key_digest = [0; 48];
    spec.host_data = [0; 32];
    spec.family_id = [0; 16];
    spec.image_id = [0; 16];
    let text = "host_data = \"none\"\nfamily_id = \"none\"\nimage_id = \"none\"\n\
                id_key_digest = \"none\"\nauthor_key_digest = [\"none\"]\n\
                any_guest = true\nany_time = true\n";
    let policy = || {
        let mut policy = Policy::from_toml(text).unwrap();
        policy.allow_foreign_root = true;
        policy
    };
    let mut case = Case::of(spec.clone());
    case.policy = policy();
    case.genuine("none of them");
    let checks = ["host_data", "family_id", "image_id", "id_key_digest"];
    let mut case = Case::new(Product::Milan);
    case.policy = policy();
    case.refused_for(
        "some of them",
        &[checks[0], checks[1], checks[2], checks[3]],
    );
    // An author key that was there is not none.
    spec.author_key_digest = [7; 48];
    spec.key_info |= 1;
    let mut case = Case::of(spec);
    case.policy = policy();
    case.refused_for("an author key", &["author_key_digest"]);
}

/// Directory of inputs that are not in this repository, one for each fault of form.
fn forms(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("SEV_ATTEST_FORMS")?).join(name))
}

#[test]
fn a_launch_without_an_author_key_can_be_pinned() {
    let Some(directory) = forms("14-author-key-none") else {
        skip::skip!(
            "forms",
            "SEV_ATTEST_FORMS names no directory with 14-author-key-none"
        );
    };
    let zeros = "0".repeat(96);
    for pin in ["none", zeros.as_str()] {
        for flag in ["--author-key-digest", "--id-key-digest"] {
            let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
                .arg("verify")
                .arg(directory.join("report.bin"))
                .arg("--certs")
                .arg(directory.join("vcek.der"))
                .args(["--offline", "--any-guest", "--any-time", flag, pin])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                !text.contains(&format!("FAILED       {}", flag[2..].replace('-', "_"))),
                "{text}"
            );
        }
    }
}
