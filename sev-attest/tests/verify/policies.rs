//! Policy files do what they say, and those that `measure` writes are read.

use sev_attest::appraise::Outcome;
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest_issuer::ReportSpec;

use crate::support::Case;

/// Everything that a sound Turin report has, expected by a file.
fn everything(case: &Case) -> String {
    let spec = &case.spec;
    format!(
        r#"
        measurement = ["{zero}", "{measurement}"]
        report_data = "{report_data}"
        host_data = "{host_data}"
        family_id = "{family_id}"
        image_id = "{image_id}"
        id_key_digest = "{id_key}"
        author_key_digest = ["{author_key}"]
        vmpl = [0, 1]
        min_guest_svn = 3
        signing_key = "VCEK"
        product = "Turin"
        chip_id = "{chip_id}"
        max_certificate_age_days = 1000

        [guest_policy]
        debug = "any"
        migration_agent = false
        smt = true
        single_socket = false
        cxl = false
        mem_aes_256_xts = false
        rapl_disabled = false
        ciphertext_hiding = false
        page_swap_disabled = false
        min_abi = "0.31"

        [platform]
        smt = true
        tsme = false
        ecc = true
        rapl_disabled = false
        ciphertext_hiding = false
        alias_check_complete = true
        iommu_write_safe = false
        tio = false

        [tcb]
        reported = {{ fmc = 1, boot_loader = 4, tee = 1, snp = 24, microcode = 219 }}
        committed = {{ snp = 24 }}
        launch = {{ snp = 23 }}
        current = {{ microcode = 219 }}

        [firmware]
        min_current = "1.55.40"
        min_committed = "1.55.29"

        [mitigations]
        launch = 0x3f
        current = 1
        "#,
        zero = "00".repeat(48),
        measurement = hex::encode(spec.measurement),
        report_data = hex::encode(spec.report_data),
        host_data = hex::encode(spec.host_data),
        family_id = hex::encode(spec.family_id),
        image_id = hex::encode(spec.image_id),
        id_key = hex::encode(spec.id_key_digest),
        author_key = hex::encode(spec.author_key_digest),
        chip_id = hex::encode(&spec.chip_id[..8]),
    )
}

fn turin() -> Case {
    let mut spec = ReportSpec::new(Product::Turin);
    spec.policy = 0x3_001f;
    spec.key_info = 1;
    spec.author_key_digest = [0xaa; 48];
    Case::of(spec)
}

#[test]
fn a_file_that_expects_everything() {
    let mut case = turin();
    case.policy = Policy::from_toml(&everything(&case)).unwrap();
    case.policy.allow_foreign_root = true;
    case.genuine("everything expected");
    let unchecked: Vec<_> = case
        .appraise()
        .findings
        .into_iter()
        .filter(|finding| finding.status == sev_attest::appraise::Status::NotChecked)
        .map(|finding| finding.id)
        .collect();
    // What is asked for in part is listed for the rest too.
    let (tcbs, rest): (Vec<&str>, Vec<&str>) = unchecked
        .iter()
        .map(|id| &**id)
        .filter(|id| !id.starts_with("advisories."))
        .partition(|id| id.starts_with("tcb."));
    assert_eq!(
        rest,
        ["chain.revocation", "leaf.csp_id", "policy.debug", "floor"]
    );
    let parts = |tcb: &str, asked: &str| {
        let all = ["fmc", "boot_loader", "tee", "snp", "microcode"];
        let unasked = all.into_iter().filter(|part| *part != asked);
        unasked
            .map(|part| format!("tcb.{tcb}.{part}"))
            .collect::<Vec<_>>()
    };
    let expected = [
        parts("committed", "snp"),
        parts("launch", "snp"),
        parts("current", "microcode"),
    ];
    assert_eq!(tcbs, expected.concat());
}

/// Each line of that file counts: with another value the report is refused.
#[test]
fn each_line_of_it_counts() {
    let case = turin();
    let text = everything(&case);
    for (from, to, check) in [
        ("vmpl = [0, 1]", "vmpl = [1, 2]", "vmpl"),
        ("min_guest_svn = 3", "min_guest_svn = 4", "guest_svn"),
        (
            "signing_key = \"VCEK\"",
            "signing_key = \"VLEK\"",
            "report.signing_key",
        ),
        ("product = \"Turin\"", "product = \"Genoa\"", "product"),
        ("age_days = 1000", "age_days = 100", "leaf.age"),
        ("smt = true", "smt = false", "policy.smt"),
        ("min_abi = \"0.31\"", "min_abi = \"0.32\"", "policy.abi"),
        (
            "alias_check_complete = true",
            "alias_check_complete = false",
            "platform.alias_check_complete",
        ),
        ("fmc = 1", "fmc = 2", "tcb.reported.fmc"),
        (
            "committed = { snp = 24",
            "committed = { snp = 25",
            "tcb.committed.snp",
        ),
        (
            "launch = { snp = 23",
            "launch = { snp = 25",
            "tcb.launch.snp",
        ),
        (
            "current = { microcode = 219",
            "current = { microcode = 220",
            "tcb.current.microcode",
        ),
        (
            "min_current = \"1.55.40\"",
            "min_current = \"1.55.41\"",
            "firmware.current",
        ),
        (
            "min_committed = \"1.55.29\"",
            "min_committed = \"2.0.0\"",
            "firmware.committed",
        ),
        ("launch = 0x3f", "launch = 0x40", "mitigations.launch"),
        ("current = 1\n", "current = 0x80\n", "mitigations.current"),
    ] {
        assert!(text.contains(from), "{from}");
        let mut case = turin();
        case.policy = Policy::from_toml(&text.replacen(from, to, 1)).unwrap();
        case.policy.allow_foreign_root = true;
        case.refused_for(to, &[check]);
    }
}

#[test]
fn files_of_measure_are_read() {
    let digest = "41".repeat(48);
    let text = format!(
        "# Written by `sev-attest measure`.\nmeasurement = [\n  \"{digest}\", # 1 x EPYC-v4  \"console=ttyS0\"\n]\n\
         id_key_digest = [\"{digest}\"]\nauthor_key_digest = [\"{digest}\"]\n\
         family_id = \"{id}\"\nimage_id = \"{id}\"\n",
        id = "00".repeat(16)
    );
    let policy = Policy::from_toml(&text).unwrap();
    assert_eq!(policy.measurement, [HexBytes([0x41; 48])]);
    assert_eq!(policy.author_key_digest, [HexBytes([0x41; 48])]);
}

/// What is not in the file keeps its safe default.
#[test]
fn defaults_are_safe() {
    let policy = Policy::from_toml("vmpl = 1\n[guest_policy]\nsmt = true").unwrap();
    assert_eq!(policy.guest_policy.debug, Some(false));
    assert_eq!(policy.guest_policy.migration_agent, Some(false));
    assert!(!policy.allow_masked_chip_id && !policy.firmware.allow_provisional);
    assert!(!policy.allow_foreign_root);
    let mut spec = ReportSpec::new(Product::Genoa);
    (spec.vmpl, spec.policy) = (1, 0x3_0000 | 1 << 19);
    let mut case = Case::of(spec);
    case.policy = policy;
    case.policy.allow_foreign_root = true;
    case.refused_for("debug, by default", &["policy.debug"]);
    assert_eq!(case.appraise().outcome, Outcome::Refused);
}
