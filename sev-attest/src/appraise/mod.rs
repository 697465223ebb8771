//! The appraisal: report, chain, policy and time in, findings and a verdict out.
//!
//! [`appraise`] is a pure function. Every rule is one finding or more, whether it holds or not, so
//! that silence is never taken for success; the verdict follows from the findings alone.

mod chain;
mod expectations;
mod finding;
mod genuine;
mod json;
mod text;

pub use finding::{Finding, Status};
pub use json::SCHEMA;

use crate::chain::{Chain, Root};
use crate::policy::Policy;
use crate::product::Product;
use crate::report::{Report, ReportError};
use crate::time::UnixTime;

/// What an appraisal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Genuine, and all that was expected.
    Genuine,
    /// Not genuine, or not what was expected.
    Refused,
    /// Something that had to be checked could not be.
    Undecided,
}

/// Findings and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appraisal {
    /// All findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The outcome.
    pub outcome: Outcome,
    /// Whose root the chain ends in; `None` without a chain.
    pub root: Option<Root>,
    /// Whether a measurement was expected. Without, a genuine report proves only that some guest
    /// made it.
    pub measurement_expected: bool,
    /// The time that validity was judged at.
    pub at: UnixTime,
}

/// Appraises a report. Without a chain the outcome is at best [`Outcome::Undecided`].
#[must_use]
pub fn appraise(
    report: &Report,
    chain: Option<&Chain>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut findings = Findings::default();
    genuine::report(&mut findings, report, policy);
    match chain {
        Some(chain) => {
            chain::check(&mut findings, chain, policy, at);
            genuine::leaf(&mut findings, report, chain, policy);
            genuine::signature(&mut findings, report, chain);
        }
        None => {
            findings.push(
                Finding::new("chain", "certificates of the signing key")
                    .expected("a chain to AMD's root")
                    .required("no certificate of the key that signed the report could be had"),
            );
            let above = chain::CHECKS.into_iter().chain(genuine::LEAF_CHECKS);
            for (id, what) in above
                .chain(genuine::EXTENSION_CHECKS)
                .chain([genuine::SIGNATURE_CHECK])
            {
                findings.push(Finding::new(id, what).skipped("there is no chain"));
            }
        }
    }
    let product = report.product().or(chain.and_then(Chain::product));
    expectations::check(&mut findings, report, policy, product);
    Appraisal::of(findings.0, chain.map(Chain::root), policy, at)
}

/// The appraisal of bytes that have a report's length, but can't be read as one.
///
/// `None` where the bytes are not a report at all, which is wrong usage and no finding.
#[must_use]
pub fn unreadable(error: ReportError, policy: &Policy, at: UnixTime) -> Option<Appraisal> {
    let ReportError::UnknownVersion(version) = error else {
        return None;
    };
    let finding = genuine::version_finding().failed(version.to_string());
    Some(Appraisal::of(vec![finding], None, policy, at))
}

impl Appraisal {
    fn of(findings: Vec<Finding>, root: Option<Root>, policy: &Policy, at: UnixTime) -> Self {
        let has = |wanted: fn(&Finding) -> bool| findings.iter().any(wanted);
        let outcome = if has(|finding| finding.status == Status::Failed) {
            Outcome::Refused
        } else if has(|finding| finding.status == Status::NotChecked && finding.required) {
            Outcome::Undecided
        } else {
            Outcome::Genuine
        };
        Self {
            findings,
            outcome,
            root,
            measurement_expected: !policy.measurement.is_empty(),
            at,
        }
    }

    /// Whether the report is genuine and all that was expected, under AMD's root or one that the
    /// policy accepts.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.outcome == Outcome::Genuine
    }

    /// Findings that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.status == Status::Failed)
    }

    /// The verdict in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let ids = |wanted: fn(&Finding) -> bool| {
            let ids: Vec<&str> = self
                .findings
                .iter()
                .filter(|f| wanted(f))
                .map(|f| f.id)
                .collect();
            ids.join(", ")
        };
        match self.outcome {
            Outcome::Refused => {
                format!(
                    "NOT GENUINE OR NOT AS EXPECTED: {}",
                    ids(|f| f.status == Status::Failed)
                )
            }
            Outcome::Undecided => {
                format!(
                    "UNDECIDED: {}",
                    ids(|f| f.status == Status::NotChecked && f.required)
                )
            }
            Outcome::Genuine => {
                let what = if self.measurement_expected {
                    "genuine and as expected"
                } else {
                    "genuine, but no measurement was expected: this proves only that some SEV-SNP \
                     guest made the report"
                };
                match self.root {
                    Some(Root::Foreign) => format!("FOREIGN ROOT, not AMD's: {what}"),
                    Some(Root::Amd(_)) | None => what.to_owned(),
                }
            }
        }
    }
}

/// Findings as they are collected.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// A finding that is ok or failed.
    fn judge(
        &mut self,
        finding: Finding,
        found: impl Into<std::borrow::Cow<'static, str>>,
        ok: bool,
    ) {
        self.0.push(if ok {
            finding.ok(found)
        } else {
            finding.failed(found)
        });
    }
}

/// Name of a product, or that it is not known.
fn product_name(product: Option<Product>) -> &'static str {
    product.map_or("unknown", Product::name)
}
