//! What a TCB is worth: floors by silicon, and AMD's bulletins.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;
use sev_attest::advisories::{Attested, Standing, Table};
use sev_attest::appraise::{Appraisal, Outcome, Status};
use sev_attest::policy::{FloorSet, Floors, Policy, RequireAdvisories, TcbMinimum};
use sev_attest::product::{Product, Silicon};
use sev_attest_issuer::ReportSpec;

use crate::support::{Case, path, real};

fn run(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .args(args)
        .output();
    output.unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A simulated report of some silicon with this SNP firmware and microcode everywhere.
fn case(silicon: (Product, u8, u8), snp: u8, microcode: u8) -> Case {
    let (product, model, stepping) = silicon;
    let mut spec = ReportSpec::new(product);
    (spec.cpuid.model, spec.cpuid.stepping) = (model, stepping);
    for tcb in [
        &mut spec.reported_tcb,
        &mut spec.current_tcb,
        &mut spec.committed_tcb,
        &mut spec.launch_tcb,
    ] {
        (tcb.snp, tcb.microcode) = (snp, microcode);
    }
    Case::of(spec)
}

const MILAN: (Product, u8, u8) = (Product::Milan, 0x01, 1);
const MILAN_X: (Product, u8, u8) = (Product::Milan, 0x01, 2);
const GENOA: (Product, u8, u8) = (Product::Genoa, 0x11, 1);
const SIENA: (Product, u8, u8) = (Product::Genoa, 0xa0, 2);
const TURIN: (Product, u8, u8) = (Product::Turin, 0x02, 1);

/// Each silicon has a number of its own, and is held to no other's.
#[test]
fn floors_are_of_one_silicon() {
    for (silicon, snp, microcode, failed) in [
        (MILAN, 22, 219, &[][..]),
        (MILAN, 22, 218, &["floor.microcode"]),
        (MILAN, 21, 219, &["floor.snp"]),
        (MILAN_X, 22, 68, &[]),
        (MILAN_X, 22, 67, &["floor.microcode"]),
        (GENOA, 21, 84, &[]),
        (GENOA, 21, 83, &["floor.microcode"]),
        (SIENA, 21, 25, &[]),
        (SIENA, 20, 24, &["floor.snp", "floor.microcode"]),
    ] {
        let mut case = case(silicon, snp, microcode);
        case.policy.floors = FloorSet::Aleph.floors();
        // Genoa's boot loader is asked for, and what the issuer writes is older.
        let boot_loader = ("floor.boot_loader", silicon.0 == Product::Genoa);
        let expected: Vec<&str> = boot_loader
            .1
            .then_some(boot_loader.0)
            .into_iter()
            .chain(failed.iter().copied())
            .collect();
        let appraisal = case.appraise();
        let found: Vec<&str> = appraisal.failures().map(|finding| &*finding.id).collect();
        assert_eq!(found, expected, "{silicon:?} {snp} {microcode}");
    }
    // The launch counts, not only what is reported.
    let mut launched = case(MILAN, 22, 219);
    launched.spec.launch_tcb.snp = 21;
    launched.policy.floors = FloorSet::Aleph.floors();
    launched.refused_for("launched under older firmware", &["floor.snp"]);
}

/// A set that does not speak of a silicon says nothing good of it; a report of version 2 leaves its
/// model open, where the floors differ.
#[test]
fn floors_that_do_not_decide() {
    let only_genoa = Floors(BTreeMap::from([(
        Silicon::Genoa,
        TcbMinimum {
            snp: Some(1),
            ..TcbMinimum::default()
        },
    )]));
    let mut milan = case(MILAN, 200, 255);
    milan.policy.floors = only_genoa.clone();
    milan.refused_for("no floor", &["floor"]);
    let mut stepping = case((Product::Genoa, 0x11, 9), 200, 255);
    stepping.policy.floors = only_genoa;
    stepping.refused_for("unknown stepping", &["floor"]);
    let mut open = case(MILAN, 22, 100);
    open.spec.version = 2;
    open = Case::of(open.spec);
    open.policy.floors = FloorSet::Aleph.floors();
    let appraisal = open.appraise();
    assert_eq!(
        appraisal.outcome,
        Outcome::Undecided,
        "{}",
        appraisal.to_text()
    );
    assert_eq!(appraisal.verdict(), "UNDECIDED: floor.microcode");
}

fn standings(case: &Case) -> BTreeMap<String, Standing> {
    let report = sev_attest::report::Report::parse(&case.bytes()).unwrap();
    let attested = Attested::of(&report, Some(case.spec.product));
    let assessed = Table::built_in().assess(&attested);
    assessed
        .into_iter()
        .map(|it| (it.advisory.bulletin.clone(), it.standing))
        .collect()
}

/// The numbers of the table on both sides of each edge.
#[test]
fn bulletins_by_number_and_bit() {
    use Standing::{Fixed, NoFix, NotAttestable, NotFixed, Withdrawn};
    for (silicon, snp, microcode, bulletin, standing) in [
        (MILAN, 24, 219, "AMD-SB-3019", Fixed),
        (MILAN, 23, 219, "AMD-SB-3019", NotFixed),
        // Microcode alone is weak evidence, and so is the firmware alone.
        (MILAN, 24, 218, "AMD-SB-3019", NotFixed),
        (MILAN_X, 24, 68, "AMD-SB-3019", Fixed),
        (MILAN_X, 24, 67, "AMD-SB-3019", NotFixed),
        (SIENA, 23, 25, "AMD-SB-3019", Fixed),
        (MILAN, 26, 219, "AMD-SB-3023", NotFixed),
        (MILAN, 27, 219, "AMD-SB-3023", Fixed),
        (MILAN, 28, 219, "AMD-SB-3030", NotFixed),
        (MILAN, 29, 219, "AMD-SB-3030", Fixed),
        (TURIN, 3, 80, "AMD-SB-3020", NotFixed),
        (TURIN, 4, 80, "AMD-SB-3020", Fixed),
        // Half of it is the host's kernel, which reports below version 5 do not show.
        (GENOA, 27, 86, "AMD-SB-3016", NotAttestable),
        (GENOA, 26, 86, "AMD-SB-3016", NotFixed),
        (GENOA, 28, 86, "AMD-SB-3034", Withdrawn),
        (GENOA, 99, 99, "AMD-SB-3039", NotAttestable),
        (MILAN, 99, 255, "AMD-SB-3045", NoFix),
        (GENOA, 99, 255, "AMD-SB-3040", NoFix),
        (GENOA, 27, 85, "AMD-SB-3027", NotFixed),
        (GENOA, 27, 86, "AMD-SB-3027", Fixed),
    ] {
        let case = case(silicon, snp, microcode);
        let found = standings(&case);
        assert_eq!(
            found[bulletin], standing,
            "{bulletin} {silicon:?} {snp} {microcode}"
        );
    }
    // A thread that is not there attacks nobody.
    let mut alone = case(GENOA, 27, 1);
    alone.spec.platform_info &= !1;
    assert_eq!(standings(&Case::of(alone.spec))["AMD-SB-3027"], Fixed);
    // The alias check must be complete, firmware or no firmware.
    let mut aliases = case(MILAN, 24, 219);
    assert_eq!(standings(&aliases)["AMD-SB-3015"], Fixed);
    aliases.spec.platform_info &= !(1 << 5);
    assert_eq!(standings(&Case::of(aliases.spec))["AMD-SB-3015"], NotFixed);
    // Version 5 shows the mitigation.
    let mut shown = case(GENOA, 27, 86);
    shown.spec.version = 5;
    (
        shown.spec.launch_mitigations,
        shown.spec.current_mitigations,
    ) = (4, 4);
    assert_eq!(
        standings(&Case::of(shown.spec.clone()))["AMD-SB-3016"],
        Fixed
    );
    shown.spec.launch_mitigations = 0;
    assert_eq!(standings(&Case::of(shown.spec))["AMD-SB-3016"], NotFixed);
    // Nothing of Milan's is said of others.
    assert!(!standings(&case(GENOA, 27, 86)).contains_key("AMD-SB-3045"));
}

/// Real reports of 2026, against what is known of them.
#[test]
fn real_reports_against_the_bulletins() {
    for (name, vcek, fixed, open) in [
        (
            "az-milan-v3-report.bin",
            "az-milan-v3-vcek.der",
            &["AMD-SB-3015", "AMD-SB-3019"][..],
            &["AMD-SB-3016", "AMD-SB-3023", "AMD-SB-3030"][..],
        ),
        (
            "az-genoa-report.bin",
            "az-genoa-vcek.der",
            // Its microcode is too old for the last one, and its SMT is off.
            &["AMD-SB-3015", "AMD-SB-3019", "AMD-SB-3027"],
            &["AMD-SB-3016", "AMD-SB-3020", "AMD-SB-3023"],
        ),
        (
            "ms-turin-report.bin",
            "ms-turin-vcek.der",
            &["AMD-SB-3020", "AMD-SB-3023", "AMD-SB-3027"],
            &[],
        ),
    ] {
        let (report, chain) = real(name, vcek);
        let attested = Attested::of(&report, chain.product());
        let of = |standing| {
            let assessed = Table::built_in().assess(&attested);
            let mut names: Vec<String> = assessed
                .iter()
                .filter(|it| it.standing == standing)
                .map(|it| it.advisory.bulletin.clone())
                .collect();
            names.sort();
            names.retain(|name| name != "AMD-SB-3002");
            names
        };
        assert_eq!(of(Standing::Fixed), fixed, "{name}");
        assert_eq!(of(Standing::NotFixed), open, "{name}");
    }
}

/// They are told by default; asked for, active ones up to the day fail, and no others ever do.
#[test]
fn bulletins_can_be_required() {
    let judged = |require: RequireAdvisories| -> Appraisal {
        let mut case = case(MILAN, 24, 219);
        case.policy.advisories.require = require;
        case.appraise()
    };
    let told = judged(RequireAdvisories::None);
    assert_eq!(told.outcome, Outcome::Genuine);
    let finding = told
        .findings
        .iter()
        .find(|it| it.id == "advisories.AMD-SB-3023");
    let finding = finding.unwrap();
    assert_eq!(
        (finding.status, &*finding.found),
        (Status::NotChecked, "not fixed")
    );
    let failed = |appraisal: &Appraisal| -> Vec<String> {
        let failures = appraisal.failures();
        failures.map(|finding| finding.id.to_string()).collect()
    };
    let until = |day: &str| judged(RequireAdvisories::Until(day.parse().unwrap()));
    assert!(failed(&until("2026-02-09")).is_empty());
    assert_eq!(failed(&until("2026-02-10")), ["advisories.AMD-SB-3023"]);
    let all = judged(RequireAdvisories::All);
    assert_eq!(
        failed(&all),
        [
            "advisories.AMD-SB-3023",
            "advisories.AMD-SB-3016",
            "advisories.AMD-SB-3030"
        ]
    );
    for finding in all.failures() {
        assert!(
            finding.reason.as_ref().unwrap().contains("needs"),
            "{finding:?}"
        );
    }
    // Milan's stolen seed, and what was withdrawn: told, in words, and no failure.
    for bulletin in ["AMD-SB-3045", "AMD-SB-3034", "AMD-SB-3033"] {
        let id = format!("advisories.{bulletin}");
        let finding = all.findings.iter().find(|it| it.id == id).unwrap();
        assert_eq!(finding.status, Status::NotChecked, "{bulletin}");
        assert!(!finding.required && finding.reason.is_some(), "{bulletin}");
    }
}

#[test]
fn the_command_requires_them() {
    let report = path("az-milan-v3-report.bin");
    let vcek = path("az-milan-v3-vcek.der");
    let verify = |more: &[&str]| {
        let args = [
            "verify",
            report.to_str().unwrap(),
            "--certs",
            vcek.to_str().unwrap(),
            "--offline",
            "--at",
            "2026-06-01T00:00:00Z",
            "--any-guest",
            "--any-time",
        ];
        run(&[&args[..], more].concat()).status.code()
    };
    assert_eq!(verify(&[]), Some(0));
    assert_eq!(verify(&["--require-advisories"]), Some(1));
    assert_eq!(verify(&["--require-advisories", "2025-03-01"]), Some(0));
    assert_eq!(verify(&["--require-advisories=2026-02-10"]), Some(1));
    assert_eq!(verify(&["--require-advisories", "2026-2-10"]), Some(2));
    assert_eq!(verify(&["--tcb-floor", "recommended"]), Some(1));
    assert_eq!(verify(&["--tcb-floor", "aleph"]), Some(0));
    assert_eq!(verify(&["--tcb-floor", "Milan:microcode=219"]), Some(0));
    assert_eq!(
        verify(&["--tcb-floor", "aleph", "--tcb-floor", "Milan:snp=25"]),
        Some(1)
    );
    assert_eq!(verify(&["--tcb-floor", "Rome:snp=25"]), Some(2));
}

#[test]
fn the_table_is_listed_and_shown() {
    let rows: Value = serde_json::from_str(&text(&run(&["advisories", "list", "--json"]))).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 40);
    for row in rows {
        for key in [
            "bulletin",
            "cves",
            "product",
            "silicon",
            "status",
            "confidence",
            "source",
        ] {
            assert!(row.get(key).is_some(), "{key}: {row}");
        }
    }
    let milan = text(&run(&[
        "advisories",
        "list",
        "--product",
        "milan",
        "--json",
    ]));
    let milan: Value = serde_json::from_str(&milan).unwrap();
    assert!(
        milan
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["product"] == "Milan")
    );
    let shown = text(&run(&["advisories", "show", "CVE-2024-56161"]));
    assert!(
        shown.contains("AMD-SB-3019") && shown.contains("microcode 219"),
        "{shown}"
    );
    let words = text(&run(&["advisories", "list"]));
    assert!(
        words.contains("AMD-SB-3034") && words.contains("withdrawn"),
        "{words}"
    );
    assert_eq!(
        run(&["advisories", "show", "AMD-SB-1"]).status.code(),
        Some(2)
    );
}

/// A table in a file takes the built-in one's place, and whose it is is said.
#[test]
fn another_table() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("table.toml");
    let table = "issuer = \"the tests\"\ndate = \"2030-01-01\"\n[[advisory]]\n\
                 bulletin = \"X-1\"\ndate = \"2029-01-01\"\ncves = []\ngives = \"all\"\n\
                 source = \"none\"\n[[advisory.row]]\nsilicon = [\"Milan\"]\nsnp = 99\n\
                 status = \"active\"\nconfidence = \"unclear\"\n";
    std::fs::write(&file, table).unwrap();
    let file = file.to_str().unwrap();
    let shown = text(&run(&["advisories", "show", "x-1", "--advisories", file]));
    assert!(
        shown.contains("a table of the tests, 2030-01-01, signed by nobody"),
        "{shown}"
    );
    let mut case = case(MILAN, 29, 219);
    case.policy.advisories.table = Some(Table::from_toml(table).unwrap());
    case.policy.advisories.require = RequireAdvisories::All;
    case.refused_for("by that table", &["advisories.X-1"]);
    assert!(case.appraise().summary().contains("signed by nobody"));
    // With a key, the signature must be there and hold.
    let key = directory.path().join("key.pem");
    std::fs::write(&key, "?").unwrap();
    let args = [
        "advisories",
        "list",
        "--advisories",
        file,
        "--advisories-key",
    ];
    let with_key = || run(&[&args[..], &[key.to_str().unwrap()]].concat());
    assert_eq!(with_key().status.code(), Some(2));
    let openssl = |args: &[&str]| {
        let run = Command::new("openssl")
            .args(args)
            .current_dir(directory.path())
            .output();
        run.is_ok_and(|output| output.status.success())
    };
    let made = openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-out",
        "private.pem",
    ]) && openssl(&["pkey", "-in", "private.pem", "-pubout", "-out", "key.pem"])
        && openssl(&[
            "dgst",
            "-sha384",
            "-sign",
            "private.pem",
            "-out",
            "table.toml.sig",
            "table.toml",
        ]);
    if !made {
        skip::skip!("openssl", "no openssl that could sign a table");
    }
    assert!(text(&with_key()).contains("signed by the key "));
    std::fs::write(directory.path().join("table.toml"), format!("{table}# x\n")).unwrap();
    let refused = with_key();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("did not sign"), "{said}");
}

/// A policy that pins a report's platform holds for that report, and for no other chip.
#[test]
fn policies_from_reports() {
    let report = path("az-genoa-report.bin");
    let report = report.to_str().unwrap();
    let pinned = text(&run(&["policy", "init", "--from-report", report]));
    let policy = Policy::from_toml(&pinned).unwrap();
    let (parsed, _) = real("az-genoa-report.bin", "az-genoa-vcek.der");
    assert_eq!(policy.product, [Product::Genoa]);
    assert_eq!(policy.chip_id.len(), 1);
    assert_eq!(policy.chip_id[0].0, parsed.chip_id.0);
    let strict = text(&run(&[
        "policy",
        "init",
        "--strict",
        "--from-report",
        report,
    ]));
    let strict = Policy::from_toml(&strict).unwrap();
    assert!(strict.require_crl && !strict.floors.0.is_empty());
    assert_eq!(strict.product, [Product::Genoa]);
    assert_eq!(strict.platform.alias_check_complete, Some(true));
    // A strict policy has no place for what can be forged.
    let milan = path("az-milan-v3-report.bin");
    let milan = milan.to_str().unwrap();
    let refused = run(&["policy", "init", "--strict", "--from-report", milan]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("Milan"), "{said}");
}
