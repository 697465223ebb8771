//! Real evidence has the verdict that it should.

use sev_attest::appraise::{Outcome, appraise};
use sev_attest::assemble;
use sev_attest::cert::Certificate;
use sev_attest::chain::Root;
use sev_attest::formats::Bundle;
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::report::Version;
use sev_attest::time::UnixTime;

use crate::support::{REAL, at, data, real};

#[test]
fn real_reports_are_genuine() {
    for (report, vcek) in REAL {
        let (parsed, chain) = real(report, vcek);
        let mut policy = Policy::default();
        if report.contains("debug") {
            let appraisal = appraise(&parsed, Some(&chain), &policy, at());
            let failed: Vec<_> = appraisal.failures().map(|finding| &*finding.id).collect();
            assert_eq!(failed, ["policy.debug"], "{report}");
            policy.guest_policy.debug = None;
        }
        policy.measurement = vec![HexBytes(parsed.measurement)];
        policy.report_data = Some(HexBytes(parsed.report_data));
        let appraisal = appraise(&parsed, Some(&chain), &policy, at());
        assert_eq!(
            appraisal.outcome,
            Outcome::Genuine,
            "{report}:\n{}",
            appraisal.to_text()
        );
        assert_eq!(appraisal.verdict(), "genuine and as expected");
        assert!(matches!(appraisal.root, Some(Root::Amd(_))));
    }
}

#[test]
fn real_reports_say_what_is_known_of_them() {
    for (name, version, product, tcb) in [
        (
            "virtee-milan-report.hex",
            Version::V2,
            None,
            0x7308_0000_0000_0003,
        ),
        (
            "az-milan-v3-report.bin",
            Version::V3,
            Some(Product::Milan),
            0xdb18_0000_0000_0004,
        ),
        (
            "az-genoa-report.bin",
            Version::V3,
            Some(Product::Genoa),
            0x5417_0000_0000_000a,
        ),
        (
            "ms-turin-report.bin",
            Version::V5,
            Some(Product::Turin),
            0x5100_0000_0401_0101,
        ),
    ] {
        let report = sev_attest::formats::read_report(&data(name))
            .unwrap()
            .report;
        assert_eq!(report.version, version, "{name}");
        assert_eq!(report.product(), product, "{name}");
        assert_eq!(report.reported_tcb.0, tcb, "{name}");
        assert_eq!(report.violations(), [], "{name}");
    }
}

/// Certificates of no AMD chain, and certificates of other chips.
#[test]
fn other_certificates_are_refused() {
    let certificates = [
        "coco-milan-vcek-invalid-legacy.der",
        "coco-milan-vcek-invalid-new.der",
        "virtee-turin-vcek.der",
    ];
    let others = REAL.map(|(_, vcek)| vcek);
    for (report, vcek) in REAL {
        let report = sev_attest::formats::read_report(&data(report))
            .unwrap()
            .report;
        for other in certificates.iter().chain(&others) {
            if *other == vcek {
                continue;
            }
            let mut bundle = Bundle::default();
            bundle
                .certificates
                .push(Certificate::parse(&data(other)).unwrap());
            let chain = assemble::chain(&report, &bundle, at());
            let appraisal = appraise(&report, chain.as_ref(), &Policy::default(), at());
            assert_eq!(
                appraisal.outcome,
                Outcome::Refused,
                "{other} for {vcek}'s report"
            );
            assert!(
                appraisal
                    .failures()
                    .any(|finding| finding.id == "report.signature"),
                "{other} for {vcek}'s report"
            );
        }
    }
}

#[test]
fn without_a_certificate_it_is_undecided() {
    let (report, _) = real("az-genoa-report.bin", "az-genoa-vcek.der");
    let appraisal = appraise(&report, None, &Policy::default(), at());
    assert_eq!(appraisal.outcome, Outcome::Undecided);
    assert!(appraisal.verdict().starts_with("UNDECIDED: chain"));
    // What can be judged is judged all the same.
    let mut policy = Policy::default();
    policy.measurement = vec![HexBytes([0; 48])];
    let appraisal = appraise(&report, None, &policy, at());
    assert_eq!(appraisal.outcome, Outcome::Refused);
}

#[test]
fn without_a_measurement_the_verdict_says_so() {
    let (report, chain) = real("az-genoa-report.bin", "az-genoa-vcek.der");
    let appraisal = appraise(&report, Some(&chain), &Policy::default(), at());
    assert_eq!(appraisal.outcome, Outcome::Incomplete);
    assert!(!appraisal.is_genuine());
    assert!(
        appraisal
            .verdict()
            .contains("proves only that some SEV-SNP guest made the report")
    );
}

/// A real VLEK: of VMPL 1, and valid for a year only.
#[test]
fn a_real_vlek() {
    let (report, chain) = real("coco-milan-vlek-report.bin", "coco-milan-vlek.der");
    let judge = |time: &str, vmpl: u32| {
        let mut policy = Policy::default();
        policy.vmpl = vec![vmpl];
        policy.csp_id = vec!["CN=cc-us-east-2.amazonaws.com".to_owned()];
        let at = UnixTime::from_rfc3339(time).unwrap();
        let appraisal = appraise(&report, Some(&chain), &policy, at);
        appraisal
            .failures()
            .map(|finding| finding.id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(judge("2025-06-01T00:00:00Z", 1), [""; 0]);
    assert_eq!(judge("2025-06-01T00:00:00Z", 0), ["vmpl"]);
    assert_eq!(judge("2025-12-10T22:14:22Z", 1), ["leaf.validity"]);
    assert_eq!(judge("2024-12-10T22:14:20Z", 1), ["leaf.validity"]);
}
