//! Appraisals as text: a line for each finding, then the verdict.

use std::fmt::Write as _;

use super::{Appraisal, Finding, Status};
use crate::show::{abbreviated, plain};

impl Finding {
    /// How it came out, as the lines begin.
    fn word(&self) -> &'static str {
        match (self.status, self.required) {
            (Status::Ok, _) => "ok",
            (Status::Failed, _) => "FAILED",
            (Status::NotChecked, true) => "UNDECIDED",
            (Status::NotChecked, false) => "not checked",
        }
    }

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
            let _ = writeln!(
                text,
                "{:<11}  {:<id_width$}  {:<what_width$}  {}",
                finding.word(),
                finding.id,
                finding.what,
                finding.detail()
            );
        }
        let _ = writeln!(text, "verdict: {}", self.verdict());
        text
    }

    /// The appraisal as text for a terminal of so many columns: [`Self::to_text`] where that fits, else
    /// what was found below what was checked, broken between words (and within them where one word
    /// alone is too long). Narrower than 40 columns is taken as 40.
    #[must_use]
    pub fn to_text_within(&self, columns: usize) -> String {
        let wide = self.to_text();
        if wide.lines().all(|line| line.chars().count() <= columns) {
            return wide;
        }
        let columns = columns.max(40);
        let mut text = String::new();
        for finding in &self.findings {
            let head = format!("{:<11}  {}  [{}]", finding.word(), finding.what, finding.id);
            wrap(&mut text, &head, columns);
            wrap(
                &mut text,
                &format!("{:13}{}", "", finding.detail()),
                columns,
            );
        }
        wrap(&mut text, &format!("verdict: {}", self.verdict()), columns);
        text
    }
}

/// Writes `line` in lines of at most `columns`; those after the first are indented like a detail.
fn wrap(text: &mut String, line: &str, columns: usize) {
    const INDENT: usize = 13;
    let mut rest: Vec<char> = line.trim_end().chars().collect();
    while rest.len() > columns {
        let blank = (INDENT + 1..=columns)
            .rev()
            .find(|&at| rest.get(at) == Some(&' '));
        let tail = rest.split_off(blank.unwrap_or(columns));
        text.extend(rest);
        text.push('\n');
        rest = vec![' '; INDENT];
        rest.extend(tail.into_iter().skip_while(|c| *c == ' '));
    }
    text.extend(rest);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{appraise::Outcome, time::UnixTime};

    fn appraisal() -> Appraisal {
        let digest = "5e".repeat(48);
        Appraisal {
            findings: vec![
                Finding::new("report.version", "version of the report").ok("3"),
                Finding::new("measurement", "launch digest")
                    .expected("00".repeat(48))
                    .failed(digest),
                Finding::new("host_data", "host data").skipped("none was expected"),
            ],
            outcome: Outcome::Refused,
            root: None,
            measurement_expected: true,
            at: UnixTime::from_rfc3339("2026-01-01T00:00:00Z").unwrap(),
        }
    }

    #[test]
    fn a_narrow_terminal_loses_no_word() {
        let appraisal = appraisal();
        assert_eq!(appraisal.to_text_within(1000), appraisal.to_text());
        for columns in [0, 40, 80, 132] {
            let narrow = appraisal.to_text_within(columns);
            let longest = narrow.lines().map(|l| l.chars().count()).max();
            assert!(longest <= Some(columns.max(40)), "{columns}:\n{narrow}");
            let joined: String = narrow.split_whitespace().collect();
            for finding in &appraisal.findings {
                for part in [finding.id, finding.what, finding.word(), &finding.detail()] {
                    let part: String = part.split_whitespace().collect();
                    assert!(joined.contains(&part), "{part} is missing:\n{narrow}");
                }
            }
            assert!(narrow.lines().any(|l| l.starts_with("verdict: ")));
        }
    }
}
