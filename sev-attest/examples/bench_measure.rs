//! Speed of launch digests beside the limit (bare SHA-384 of the same pages on one core) and the rivals'
//! processes, on the same firmware in the same run.
//!
//! `cargo build --release -p sev-attest && cargo run --release -p sev-attest --example bench_measure --
//! [FIRMWARE]`. The rivals are `sev-snp-measure` and `snpguest` from the PATH, or from the variables
//! SEV_SNP_MEASURE and SNPGUEST; whichever is missing is said to be.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may stop"
)]

mod processes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use processes::{ours, quiet, rival, succeeds};
use sev_attest::measure::{
    CpuSignature, Firmware, KernelHashes, Launch, Mode, PAGE, Variants, page_digests_on, sha384,
};

const SUFFIX: &[u8] = include_bytes!("../tests/measure/data/ovmf_AmdSev_suffix.bin");
const RUNS: usize = 15;

fn main() {
    let mut images = vec![(write_noise(2 << 20), true)];
    let real = std::env::args_os().nth(1).map(PathBuf::from);
    let real = real.unwrap_or_else(|| PathBuf::from("/usr/share/ovmf/OVMF.fd"));
    if real.exists() {
        images.push((real, false));
    } else {
        println!("{}: not there, left out", real.display());
    }
    for (path, hashes) in &images {
        let name = if *hashes {
            "an image without two equal pages".to_owned()
        } else {
            path.display().to_string()
        };
        let kib = std::fs::metadata(path).unwrap().len() >> 10;
        println!("\n{name} ({kib} KiB)");
        library(path, *hashes);
        processes(path);
    }
    let _ = std::fs::remove_file(&images[0].0);
}

/// A 2 MiB image without two equal pages: the worst case.
fn write_noise(len: usize) -> PathBuf {
    let blocks = (0u64..).flat_map(|i| sha384(&i.to_le_bytes()));
    let mut image: Vec<u8> = blocks.take(len - SUFFIX.len()).collect();
    image.extend_from_slice(SUFFIX);
    let path = std::env::temp_dir().join(format!("bench-measure-{}.fd", std::process::id()));
    std::fs::write(&path, image).unwrap();
    path
}

fn library(path: &Path, hashes: bool) {
    let data = std::fs::read(path).unwrap();
    let bare = best(|| {
        data.chunks_exact(PAGE)
            .map(sha384)
            .fold(0, |x, digest| x ^ digest[0])
    });
    row("library: bare SHA-384 of the pages, one core", bare, bare);
    let one = best(|| page_digests_on(&data, 1));
    row("library: the pages' digests, one core", one, bare);
    let cpus = [CpuSignature::of_type("EPYC-v4").unwrap()];
    let measure = |boots: &[KernelHashes], vcpus: &[u32]| {
        let firmware = Firmware::parse(data.clone()).unwrap();
        let variants = Variants {
            boots,
            cpus: &cpus,
            vcpus,
        };
        Launch::new(&firmware, Mode::Snp)
            .measure(&variants)
            .unwrap()
    };
    row(
        "library: parse and measure, 4 vCPUs",
        best(|| measure(&[], &[4])),
        bare,
    );
    let counts: Vec<u32> = (1..=64).collect();
    row(
        "library: 1..64 vCPUs at once",
        best(|| measure(&[], &counts)),
        bare,
    );
    if hashes {
        let line = |i: u32| KernelHashes::new(b"kernel", None, &format!("id={i}")).unwrap();
        let boots: Vec<_> = (0..16).map(line).collect();
        row(
            "library: 16 command lines at once",
            best(|| measure(&boots, &[4])),
            bare,
        );
    }
}

fn processes(path: &Path) {
    let path = path.to_str().unwrap();
    let run = |program: &Path, args: &[&str]| {
        let mut command = quiet(program, args);
        if !succeeds(&mut command) {
            println!("{}: not there or failed, left out", program.display());
            return None;
        }
        Some(best(|| command.status().unwrap()))
    };
    let common = ["--ovmf", path, "--vcpus", "4", "--vcpu-type", "EPYC-v4"];
    let Some(mine) = run(&ours(), &[&["measure"], &common[..]].concat()) else {
        return;
    };
    row("process: sev-attest measure", mine, mine);
    let many = [
        "measure",
        "--ovmf",
        path,
        "--vcpus",
        "1..64",
        "--vcpu-type",
        "EPYC-v4",
    ];
    if let Some(time) = run(&ours(), &many) {
        row("process: sev-attest measure, 1..64 vCPUs", time, mine);
    }
    let python = rival("SEV_SNP_MEASURE", "sev-snp-measure");
    if let Some(time) = run(&python, &[&["--mode", "snp"], &common[..]].concat()) {
        row("process: sev-snp-measure", time, mine);
    }
    let snpguest = rival("SNPGUEST", "snpguest");
    let args = [
        "generate",
        "measurement",
        "--ovmf",
        path,
        "--vcpus",
        "4",
        "--vcpu-type",
        "epyc-v4",
    ];
    if let Some(time) = run(&snpguest, &args) {
        row("process: snpguest generate measurement", time, mine);
    }
}

/// The shortest of several runs: what the work costs when nothing else disturbs it.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    (0..RUNS).map(time).min().unwrap_or_default()
}

fn row(what: &str, time: Duration, unit: Duration) {
    let (ms, ratio) = (
        time.as_secs_f64() * 1e3,
        time.as_secs_f64() / unit.as_secs_f64(),
    );
    println!("  {what:<46} {ms:>8.2} ms {ratio:>7.2}x");
}
