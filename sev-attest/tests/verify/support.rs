//! Real evidence, simulated evidence, and shorthands.

use std::path::PathBuf;

use sev_attest::appraise::{Appraisal, Outcome, appraise};
use sev_attest::cert::{Certificate, Crl};
use sev_attest::chain::Chain;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::report::Report;
use sev_attest::time::UnixTime;
use sev_attest_issuer::{Issuer, Leaf, ReportSpec};

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name)
}

pub fn data(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// A time at which all real and simulated evidence is valid.
pub fn at() -> UnixTime {
    UnixTime::from_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

/// The real reports with their VCEKs.
pub const REAL: [(&str, &str); 6] = [
    ("virtee-milan-report.hex", "virtee-milan-vcek.der"),
    ("coco-milan-report.bin", "coco-milan-vcek.der"),
    ("az-milan-v3-report.bin", "az-milan-v3-vcek.der"),
    ("az-genoa-report.bin", "az-genoa-vcek.der"),
    ("gsg-milan-debug-report.bin", "gsg-milan-debug-vcek.der"),
    ("ms-turin-report.bin", "ms-turin-vcek.der"),
];

pub fn real(report: &str, vcek: &str) -> (Report, Chain) {
    let report = sev_attest::formats::read_report(&data(report))
        .unwrap()
        .report;
    let leaf = Certificate::parse(&data(vcek)).unwrap();
    (report, Chain::under_amd(leaf).unwrap())
}

/// A simulated report with its chain, any part of which can be replaced before it is judged.
pub struct Case {
    pub spec: ReportSpec,
    pub issuer: Issuer,
    pub leaf: Leaf,
    /// Signed from `spec` unless set.
    pub report: Option<Vec<u8>>,
    pub ark: Option<Vec<u8>>,
    pub intermediate: Option<Vec<u8>>,
    pub crl: Option<Vec<u8>>,
    pub policy: Policy,
    pub at: UnixTime,
}

/// The default policy, for any guest at any time.
pub fn anyone() -> Policy {
    let mut policy = Policy::default();
    (policy.any_guest, policy.any_time) = (true, true);
    policy
}

/// The same, under a foreign root.
pub fn simulated_policy() -> Policy {
    let mut policy = anyone();
    policy.allow_foreign_root = true;
    policy
}

impl Case {
    pub fn new(product: Product) -> Self {
        Self::of(ReportSpec::new(product))
    }

    /// Signed by a VCEK, or by a VLEK where the report says so.
    pub fn of(spec: ReportSpec) -> Self {
        let issuer = Issuer::new(spec.product);
        let vlek = spec.key_info >> 2 & 7 == 1;
        let leaf = if vlek {
            issuer.vlek(&spec)
        } else {
            issuer.vcek(&spec)
        };
        Self {
            spec,
            issuer,
            leaf,
            report: None,
            ark: None,
            intermediate: None,
            crl: None,
            policy: simulated_policy(),
            at: at(),
        }
    }

    /// The report in bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.report {
            Some(report) => report.clone(),
            None => self.leaf.sign(self.spec.to_bytes()).to_vec(),
        }
    }

    pub fn chain(&self) -> Chain {
        let above = if self.leaf.vlek {
            &self.issuer.asvk
        } else {
            &self.issuer.ask
        };
        let parse = |der: &[u8]| Certificate::parse(der).unwrap();
        let chain = Chain::new(
            parse(self.ark.as_ref().unwrap_or(&self.issuer.ark)),
            parse(self.intermediate.as_ref().unwrap_or(above)),
            parse(&self.leaf.der),
        );
        match &self.crl {
            Some(crl) => chain.with_crl(Crl::parse(crl).unwrap()),
            None => chain,
        }
    }

    pub fn appraise(&self) -> Appraisal {
        let report = Report::parse(&self.bytes()).unwrap();
        appraise(&report, Some(&self.chain()), &self.policy, self.at)
    }

    /// Refused, for exactly these checks.
    #[track_caller]
    pub fn refused_for(&self, name: &str, checks: &[&str]) {
        let appraisal = self.appraise();
        let failed: Vec<&str> = appraisal.failures().map(|finding| &*finding.id).collect();
        assert_eq!(failed, checks, "{name}:\n{}", appraisal.to_text());
        for finding in appraisal.failures() {
            assert_ne!(finding.found, finding.expected, "{name}: {finding:?}");
            assert!(finding.reason.is_some(), "{name}: {finding:?}");
        }
        assert_eq!(appraisal.outcome, Outcome::Refused, "{name}");
    }

    #[track_caller]
    pub fn genuine(&self, name: &str) {
        let appraisal = self.appraise();
        assert_eq!(
            appraisal.outcome,
            Outcome::Genuine,
            "{name}:\n{}",
            appraisal.to_text()
        );
    }
}
