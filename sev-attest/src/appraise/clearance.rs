//! May a secret be sent?

use std::fmt;

use super::{Expectation, Outcome};
use crate::chain::Root;
use crate::report::Report;
use crate::time::UnixTime;

/// That a secret may be sent to the guest of a report. Nothing but an appraisal makes one
/// ([`super::Appraisal::clearance`]), so that a function which asks for it can't be called without.
///
/// It says nothing of the channel: the secret must go to a key that the report data binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clearance {
    measurement: [u8; 48],
    report_data: [u8; 64],
    at: UnixTime,
}

/// Why no secret may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld(Vec<&'static str>);

impl Withheld {
    /// The reasons, one at least.
    #[must_use]
    pub fn reasons(&self) -> &[&'static str] {
        &self.0
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no secret may be sent: {}", self.0.join("; "))
    }
}

impl std::error::Error for Withheld {}

/// Whether roots that are not AMD's count. Only in tests: no flag and no policy changes it.
const FOREIGN_ROOTS_COUNT: bool = cfg!(any(test, feature = "foreign-roots"));

impl Clearance {
    pub(super) fn decide(
        outcome: Outcome,
        root: Option<Root>,
        launch_digest: Expectation,
        report_data: Expectation,
        report: Option<&Report>,
        at: UnixTime,
    ) -> Result<Self, Withheld> {
        let amd = match root {
            Some(Root::Amd(_)) => true,
            Some(Root::Foreign) => FOREIGN_ROOTS_COUNT,
            None => false,
        };
        let mut reasons = Vec::new();
        for (holds, reason) in [
            (
                matches!(outcome, Outcome::Genuine | Outcome::Incomplete),
                "the report is not genuine, or not as expected, or that could not be decided",
            ),
            (amd, "the chain does not end in AMD's root"),
            (
                launch_digest == Expectation::Equal,
                "the launch digest was not expected and found equal",
            ),
            (
                report_data == Expectation::Equal,
                "the report data was not expected and found equal",
            ),
        ] {
            if !holds {
                reasons.push(reason);
            }
        }
        match report {
            Some(report) if reasons.is_empty() => Ok(Self {
                measurement: report.measurement,
                report_data: report.report_data,
                at,
            }),
            _ => Err(Withheld(reasons)),
        }
    }

    /// The launch digest of the guest.
    #[must_use]
    pub fn measurement(&self) -> &[u8; 48] {
        &self.measurement
    }

    /// The report data: what binds a channel to the guest.
    #[must_use]
    pub fn report_data(&self) -> &[u8; 64] {
        &self.report_data
    }

    /// The time that validity was judged at.
    #[must_use]
    pub fn at(&self) -> UnixTime {
        self.at
    }
}
