//! `sev-attest verify`, `show` and `policy` as processes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sev_attest::product::Product;
use sev_attest_issuer::certificate::{CertSpec, CrlSpec, amd};
use sev_attest_issuer::der::ia5;
use sev_attest_issuer::table::{ASK, CRL, VLEK, table};
use sev_attest_issuer::{Issuer, ReportSpec, RsaKey};

use crate::support::{Case, REAL, path};

/// A time within the validity of all evidence.
const AT: &str = "2026-06-01T00:00:00Z";

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A simulated report with its certificates in `certs`.
    fn simulated(&self, spec: ReportSpec) -> Case {
        let case = Case::of(spec);
        self.write("report.bin", case.bytes());
        self.write("certs/leaf.der", &case.leaf.der);
        self.write("certs/ark.der", &case.issuer.ark);
        self.write(
            "certs/authorities.bin",
            [&case.issuer.ask[..], &case.issuer.asvk].concat(),
        );
        self.write("certs/README.md", "certificates of a simulated platform");
        case
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sev-attest"));
        command
            .args(args)
            .current_dir(self.directory.path())
            .env("SEV_ATTEST_CACHE_DIR", self.directory.path().join("cache"))
            // Nothing listens there: no test reaches the network.
            .env("SEV_ATTEST_KDS_URL", "http://127.0.0.1:1");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// `verify` with the simulated certificates and a foreign root allowed.
    fn verify(&self, more: &[&str]) -> Output {
        let args = [
            "verify",
            "report.bin",
            "--certs",
            "certs",
            "--offline",
            "--at",
            AT,
        ];
        let waived = ["--allow-foreign-root", "--any-guest", "--any-time", "--all"];
        self.run(&[&args[..], &waived, more].concat())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn status(output: &Output, expected: i32) {
    let code = output.status.code();
    assert_eq!(code, Some(expected), "{}{}", text(output), errors(output));
}

fn text_path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn real_reports() {
    let place = Place::new();
    for (report, vcek) in REAL {
        let (report_path, vcek_path) = (path(report), path(vcek));
        let args = [
            "verify",
            text_path(&report_path),
            "--certs",
            text_path(&vcek_path),
            "--offline",
            "--at",
            AT,
            "--any-time",
        ];
        let waived = |more: &[&str]| place.run(&[&args[..], &["--any-guest"], more].concat());
        let output = waived(&[]);
        if report.contains("debug") {
            status(&output, 1);
            status(&waived(&["--allow-debug"]), 0);
        } else {
            status(&output, 0);
            let output = place.run(&args);
            status(&output, 4);
            assert!(text(&output).contains("proves only that some SEV-SNP guest made the report"));
        }
        // All the certificates there are.
        let directory = path("");
        let args = [
            "verify",
            text_path(&report_path),
            "--certs",
            text_path(&directory),
        ];
        status(
            &place.run(&[&args[..], &["--offline", "--at", AT, "--allow-debug"]].concat()),
            4,
        );
    }
}

#[test]
fn exit_statuses() {
    let place = Place::new();
    let case = place.simulated(ReportSpec::new(Product::Milan));
    let good = case.bytes();
    place.write("short.bin", &good[..1000]);
    place.write("long.bin", [&good[..], &[1]].concat());
    let mut unknown = good.clone();
    unknown[0] = 9;
    place.write("unknown.bin", &unknown);
    // It begins as DER does.
    unknown[0] = 0x30;
    place.write("version-48.bin", unknown);
    place.write("bad.toml", "measurment = \"00\"\n");
    let measurement = "3e".repeat(48);
    let other = "3f".repeat(48);
    status(&place.verify(&["--measurement", &measurement]), 0);
    status(
        &place.verify(&["--measurement", &other, "--measurement", &measurement]),
        0,
    );
    status(&place.verify(&["--measurement", &other]), 1);
    for (args, expected, said) in [
        (
            vec!["verify", "report.bin", "--certs", "certs", "--offline"],
            1,
            "chain.root",
        ),
        (
            vec!["verify", "report.bin", "--offline"],
            3,
            "UNDECIDED: chain",
        ),
        (
            vec!["verify", "unknown.bin", "--offline"],
            1,
            "report.version",
        ),
        (
            vec!["verify", "version-48.bin", "--offline"],
            1,
            "report.version",
        ),
        (vec!["verify", "short.bin"], 2, "truncated"),
        (vec!["verify", "long.bin"], 2, "after the report"),
        (vec!["verify", "nowhere.bin"], 2, "nowhere.bin"),
        (
            vec!["verify", "certs/leaf.der"],
            2,
            "a certificate, not a report",
        ),
        (
            vec!["verify", "report.bin", "--certs", "nowhere"],
            2,
            "nowhere",
        ),
        (
            vec!["verify", "report.bin", "--certs", "report.bin"],
            2,
            "a report, not a certificate",
        ),
        (
            vec!["verify", "report.bin", "--policy", "bad.toml"],
            2,
            "line 1",
        ),
        (
            vec!["verify", "report.bin", "--measurement", "3e"],
            2,
            "96 hexadecimal digits",
        ),
        (
            vec!["verify", "report.bin", "--at", "yesterday"],
            2,
            "RFC 3339",
        ),
        (vec!["verify", "report.bin", "--vmpl", "4"], 2, "4"),
        (
            vec!["verify", "report.bin", "--nonce", "00"],
            2,
            "8 to 64 bytes",
        ),
        (
            vec!["verify", "report.bin", "--min-tcb", "snp"],
            2,
            "boot_loader=4",
        ),
        (
            vec!["verify", "report.bin", "--guest-policy", "debg=off"],
            2,
            "no bit",
        ),
        (vec!["verify"], 2, "required"),
        (vec!["show", "short.bin"], 2, "truncated"),
    ] {
        let output = place.run(&args);
        status(&output, expected);
        let all = text(&output) + &errors(&output);
        assert!(all.contains(said), "{args:?}: {all}");
    }
}

#[test]
fn expectations_by_flag() {
    let place = Place::new();
    let mut spec = ReportSpec::new(Product::Turin);
    let nonce = "00112233445566778899aabbccddeeff";
    spec.report_data = [0; 64];
    spec.report_data[..16].copy_from_slice(&hex::decode(nonce).unwrap());
    let case = place.simulated(spec);
    let spec = &case.spec;
    let hexes = [
        hex::encode(spec.report_data),
        hex::encode(spec.host_data),
        hex::encode(spec.family_id),
        hex::encode(spec.image_id),
        hex::encode(spec.id_key_digest),
        hex::encode(spec.chip_id),
    ];
    let [data, host, family, image, id_key, chip] = &hexes;
    let zeros = |digits: &str| "0".repeat(digits.len());
    // Each flag with a value that fits and one that does not.
    for (flag, good, bad) in [
        ("--report-data", data.as_str(), zeros(data).as_str()),
        ("--nonce", nonce, "00112233445566778899aabbccddeefe"),
        ("--host-data", host, &zeros(host)),
        ("--family-id", family, &zeros(family)),
        ("--image-id", image, &zeros(image)),
        ("--id-key-digest", id_key, &zeros(id_key)),
        ("--chip-id", chip, &zeros(chip)),
        // Turin's has 8 bytes.
        ("--chip-id", &chip[..16], &zeros(&chip[..16])),
        ("--vmpl", "0", "1"),
        ("--min-guest-svn", "3", "4"),
        ("--guest-policy", "smt=off", "smt=on"),
        ("--guest-policy", "cxl=off", "cxl=on"),
        (
            "--guest-policy",
            "page-swap-disabled=any",
            "page-swap-disabled=on",
        ),
        ("--min-abi", "0.0", "0.1"),
        ("--platform", "alias-check-complete=on", "tsme=on"),
        (
            "--min-tcb",
            "fmc=1,boot_loader=4,tee=1,snp=24,microcode=219",
            "fmc=2",
        ),
        ("--min-committed-tcb", "snp=24", "snp=25"),
        ("--min-launch-tcb", "microcode=219", "microcode=220"),
        ("--min-current-tcb", "tee=1", "tee=2"),
        ("--min-firmware", "1.55.40", "1.55.41"),
        ("--min-committed-firmware", "1.55.40", "1.56.0"),
        ("--launch-mitigations", "0x3f", "0x40"),
        ("--current-mitigations", "1", "128"),
        ("--signing-key", "vcek", "vlek"),
        ("--product", "turin", "milan"),
        ("--max-certificate-age", "600", "500"),
    ] {
        // These reports have SMT allowed, which is what the first value must say.
        let (good, bad) = match good {
            "smt=off" => (bad, good),
            _ => (good, bad),
        };
        status(&place.verify(&[flag, good]), 0);
        status(&place.verify(&[flag, bad]), 1);
    }
    // A day has hours.
    let at = |time| {
        let args = ["verify", "report.bin", "--certs", "certs", "--offline"];
        let more = [
            "--allow-foreign-root",
            "--max-certificate-age",
            "516",
            "--any-guest",
        ];
        let more = [&more[..], &["--any-time"]].concat();
        place.run(&[&args[..], &more, &["--at", time]].concat())
    };
    status(&at(AT), 0);
    let output = at("2026-06-01T01:00:00Z");
    status(&output, 1);
    let said = text(&output);
    assert!(
        said.contains("more than 516 days (expected at most 516 days)"),
        "{said}"
    );
}

#[test]
fn report_data_of_a_file() {
    use sha2::{Digest as _, Sha256, Sha512};
    let place = Place::new();
    let file = b"the file whose hash was attested";
    place.write("file", file);
    let mut spec = ReportSpec::new(Product::Milan);
    spec.report_data = Sha512::digest(file).into();
    place.simulated(spec.clone());
    status(&place.verify(&["--report-data-file", "file"]), 0);
    status(&place.verify(&["--report-data-file", "report.bin"]), 1);
    let sha256 = ["--report-data-file", "file", "--report-data-hash", "sha256"];
    status(&place.verify(&sha256), 1);
    spec.report_data = [0; 64];
    spec.report_data[..32].copy_from_slice(&Sha256::digest(file));
    place.simulated(spec);
    status(&place.verify(&sha256), 0);
}

/// The 64 bytes themselves, as snpguest leaves them (`request-file.txt`).
#[test]
fn report_data_in_a_file() {
    let place = Place::new();
    let mut spec = ReportSpec::new(Product::Milan);
    let data: Vec<u8> = (0..64).map(|n| n ^ 0xa5).collect();
    spec.report_data.copy_from_slice(&data);
    place.simulated(spec.clone());
    place.write("request-file.txt", &data);
    place.write("other.txt", [7; 64]);
    place.write("short.txt", &data[..63]);
    let file = ["--report-data-file", "request-file.txt"];
    status(&place.verify(&["--report-data", "@request-file.txt"]), 0);
    status(&place.verify(&["--nonce", "@request-file.txt"]), 0);
    status(
        &place.verify(&[&file[..], &["--report-data-hash", "none"]].concat()),
        0,
    );
    status(&place.verify(&["--report-data", "@other.txt"]), 1);
    status(&place.verify(&["--nonce", "@short.txt"]), 1);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let short = place.verify(&["--report-data", "@short.txt"]);
    status(&short, 2);
    assert!(said(&short).contains("short.txt: expected 64 bytes, not 63"));
    // Whoever lets it be hashed, or forgets the @, is told.
    let hashed = place.verify(&file);
    status(&hashed, 1);
    assert!(
        said(&hashed).contains("--nonce @request-file.txt"),
        "{}",
        said(&hashed)
    );
    let named = place.verify(&["--report-data", "request-file.txt"]);
    status(&named, 2);
    assert!(said(&named).contains("as @FILE"), "{}", said(&named));
    // A nonce of 16 bytes in a file, with zeros after it in the report.
    spec.report_data = [0; 64];
    spec.report_data[..16].copy_from_slice(&data[..16]);
    place.simulated(spec);
    place.write("nonce.bin", &data[..16]);
    status(&place.verify(&["--nonce", "@nonce.bin"]), 0);
    status(&place.verify(&["--report-data", "@nonce.bin"]), 2);
}

#[test]
fn revocation_lists() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    status(&place.verify(&["--require-crl"]), 3);
    let mut list = CrlSpec::new(Product::Milan);
    place.write("certs/crl.der", list.sign(&RsaKey::ark()));
    status(&place.verify(&["--require-crl"]), 0);
    list.revoked = vec![vec![9, 0, 1]];
    place.write("certs/crl.der", list.sign(&RsaKey::ark()));
    status(&place.verify(&[]), 1);
}

/// A host could keep a list from before a revocation and hand it out with the report.
#[test]
fn a_required_list_is_not_the_reports_own() {
    let place = Place::new();
    let case = place.simulated(ReportSpec::new(Product::Milan));
    let mut list = CrlSpec::new(Product::Milan);
    let own = list.sign(&RsaKey::ark());
    let extended = |crl: &[u8]| [&case.bytes()[..], &table(&[(CRL, crl)])].concat();
    place.write("report.bin", extended(&own));
    let output = place.verify(&[]);
    status(&output, 0);
    assert!(text(&output).contains("ok           chain.revocation"));
    let output = place.verify(&["--require-crl"]);
    status(&output, 3);
    assert!(errors(&output).contains("came with the report does not count"));
    // Nor in a directory where the report happens to lie.
    place.write("certs/report.bin", extended(&own));
    status(&place.verify(&["--require-crl"]), 3);
    place.write("crl.der", &own);
    status(&place.verify(&["--require-crl", "--certs", "crl.der"]), 0);
    // One of ours that has run out is not made current by the host's.
    list.next_update = Some("250601000000Z".to_owned());
    place.write("crl.der", list.sign(&RsaKey::ark()));
    let output = place.verify(&["--require-crl", "--certs", "crl.der"]);
    status(&output, 3);
    assert!(text(&output).contains("out of date"), "{}", text(&output));
    // But a newer one of the host's counts beside a current one.
    place.write("crl.der", &own);
    let mut newer = CrlSpec::new(Product::Milan);
    newer.this_update = "260101000000Z".to_owned();
    newer.revoked = vec![vec![9, 0, 1]];
    place.write("report.bin", extended(&newer.sign(&RsaKey::ark())));
    status(&place.verify(&["--require-crl", "--certs", "crl.der"]), 1);
}

/// A list that was named and can't be used is no list that was not given.
#[test]
fn unusable_revocation_lists_are_told() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    let other = CrlSpec::new(Product::Genoa).sign(&RsaKey::ark());
    place.write("genoa.der", &other);
    for more in [&[][..], &["--require-crl"]] {
        let output = place.verify(&[&["--certs", "genoa.der"][..], more].concat());
        status(&output, 1);
        assert!(
            text(&output).contains("says nothing of this chain"),
            "{}",
            text(&output)
        );
        assert!(errors(&output).contains("CN=ARK-Genoa"));
    }
    // A directory may hold lists of many issuers.
    place.write("certs/genoa.der", &other);
    let output = place.verify(&[]);
    status(&output, 0);
    assert!(text(&output).contains("no revocation list of this chain's ARK was given"));
    assert_eq!(errors(&output), "");
    let list = CrlSpec::new(Product::Milan).sign(&RsaKey::ark());
    place.write("certs/crl.der", &list[..list.len() - 1]);
    place.write(
        "certs/crl.pem",
        "-----BEGIN X509 CRL-----\n?\n-----END X509 CRL-----\n",
    );
    let said = errors(&place.verify(&[]));
    for name in ["crl.der", "crl.pem"] {
        assert!(
            said.contains("passed over: ") && said.contains(name),
            "{said}"
        );
    }
    place.write("crl.der", list);
    status(
        &place.verify(&["--certs", "genoa.der", "--certs", "crl.der"]),
        0,
    );
}

#[test]
fn a_full_standard_error_changes_no_exit_status() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    for (args, expected) in [
        (&["verify", "nowhere"][..], 2),
        (&["fetch", "vcek", "nowhere"], 2),
        (&["verify", "report.bin", "--max-wait", "0"], 3),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = place.command(args).stderr(full.unwrap()).output().unwrap();
        status(&output, expected);
    }
}

#[test]
fn standard_input_and_extended_reports() {
    let place = Place::new();
    let case = place.simulated(ReportSpec::new(Product::Genoa).with_vlek());
    let whole = table(&[(VLEK, &case.leaf.der), (ASK, &case.issuer.asvk)]);
    let extended = [&case.bytes()[..], &whole].concat();
    let args = [
        "verify",
        "-",
        "--certs",
        "certs/ark.der",
        "--offline",
        "--at",
        AT,
    ];
    let args = [
        &args[..],
        &["--allow-foreign-root", "--csp-id", "simulated-csp"],
        &["--any-guest", "--any-time"],
    ]
    .concat();
    status(&place.run_with_input(&args, &extended), 0);
    status(
        &place.run_with_input(&args, hex::encode(&extended).as_bytes()),
        0,
    );
    status(&place.run_with_input(&args, b""), 2);
    let shown = place.run_with_input(&["show", "-"], &extended);
    status(&shown, 0);
    assert!(text(&shown).contains("Certificate: VLEK"));
}

#[test]
fn json_tells_the_same_as_text() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    let words = text(&place.verify(&["--min-guest-svn", "4"]));
    let output = place.verify(&["--min-guest-svn", "4", "--json"]);
    status(&output, 1);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], "sev-attest/verify/2");
    assert_eq!(value["outcome"], "refused");
    assert_eq!(value["exit_status"], 1);
    assert_eq!(value["root"], "foreign");
    assert_eq!(value["at"], AT);
    let findings = value["findings"].as_array().unwrap();
    assert_eq!(findings.len() + 1, words.lines().count());
    for (finding, line) in findings.iter().zip(words.lines()) {
        assert!(line.contains(finding["check"].as_str().unwrap()), "{line}");
    }
    let failed: Vec<_> = findings
        .iter()
        .filter(|f| f["status"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["check"], "guest_svn");
    assert_eq!(failed[0]["expected"], "at least 4");
    assert_eq!(failed[0]["found"], "3");
}

/// What the maker of a certificate writes into it can't steer a terminal.
#[test]
fn control_characters_are_escaped() {
    let place = Place::new();
    let case = place.simulated(ReportSpec::new(Product::Milan).with_vlek());
    let mut spec = CertSpec::vlek(&case.spec, &case.leaf.key);
    spec.extensions
        .iter_mut()
        .find(|e| e.oid == amd("5"))
        .unwrap()
        .value = ia5("a\u{1b}[31mb\n");
    place.write("certs/leaf.der", spec.sign(&RsaKey::asvk()));
    for output in [place.verify(&[]), place.run(&["show", "certs/leaf.der"])] {
        status(&output, 0);
        assert!(
            text(&output).contains("a\\u{1b}[31mb\\n"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn policy_files() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    status(&place.run(&["policy", "init", "guest.toml"]), 0);
    status(&place.verify(&["--policy", "guest.toml"]), 0);
    let again = place.run(&["policy", "init", "guest.toml"]);
    status(&again, 2);
    assert!(errors(&again).contains("--force"));
    status(&place.run(&["policy", "init", "guest.toml", "--force"]), 0);
    status(&place.run(&["policy", "check", "guest.toml"]), 0);
    assert_eq!(
        text(&place.run(&["policy", "init"])),
        std::fs::read_to_string(place.directory.path().join("guest.toml")).unwrap()
    );
    place.write("guest.toml", "min_guest_svn = 4\n");
    status(&place.verify(&["--policy", "guest.toml"]), 1);
    // Flags override the file.
    status(
        &place.verify(&["--policy", "guest.toml", "--min-guest-svn", "3"]),
        0,
    );
    place.write("guest.toml", "vmpl = 0\nsvn = 4\n");
    let refused = place.run(&["policy", "check", "guest.toml"]);
    status(&refused, 2);
    assert!(errors(&refused).contains("line 2"), "{}", errors(&refused));
}

/// A minimum by flag takes the place of the file's for that component, not for the others.
#[test]
fn minima_of_file_and_flag_come_together() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    place.write(
        "guest.toml",
        "tcb.reported = { snp = 25, microcode = 219 }\n",
    );
    let verify = |more: &[&str]| place.verify(&[&["--policy", "guest.toml"], more].concat());
    let output = verify(&["--min-tcb", "microcode=220"]);
    status(&output, 1);
    assert!(
        text(&output).contains("EXPECTED: tcb.reported.snp, tcb.reported.microcode\n"),
        "{}",
        text(&output)
    );
    status(&verify(&["--min-tcb", "snp=24"]), 0);
    let output = verify(&["--min-tcb", "snp=24,microcode=220"]);
    status(&output, 1);
    // What nobody asked for is listed.
    let said = text(&output);
    let line = said.lines().find(|line| line.contains("tcb.reported.tee"));
    let line = line.unwrap_or_default();
    assert!(
        line.starts_with("not checked") && line.contains("tee 1; no minimum"),
        "{said}"
    );
}

/// Whichever of two contradicting flags won, the other would be dropped in silence.
#[test]
fn contradictions_are_refused() {
    let place = Place::new();
    place.simulated(ReportSpec::new(Product::Milan));
    for args in [
        &["--guest-policy", "debug=off", "--allow-debug"][..],
        &["--guest-policy", "debug=on", "--allow-debug"],
        &[
            "--allow-migration-agent",
            "--guest-policy",
            "migration-agent=off",
        ],
        &["--platform", "tsme=on", "--platform", "tsme=any"],
        &["--platform", "ecc=on", "--platform", "ecc=on"],
        &["--guest-policy", "smt=off", "--guest-policy", "smt=any"],
    ] {
        let output = place.verify(args);
        status(&output, 2);
        let said = errors(&output);
        assert!(
            said.contains("contradicts") || said.contains("twice"),
            "{said}"
        );
    }
    status(
        &place.verify(&["--guest-policy", "debug=any", "--allow-debug"]),
        0,
    );
    status(
        &place.verify(&["--platform", "tsme=off", "--platform", "ecc=on"]),
        0,
    );
}

/// From `measure` to `verify`: the digest that is predicted is the one that is expected.
#[test]
fn measure_writes_what_verify_reads() {
    let place = Place::new();
    let suffix = include_bytes!("../measure/data/ovmf_AmdSev_suffix.bin");
    let mut firmware = vec![0; (1 << 16) - suffix.len()];
    firmware.extend_from_slice(suffix);
    place.write("ovmf.fd", firmware);
    let measure = [
        "measure",
        "--firmware",
        "ovmf.fd",
        "--vcpu-type",
        "EPYC-v4",
        "--vcpus",
        "1,2",
    ];
    let output = place.run(&[&measure[..], &["--policy-out", "guest.toml"]].concat());
    status(&output, 0);
    let words = text(&output);
    let digest = words.lines().nth(1).unwrap().split(' ').next().unwrap();
    let mut spec = ReportSpec::new(Product::Milan);
    spec.measurement
        .copy_from_slice(&hex::decode(digest).unwrap());
    place.simulated(spec.clone());
    let output = place.verify(&["--policy", "guest.toml"]);
    status(&output, 0);
    let verdict = "verdict: FOREIGN ROOT, not AMD's: genuine and as expected, for ANY TIME\n";
    assert!(text(&output).ends_with(verdict), "{}", text(&output));
    spec.measurement[0] ^= 1;
    place.simulated(spec);
    status(&place.verify(&["--policy", "guest.toml"]), 1);
}

/// A wrong certificate is judged where no source has a better one.
#[test]
fn the_nearest_certificate_is_judged() {
    let place = Place::new();
    let case = place.simulated(ReportSpec::new(Product::Milan));
    let mut other = case.spec.clone();
    other.chip_id[5] ^= 1;
    place.write(
        "certs/leaf.der",
        Issuer::new(Product::Milan).vcek(&other).der,
    );
    let output = place.verify(&[]);
    status(&output, 1);
    assert!(text(&output).contains("verdict: NOT GENUINE OR NOT AS EXPECTED: leaf.hwid"));
}

#[test]
fn rendered() {
    let place = Place::new();
    let report = path("az-milan-v3-report.bin");
    let vcek = path("az-milan-v3-vcek.der");
    let turin = path("ms-turin-report.bin");
    let data = "af2910341dd8108360e485f1b7249425";
    let real = [
        "verify",
        text_path(&report),
        "--certs",
        text_path(&vcek),
        "--offline",
        "--at",
        AT,
    ];
    insta::assert_snapshot!(
        "verify_genuine",
        text(&place.run(&[&real[..], &["--all"]].concat()))
    );
    insta::assert_snapshot!("verify_summary", text(&place.run(&real)));
    insta::assert_snapshot!(
        "verify_refused",
        text(
            &place.run(
                &[
                    &real[..],
                    &["--nonce", data, "--vmpl", "1", "--min-tcb", "snp=25"]
                ]
                .concat()
            )
        )
    );
    insta::assert_snapshot!(
        "verify_undecided",
        text(&place.run(&[
            "verify",
            text_path(&turin),
            "--offline",
            "--at",
            AT,
            "--product",
            "turin"
        ]))
    );
    insta::assert_snapshot!(
        "verify_json",
        text(&place.run(&[&real[..], &["--json"]].concat()))
    );
    insta::assert_snapshot!(
        "show_report",
        text(&place.run(&["show", text_path(&turin)]))
    );
    insta::assert_snapshot!(
        "show_report_json",
        text(&place.run(&["show", text_path(&turin), "--json"]))
    );
    insta::assert_snapshot!(
        "show_certificate",
        text(&place.run(&["show", text_path(&vcek)]))
    );
    insta::assert_snapshot!("policy_template", text(&place.run(&["policy", "init"])));
}
