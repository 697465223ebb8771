//! Appraisals as text: a screenful for people, or a line for each finding.

use std::fmt::Write as _;

use super::{Appraisal, Finding, Outcome, Status};
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

/// The findings that say what the guest is, with their names in the summary.
const GUEST: [(&str, &str); 3] = [
    ("measurement", "measurement"),
    ("report_data", "report data"),
    ("host_data", "host data"),
];

impl Appraisal {
    /// A screenful: the verdict; what failed or could not be decided, and why; the facts that
    /// decide; and a line that names what was not checked.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("verdict: {}\n", self.verdict());
        let mut bad = self
            .findings
            .iter()
            .filter(|finding| finding.status == Status::Failed || finding.required)
            .peekable();
        if bad.peek().is_some() {
            text.push('\n');
        }
        for finding in bad {
            let word = finding.word();
            let _ = writeln!(text, "{word:<11}  {}  {}", finding.id, finding.detail());
        }
        // Of other outcomes the verdict says enough.
        let withheld = self.clearance().err();
        if let Some(withheld) = withheld.filter(|_| self.outcome == Outcome::Genuine) {
            let _ = writeln!(text, "\n{withheld}");
        }
        text.push('\n');
        let mut line = |label: &str, words: &str| {
            let words = plain(words);
            let _ = writeln!(text, "{label:<11}  {words}");
        };
        for fact in &self.facts {
            line(fact.label, &fact.text);
            if fact.label == "firmware" {
                for (label, words) in self.guest() {
                    line(label, &words);
                }
            }
        }
        for (label, words) in self.advisories() {
            line(label, &words);
        }
        let _ = writeln!(text, "\n{}", self.unchecked());
        text
    }

    /// [`Self::summary`] for a terminal of so many columns. Where it is longer than a screen then,
    /// long hexadecimal numbers have their middle left out, but for what failed.
    #[must_use]
    pub fn summary_within(&self, columns: usize) -> String {
        const SCREEN: usize = 40;
        let whole = self.summary();
        let wrapped = |shorten: bool| {
            let mut text = String::new();
            for line in whole.lines() {
                match shorten && !line.starts_with("FAILED") {
                    true => wrap(&mut text, &abbreviated(line), columns.max(40)),
                    false => wrap(&mut text, line, columns.max(40)),
                }
            }
            text
        };
        let text = wrapped(false);
        match text.lines().count() > SCREEN {
            true => wrapped(true),
            false => text,
        }
    }

    /// Launch digest, report data and host data, each with what became of it.
    fn guest(&self) -> Vec<(&'static str, String)> {
        GUEST
            .iter()
            .filter_map(|(id, label)| {
                let finding = self.findings.iter().find(|finding| finding.id == *id)?;
                let came_out = match finding.status {
                    Status::Ok => "as expected",
                    Status::Failed => "NOT AS EXPECTED",
                    Status::NotChecked => "not expected",
                };
                let found = match finding.found.bytes().all(|byte| byte == b'0') {
                    true => "all zero",
                    false => &*finding.found,
                };
                Some((*label, format!("{came_out}: {found}")))
            })
            .collect()
    }

    /// What AMD's bulletins say of the TCB: the bulletins by how the report stands to them.
    fn advisories(&self) -> Vec<(&'static str, String)> {
        let standing = |wanted: &str| {
            let of = self
                .findings
                .iter()
                .filter(|finding| finding.found == wanted);
            let names: Vec<&str> = of
                .filter_map(|finding| finding.id.strip_prefix("advisories."))
                .map(|bulletin| bulletin.strip_prefix("AMD-").unwrap_or(bulletin))
                .collect();
            names.join(", ")
        };
        let mut lines: Vec<(&'static str, String)> = [
            ("fixed", "fixed"),
            ("not fixed", "NOT fixed"),
            ("no fix", "no fix exists"),
            ("not attestable", "can't be told"),
            ("withdrawn", "numbers withdrawn"),
            ("disputed", "disputed"),
        ]
        .into_iter()
        .map(|(standing_name, words)| (standing(standing_name), words))
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, words)| ("", format!("{words}: {names}")))
        .collect();
        if let Some(first) = lines.first_mut() {
            first.0 = "bulletins";
            lines.push(("", format!("by {}", self.advisories_of)));
        }
        lines
    }

    /// The one line that names what was not checked. Bulletins have lines of their own.
    fn unchecked(&self) -> String {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut count = 0;
        for finding in &self.findings {
            if finding.status != Status::NotChecked
                || finding.required
                || finding.id.starts_with("advisories.")
            {
                continue;
            }
            count += 1;
            let (group, name) = finding.id.split_once('.').unwrap_or((&finding.id, ""));
            match groups.last_mut() {
                Some((last, names)) if *last == group => names.push(name),
                _ => groups.push((group, vec![name])),
            }
        }
        let groups: Vec<String> = groups
            .into_iter()
            .map(|(group, names)| match names.as_slice() {
                [""] => group.to_owned(),
                [name] => format!("{group}.{name}"),
                names => format!("{group}.{{{}}}", names.join(",")),
            })
            .collect();
        format!(
            "not checked ({count}; --all tells why): {}",
            groups.join(", ")
        )
    }

    /// All findings as text, with a line end after the verdict.
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

    /// All findings for a terminal of so many columns: [`Self::to_text`] where that fits, else what
    /// was found below what was checked, broken between words (and within them where one word alone
    /// is too long). Narrower than 40 columns is taken as 40.
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
    use crate::policy::Policy;
    use crate::time::UnixTime;

    fn appraisal() -> Appraisal {
        let digest = "5e".repeat(48);
        let at = UnixTime::from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        Appraisal::of(
            vec![
                Finding::new("report.version", "version of the report").ok("3"),
                Finding::new("measurement", "launch digest")
                    .expected("00".repeat(48))
                    .failed(digest),
                Finding::new("host_data", "host data").skipped("none was expected"),
            ],
            None,
            None,
            Vec::new(),
            &Policy::default(),
            at,
        )
    }

    /// On a narrow terminal a genuine report's screenful is still one; what failed stays whole.
    #[test]
    fn a_screenful_stays_one() {
        let appraisal = appraisal();
        let failed = "5e".repeat(48);
        for columns in [0, 40, 80, 132] {
            let text = appraisal.summary_within(columns);
            let joined: String = text.split_whitespace().collect();
            assert!(joined.contains(&failed), "{columns}:\n{text}");
            assert!(text.starts_with("verdict: "), "{text}");
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
                for part in [
                    &finding.id,
                    &finding.what,
                    finding.word(),
                    &finding.detail(),
                ] {
                    let part: String = part.split_whitespace().collect();
                    assert!(joined.contains(&part), "{part} is missing:\n{narrow}");
                }
            }
            assert!(narrow.lines().any(|l| l.starts_with("verdict: ")));
        }
    }
}
