//! Appraisals in JSON. The schema is documented in `docs/attestation.md`.

use serde_json::{Value, json};

use super::{Appraisal, Finding, Outcome, Withheld};
use crate::chain::Root;

/// Name and version of the schema. A change that is more than a new key makes a new version.
pub const SCHEMA: &str = "sev-attest/verify/2";

impl Outcome {
    /// Name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }

    /// Exit status of the command.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Genuine => 0,
            Self::Refused => 1,
            Self::Undecided => 3,
            Self::Incomplete => 4,
        }
    }
}

impl Finding {
    /// The finding in JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "check": self.id,
            "what": self.what,
            "expected": text(&self.expected),
            "found": text(&self.found),
            "status": self.status.name(),
            "reason": self.reason.as_deref(),
            "required": self.required,
        })
    }
}

impl Appraisal {
    /// The appraisal in JSON, after [`SCHEMA`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (root, product) = match self.root {
            None => (None, None),
            Some(Root::Amd(product)) => (Some("amd"), Some(product.name())),
            Some(Root::Foreign) => (Some("foreign"), None),
        };
        json!({
            "schema": SCHEMA,
            "outcome": self.outcome.name(),
            "verdict": self.verdict(),
            "exit_status": self.outcome.exit_status(),
            "at": self.at.to_string(),
            "root": root,
            "root_product": product,
            "measurement_expected": self.launch_digest.was_expected(),
            "report_data_expected": self.report_data.was_expected(),
            "expectations": {
                "measurement": self.launch_digest.name(),
                "report_data": self.report_data.name(),
            },
            "missing": self.missing(),
            "may_send_secret": self.clearance().is_ok(),
            "withheld": self.clearance().err().map(Withheld::reasons),
            "advisories_of": self.advisories_of,
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}
