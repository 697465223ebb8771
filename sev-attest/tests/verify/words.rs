//! What findings and fields say, where it once sent people the wrong way.

use serde_json::Value;
use sev_attest::appraise::{Finding, Status};
use sev_attest::product::Product;
use sev_attest::report::Report;
use sev_attest::show;
use sev_attest_issuer::ReportSpec;

use crate::support::Case;

#[track_caller]
fn finding(case: &Case, id: &str) -> Finding {
    let appraisal = case.appraise();
    let found = appraisal.findings.iter().find(|finding| finding.id == id);
    found.unwrap().clone()
}

/// Turin's chip ids are 8 bytes in the certificate and 64 in the report.
#[test]
fn bytes_after_a_short_chip_id_are_named() {
    let mut spec = ReportSpec::new(Product::Turin);
    spec.chip_id[9] = 1;
    let finding = finding(&Case::of(spec), "leaf.hwid");
    assert_eq!(finding.status, Status::Failed);
    assert_ne!(finding.found, finding.expected);
    let reason = finding.reason.unwrap();
    assert!(reason.contains("after the first 8"), "{reason}");
}

/// Firmware of one version can have another TCB: the component that is not committed is named.
#[test]
fn provisional_firmware_names_the_component() {
    let mut spec = ReportSpec::new(Product::Genoa);
    spec.committed_tcb.snp = 5;
    let finding = finding(&Case::of(spec), "firmware.provisional");
    assert_eq!(finding.status, Status::Failed);
    assert_eq!(finding.found, "running SNP firmware 24, committed 5");
}

/// Bits that a version does not have are no facts: null in JSON, and never as expected.
#[test]
fn later_bits_are_not_shown_as_facts() {
    const LATER: [(&str, &str); 4] = [
        ("platform_info", "alias_check_complete"),
        ("platform_info", "iommu_write_safe"),
        ("platform_info", "tio"),
        ("guest_policy", "page_swap_disabled"),
    ];
    let shown = |spec: &ReportSpec| {
        let report = Report::parse(&spec.to_bytes()).unwrap();
        show::to_json(&show::report(&report, None))
    };
    let mut spec = ReportSpec::new(Product::Milan).version(2);
    spec.platform_info = 1;
    for (section, key) in LATER {
        assert_eq!(shown(&spec)[section][key], Value::Null, "{key}");
    }
    // A bit that is set is told, whatever the version.
    spec.platform_info |= 1 << 5;
    assert_eq!(shown(&spec)["platform_info"]["alias_check_complete"], true);
    let later = ReportSpec::new(Product::Turin);
    for (section, key) in LATER {
        assert!(shown(&later)[section][key].is_boolean(), "{key}");
    }

    let mut case = Case::of(ReportSpec::new(Product::Milan).version(2));
    case.policy.platform.tio = Some(false);
    let failed = finding(&case, "platform.tio");
    assert_eq!(failed.status, Status::Failed);
    assert_eq!(failed.found, "not in this version");
    case.policy.platform.tio = None;
    assert_eq!(finding(&case, "platform.tio").found, "");
}
