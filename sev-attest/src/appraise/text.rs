//! Appraisals as text: a line for each finding, then the verdict.

use std::fmt::Write as _;

use super::{Appraisal, Finding, Status};
use crate::show::{abbreviated, plain};

impl Finding {
    /// What was found and expected, or why nothing was.
    fn detail(&self) -> String {
        // What failed is shown whole, so that it can be compared.
        let short = |text: &str| match self.status {
            Status::Failed => plain(text),
            Status::Ok | Status::NotChecked => abbreviated(&plain(text)),
        };
        let mut detail = short(&self.found);
        if self.status != Status::NotChecked
            && !self.expected.is_empty()
            && self.expected != self.found
        {
            let _ = write!(detail, " (expected {})", short(&self.expected));
        }
        if let Some(reason) = &self.reason {
            if !detail.is_empty() {
                detail.push_str("; ");
            }
            detail.push_str(&plain(reason));
        }
        detail
    }
}

impl Appraisal {
    /// The appraisal as text, with a line end after the verdict.
    #[must_use]
    pub fn to_text(&self) -> String {
        let width = |text: fn(&Finding) -> usize| self.findings.iter().map(text).max().unwrap_or(0);
        let id_width = width(|finding| finding.id.len());
        let what_width = width(|finding| finding.what.len());
        let mut text = String::new();
        for finding in &self.findings {
            let status = match (finding.status, finding.required) {
                (Status::Ok, _) => "ok",
                (Status::Failed, _) => "FAILED",
                (Status::NotChecked, true) => "UNDECIDED",
                (Status::NotChecked, false) => "not checked",
            };
            let _ = writeln!(
                text,
                "{status:<11}  {:<id_width$}  {:<what_width$}  {}",
                finding.id,
                finding.what,
                finding.detail()
            );
        }
        let _ = writeln!(text, "verdict: {}", self.verdict());
        text
    }
}
