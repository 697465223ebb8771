//! Real reports and certificates, and a fetcher with short limits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sev_attest::cert::Certificate;
use sev_attest::fetch::{Cache, Client, Fetcher, Limits, RetryPolicy, Trust};
use sev_attest::report::Report;
use sev_attest::source::Wanted;
use sev_attest::time::UnixTime;

/// Inside the window of [`MILAN_CRL`].
pub(crate) const CRL_DAY: &str = "2026-08-18T00:00:00Z";
pub(crate) const MILAN_CRL: &[u8] = include_bytes!("data/crl_milan.der");
pub(crate) const MILAN_CHAIN: &str = include_str!("../../src/roots/amd-milan-ask-ark.pem");
pub(crate) const MILAN_VLEK_CHAIN: &str = include_str!("../../src/roots/amd-milan-asvk-ark.pem");
pub(crate) const GENOA_CHAIN: &str = include_str!("../../src/roots/amd-genoa-ask-ark.pem");

/// A file of the real vectors.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The report of a Milan processor and its VCEK.
pub(crate) fn milan() -> (Report, Vec<u8>) {
    let text = String::from_utf8(vector("virtee-milan-report.hex")).unwrap();
    let report = Report::parse(&hex::decode(text.trim()).unwrap()).unwrap();
    (report, vector("virtee-milan-vcek.der"))
}

pub(crate) fn wanted(report: &Report) -> Wanted {
    Wanted::of(report).unwrap()
}

pub(crate) fn crl_day() -> UnixTime {
    UnixTime::from_rfc3339(CRL_DAY).unwrap()
}

/// Waits of milliseconds where the product waits seconds.
pub(crate) fn limits() -> Limits {
    Limits {
        request_time: Duration::from_millis(1500),
        retry: RetryPolicy {
            attempts: 3,
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_millis(40),
            total_time: Duration::from_secs(3),
        },
    }
}

pub(crate) fn client(url: &str) -> Client {
    Client::new(url.parse().unwrap(), limits())
}

pub(crate) fn fetcher(url: &str, cache: &Path) -> Fetcher {
    let cache = Cache::new(cache, &Trust::Amd);
    Fetcher::new(Trust::Amd, Some(cache), Some(client(url)))
}

pub(crate) fn offline(cache: &Path) -> Fetcher {
    Fetcher::new(Trust::Amd, Some(Cache::new(cache, &Trust::Amd)), None)
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn parse(der: &[u8]) -> Certificate {
    Certificate::parse(der).unwrap()
}
