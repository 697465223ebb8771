//! Speed of verification beside its limit, one bare P-384 verification, and a rival's process.
//!
//! `cargo build --release -p sev-attest && cargo run --release -p sev-attest --example bench_verify`
//! prints a Markdown table. The limit is the fastest verification of all libraries here. The rival is
//! `snpguest` from the PATH or from the variable SNPGUEST; `openssl` from the PATH. Whichever is
//! missing is said to be.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints, and may stop"
)]

mod processes;

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use p384::ecdsa::signature::Verifier as _;
use processes::{ours, quiet, rival, succeeds};
use sev_attest::appraise::appraise;
use sev_attest::cert::{Certificate, PublicKey};
use sev_attest::chain::Chain;
use sev_attest::policy::Policy;
use sev_attest::report::Report;
use sev_attest::testing::P384Key;
use sev_attest::time::UnixTime;

const REPORT: &[u8] = include_bytes!("../tests/vectors/az-genoa-report.bin");
const VCEK: &[u8] = include_bytes!("../tests/vectors/az-genoa-vcek.der");
const CHAIN: &str = include_str!("../src/roots/amd-genoa-ask-ark.pem");
/// The time of all judgements.
const AT: &str = "2026-08-18T00:00:00Z";
/// Rounds of which the median counts.
const RUNS: usize = 25;

fn main() {
    println!("| what | time | |");
    println!("|---|---|---|");
    library();
    processes();
}

/// Median time of one call of each, of several rounds of `calls` calls: a round takes them in turn,
/// so that what disturbs the machine disturbs them alike.
fn medians<const N: usize>(mut works: [(u32, &mut dyn FnMut()); N]) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(RUNS));
    for _ in 0..RUNS {
        for ((calls, work), times) in works.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (0..*calls).for_each(|_| work());
            times.push(start.elapsed() / *calls);
        }
    }
    times.map(|mut times| {
        times.sort();
        times[RUNS / 2]
    })
}

/// A row with a time beside another.
fn row(what: &str, time: Duration, (beside, name): (Duration, &str)) {
    let time = time.as_secs_f64();
    let factor = time / beside.as_secs_f64();
    let time = match time {
        ..1e-3 => format!("{:.1} µs", time * 1e6),
        _ => format!("{:.2} ms", time * 1e3),
    };
    println!("| {what} | {time} | {factor:.2} {name} |");
}

fn library() {
    let report = Report::parse(REPORT).unwrap();
    let leaf = Certificate::parse(VCEK).unwrap();
    let PublicKey::P384(point) = leaf.key().clone() else {
        return println!("| the VCEK's key is not P-384 | | |");
    };
    let (message, signature) = (report.signed_bytes(), report.signature.fixed().unwrap());
    let at = UnixTime::from_rfc3339(AT).unwrap();
    let mut policy = Policy::default();
    (policy.any_guest, policy.any_time) = (true, true);
    let chain = Chain::under_amd(leaf.clone()).unwrap();

    let aws_key = P384Key::new(&point).unwrap();
    let algorithm = &ring::signature::ECDSA_P384_SHA384_FIXED;
    let ring_key = ring::signature::UnparsedPublicKey::new(algorithm, &point);
    let rust_key = p384::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    let parsed = p384::ecdsa::Signature::from_slice(&signature).unwrap();
    let [aws, ring, rust, warm, cold] = medians([
        (200, &mut || {
            assert!(aws_key.verifies(message, black_box(&signature)));
        }),
        (50, &mut || {
            ring_key.verify(message, black_box(&signature)).unwrap();
        }),
        (50, &mut || {
            rust_key.verify(message, black_box(&parsed)).unwrap();
        }),
        (200, &mut || {
            let report = Report::parse(black_box(REPORT)).unwrap();
            assert!(appraise(&report, Some(&chain), &policy, at).is_genuine());
        }),
        (50, &mut || {
            let leaf = Certificate::parse(black_box(VCEK)).unwrap();
            let chain = Chain::under_amd(leaf).unwrap();
            let report = Report::parse(REPORT).unwrap();
            assert!(appraise(&report, Some(&chain), &policy, at).is_genuine());
        }),
    ]);
    let limit = (aws.min(ring).min(rust), "of the limit");
    row("one P-384 verification, AWS-LC, the key parsed", aws, limit);
    row("one P-384 verification, ring", ring, limit);
    row("one P-384 verification, p384 (Rust)", rust, limit);
    openssl(limit);
    row("library: a report, warm chain", warm, limit);
    row("library: a report and a new chain", cold, limit);
    let each_second = 1.0 / warm.as_secs_f64();
    println!("| library: reports a second on one core, warm chain | {each_second:.0} | |");
}

/// OpenSSL measures itself.
fn openssl(limit: (Duration, &str)) {
    let output = Command::new("openssl")
        .args(["speed", "-seconds", "1", "ecdsap384"])
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // the last line: sign time, verify time, signs a second, verifications a second
    let verified = text.ok().and_then(|text| {
        let last = text
            .lines()
            .last()?
            .split_whitespace()
            .last()?
            .parse::<f64>();
        last.ok()
    });
    match verified {
        Some(each_second) => row(
            "one P-384 verification, OpenSSL (`openssl speed`)",
            Duration::from_secs_f64(1.0 / each_second),
            limit,
        ),
        None => println!("| `openssl speed` | not there or failed, left out | |"),
    }
}

fn processes() {
    let directory = std::env::temp_dir().join(format!("bench-verify-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let report = directory.join("report.bin");
    let certs = directory.join("certs");
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::write(&report, REPORT).unwrap();
    std::fs::write(certs.join("vcek.der"), VCEK).unwrap();
    let mut blocks = sev_attest::testing::pem::blocks(CHAIN.as_bytes())
        .unwrap()
        .into_iter();
    std::fs::write(certs.join("ask.der"), blocks.next().unwrap().der).unwrap();
    std::fs::write(certs.join("ark.der"), blocks.next().unwrap().der).unwrap();

    let rival = rival("SNPGUEST", "snpguest");
    let (report, certs) = (report.to_str().unwrap(), certs.to_str().unwrap());
    let mut ours = quiet(
        &ours(),
        &[
            "verify",
            report,
            "--certs",
            certs,
            "--offline",
            "--at",
            AT,
            "--any-guest",
            "--any-time",
        ],
    );
    let mut attestation = quiet(&rival, &["verify", "attestation", certs, report]);
    let mut chain = quiet(&rival, &["verify", "certs", certs]);
    if !succeeds(&mut ours) {
        println!("| process: `sev-attest verify` | not built or failed, left out | |");
    } else if !succeeds(&mut attestation) || !succeeds(&mut chain) {
        let [time] = medians([(4, &mut || assert!(succeeds(&mut ours)))]);
        row("process: `sev-attest verify`", time, (time, "of itself"));
        println!("| process: `snpguest verify` | not there or failed, left out | |");
    } else {
        let [time, attestation, chain] = medians([
            (4, &mut || assert!(succeeds(&mut ours))),
            (4, &mut || assert!(succeeds(&mut attestation))),
            (4, &mut || assert!(succeeds(&mut chain))),
        ]);
        let mine = (time, "of `sev-attest verify`");
        row("process: `sev-attest verify`, report and chain", time, mine);
        row(
            "process: `snpguest verify attestation`, the report alone",
            attestation,
            mine,
        );
        row(
            "process: `snpguest verify certs`, the chain alone",
            chain,
            mine,
        );
    }
    let _ = std::fs::remove_dir_all(directory);
}
