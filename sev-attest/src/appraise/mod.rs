//! The appraisal: report, chain, policy and time in, findings and a verdict out.
//!
//! [`appraise`] is a pure function. Every rule is one finding or more, whether it holds or not, so
//! that silence is never taken for success; the verdict follows from the findings alone.

mod binding;
mod chain;
mod clearance;
mod expectations;
mod facts;
mod finding;
mod genuine;
mod json;
mod tcb_worth;
mod text;

pub use clearance::{Clearance, Withheld};
pub use finding::{Finding, Status};
pub use json::SCHEMA;

use facts::Fact;

use crate::advisories::Table;
use crate::chain::{Chain, Root};
use crate::formats::{Binding, Evidence};
use crate::policy::Policy;
use crate::product::Product;
use crate::report::{Report, ReportError};
use crate::time::UnixTime;

/// What an appraisal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Genuine, and all that was expected: launch digest and report data among it, unless the
    /// policy waives them.
    Genuine,
    /// Genuine as far as it was looked at, but launch digest or report data were not expected: the
    /// guest can be anyone's, or the report an old one.
    Incomplete,
    /// Not genuine, or not what was expected.
    Refused,
    /// Something that had to be checked could not be.
    Undecided,
}

/// What became of an expectation that every policy must have or waive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// It was expected, and is so.
    Equal,
    /// It was expected, and is otherwise.
    Different,
    /// It was not expected, and the policy says that it need not be.
    Waived,
    /// It was not expected, though it had to be.
    Missing,
}

impl Expectation {
    /// Name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Waived => "waived",
            Self::Missing => "missing",
        }
    }

    /// Whether something was expected.
    #[must_use]
    pub fn was_expected(self) -> bool {
        matches!(self, Self::Equal | Self::Different)
    }

    fn of(findings: &[Finding], id: &str, waived: bool) -> Self {
        let status = findings.iter().find(|finding| finding.id == id);
        match status.map(|finding| finding.status) {
            Some(Status::Ok) => Self::Equal,
            Some(Status::Failed) => Self::Different,
            Some(Status::NotChecked) | None if waived => Self::Waived,
            Some(Status::NotChecked) | None => Self::Missing,
        }
    }
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
    /// The launch digest. Where it was not expected, a genuine report proves only that some guest
    /// made it.
    pub launch_digest: Expectation,
    /// The report data. Where it was not expected, a genuine report may be an old one.
    pub report_data: Expectation,
    /// The time that validity was judged at.
    pub at: UnixTime,
    /// Whose table of bulletins was used, in words.
    pub advisories_of: String,
    facts: Vec<Fact>,
    clearance: Result<Clearance, Withheld>,
}

/// Appraises a report with what came along. Without a chain the outcome is at best
/// [`Outcome::Undecided`].
///
/// What the report data has to bind is held against it: the runtime claims of an Azure virtual
/// machine, in which an expected nonce is looked for too, and the key of a certificate that the
/// report was in.
#[must_use]
pub fn appraise_evidence(
    evidence: &Evidence,
    chain: Option<&Chain>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let binding = evidence.binding.as_ref();
    judge(&evidence.report, binding, chain, policy, at)
}

/// Appraises a report alone. Without a chain the outcome is at best [`Outcome::Undecided`].
#[must_use]
pub fn appraise(
    report: &Report,
    chain: Option<&Chain>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    judge(report, None, chain, policy, at)
}

fn judge(
    report: &Report,
    binding: Option<&Binding>,
    chain: Option<&Chain>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut findings = Findings::default();
    genuine::report(&mut findings, report, policy);
    // Nothing is said of a processor that is not known: its keys and layouts would be guesses.
    let unknown_processor = report.cpuid.is_some() && report.product().is_none();
    match chain {
        _ if unknown_processor => {
            genuine::nothing_of_the_chain(&mut findings, "the processor is not known");
        }
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
            genuine::nothing_of_the_chain(&mut findings, "there is no chain");
        }
    }
    if let Some(binding) = binding {
        binding::check(&mut findings, report, binding);
    }
    let product = match unknown_processor {
        true => None,
        false => report.product().or(chain.and_then(Chain::product)),
    };
    expectations::check(&mut findings, report, binding, policy, product);
    let root = match unknown_processor {
        true => None,
        false => chain.map(Chain::root),
    };
    let facts = facts::of(report, chain, product);
    Appraisal::of(findings.0, root, Some(report), facts, policy, at)
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
    Some(Appraisal::of(
        vec![finding],
        None,
        None,
        Vec::new(),
        policy,
        at,
    ))
}

impl Appraisal {
    fn of(
        findings: Vec<Finding>,
        root: Option<Root>,
        report: Option<&Report>,
        facts: Vec<Fact>,
        policy: &Policy,
        at: UnixTime,
    ) -> Self {
        let has = |wanted: fn(&Finding) -> bool| findings.iter().any(wanted);
        let launch_digest = Expectation::of(&findings, "measurement", policy.any_guest);
        let report_data = Expectation::of(&findings, "report_data", policy.any_time);
        let missing = [launch_digest, report_data].contains(&Expectation::Missing);
        let outcome = if has(|finding| finding.status == Status::Failed) {
            Outcome::Refused
        } else if has(|finding| finding.status == Status::NotChecked && finding.required) {
            Outcome::Undecided
        } else if missing {
            Outcome::Incomplete
        } else {
            Outcome::Genuine
        };
        let clearance = Clearance::decide(outcome, root, launch_digest, report_data, report, at);
        let table = policy.advisories.table.as_ref();
        Self {
            findings,
            outcome,
            root,
            launch_digest,
            report_data,
            at,
            advisories_of: table.unwrap_or_else(|| Table::built_in()).whose(),
            facts,
            clearance,
        }
    }

    /// Whether the report is genuine and all that was expected, under AMD's root or one that the
    /// policy accepts. It may still be of any guest or of any time, where the policy waives these:
    /// ask [`Self::clearance`] before a secret is sent.
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
                .map(|f| &*f.id)
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
            Outcome::Incomplete => self.under_root(&format!(
                "NOT ENOUGH EXPECTED: genuine, but {}",
                self.missing().join("; and ")
            )),
            Outcome::Genuine => {
                let lacks = [
                    (self.launch_digest == Expectation::Waived).then_some("ANY GUEST"),
                    (self.report_data == Expectation::Waived).then_some("ANY TIME"),
                ];
                let lacks: Vec<&str> = lacks.into_iter().flatten().collect();
                let what = match lacks.as_slice() {
                    [] => "genuine and as expected".to_owned(),
                    lacks => format!("genuine and as expected, for {}", lacks.join(" AND ")),
                };
                self.under_root(&what)
            }
        }
    }

    fn under_root(&self, what: &str) -> String {
        match self.root {
            Some(Root::Foreign) => format!("FOREIGN ROOT, not AMD's: {what}"),
            Some(Root::Amd(_)) | None => what.to_owned(),
        }
    }

    /// What had to be expected and was not, each with what follows and what to give.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let launch_digest = (self.launch_digest == Expectation::Missing).then_some(
            "no measurement was expected: this proves only that some SEV-SNP guest made the report \
             (give --measurement or a policy file, or --any-guest)",
        );
        let report_data = (self.report_data == Expectation::Missing).then_some(
            "no report data was expected: the report can be an old one, or made for somebody else \
             (give --nonce or --report-data, or --any-time)",
        );
        launch_digest.into_iter().chain(report_data).collect()
    }

    /// May a secret be sent to this guest? The one answer to that question, and the only source of
    /// a [`Clearance`].
    ///
    /// Yes only for a genuine report under AMD's own root whose launch digest and report data were
    /// expected and are equal. What a policy waives or accepts changes nothing here; a foreign root
    /// is accepted in test builds alone (feature `testing`).
    ///
    /// # Errors
    /// With everything that stands against it.
    pub fn clearance(&self) -> Result<&Clearance, &Withheld> {
        self.clearance.as_ref()
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
