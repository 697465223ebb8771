//! Looks for a report and certificates among all values of a container.
//!
//! Tools name the same things in many ways, so it is the content of a value that counts. Names
//! matter only for what is told of values that could not be read. Copies of a report's fields
//! beside it are not looked at: only bytes that were signed are.

use super::node::Node;
use super::reader::{Reader, extended};
use super::{Bundle, Evidence, Form, FormatError, Input, fields, tee};

/// Shorter values hold neither a report nor a certificate.
const SHORTEST: usize = 256;
/// How deep values are followed.
const MAX_DEPTH: usize = 32;
/// How many places are told of at most.
const MAX_TOLD: usize = 8;

/// What was found so far.
#[derive(Default)]
struct Found {
    /// Reports with their places.
    reports: Vec<(String, Evidence)>,
    /// Values that by their names should be reports, and are none.
    failures: Vec<(String, FormatError)>,
    bundle: Bundle,
    /// What was passed over though it could have been a certificate.
    notes: Vec<String>,
    /// Evidence of other technologies, and what told so.
    others: Vec<(tee::OtherTee, String)>,
    /// All places that were looked at.
    places: Vec<String>,
}

impl Reader {
    /// The report or the certificates in a container.
    pub(super) fn search(&mut self, value: &Node, form: Form) -> Result<Input, FormatError> {
        let mut found = Found::default();
        self.walk(value, "", &mut found, 0)?;
        found.conclude(form)
    }

    fn walk(
        &mut self,
        value: &Node,
        place: &str,
        found: &mut Found,
        depth: usize,
    ) -> Result<(), FormatError> {
        if depth == MAX_DEPTH {
            found.notes.push(format!("passed over {place}: too deep"));
            return Ok(());
        }
        match value {
            Node::Other | Node::Number(_) => {
                found.places.push(place.to_owned());
                Ok(())
            }
            Node::Map(_) if fields::is_report(value) => {
                let report = fields::assemble(value).and_then(|bytes| extended(&bytes));
                found.take(place, report.map(Input::from))
            }
            Node::Map(entries) => {
                for (name, value) in entries {
                    found.label(name, value);
                    let place = match place {
                        "" => name.clone(),
                        place => format!("{place}.{name}"),
                    };
                    self.walk(value, &place, found, depth + 1)?;
                }
                Ok(())
            }
            Node::List(items) if items.first().is_some_and(|item| item.number().is_some()) => {
                match value.bytes() {
                    Some(bytes) => self.value(&bytes, place, found),
                    None => Ok(()),
                }
            }
            Node::List(items) => {
                for (i, value) in items.iter().enumerate() {
                    self.walk(value, &format!("{place}[{i}]"), found, depth + 1)?;
                }
                Ok(())
            }
            Node::Text(text) => self.value(text.as_bytes(), place, found),
            Node::Bytes(bytes) => self.value(bytes, place, found),
        }
    }

    fn value(&mut self, bytes: &[u8], place: &str, found: &mut Found) -> Result<(), FormatError> {
        found.places.push(place.to_owned());
        if bytes.is_empty() || bytes.len() < SHORTEST && !is_report_name(last_name(place)) {
            return Ok(());
        }
        let input = self.read(bytes);
        found.take(place, input)
    }
}

impl Found {
    /// Takes what a value turned out to be.
    fn take(&mut self, place: &str, input: Result<Input, FormatError>) -> Result<(), FormatError> {
        match input {
            Ok(Input::Report(evidence)) => self.reports.push((place.to_owned(), *evidence)),
            Ok(Input::Certificates(bundle)) => self.bundle.add(bundle)?,
            Err(error) if error.is_final() => return Err(error),
            Err(FormatError::OtherTee { tee, found }) => {
                self.others.push((tee, format!("{place}: {found}")));
            }
            Err(error) => {
                let name = last_name(place);
                if is_report_name(name) || matches!(error, FormatError::Report(_)) {
                    self.failures.push((place.to_owned(), error));
                } else if is_certificate_name(name) {
                    self.notes.push(format!("passed over {place}: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Takes a key that says which technology the evidence is of.
    fn label(&mut self, name: &str, value: &Node) {
        let text = match value {
            Node::Text(text) => text.as_str(),
            Node::Bytes(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => return,
        };
        if tee::is_label(&plain(name)) && text.len() < SHORTEST {
            if let Some(tee) = tee::of_label(text) {
                self.others.push((tee, format!("{name} is {text:?}")));
            }
        }
    }

    fn conclude(mut self, form: Form) -> Result<Input, FormatError> {
        let mut reports = self.reports.into_iter();
        let Some((place, mut evidence)) = reports.next() else {
            return match (self.others.pop(), self.failures.is_empty()) {
                (Some((tee, found)), _) => Err(FormatError::OtherTee { tee, found }),
                (None, false) => Err(failed(self.failures, form)),
                (None, true) if !self.bundle.is_empty() => Ok(Input::Certificates(self.bundle)),
                (None, true) => Err(FormatError::Nothing {
                    form: form.name(),
                    looked: looked(&self.places, &self.notes),
                }),
            };
        };
        for (other, more) in reports {
            if more.report != evidence.report {
                return Err(FormatError::SeveralReports {
                    first: place,
                    second: other,
                });
            }
            evidence.bundle.add(more.bundle)?;
            evidence.notes.extend(more.notes);
            evidence.binding = evidence.binding.or(more.binding);
        }
        evidence.bundle.add(self.bundle)?;
        evidence.notes.extend(self.notes);
        let failures = self.failures.into_iter();
        let failures = failures.map(|(place, error)| format!("passed over {place}: {error}"));
        evidence.notes.extend(failures);
        evidence.form = form;
        Ok(evidence.into())
    }
}

/// The refusal of a container where what should be a report is none.
fn failed(failures: Vec<(String, FormatError)>, form: Form) -> FormatError {
    let mut failures = failures.into_iter();
    match (failures.next(), failures.next()) {
        // A report that is one, but of a version that is not known: that is a finding.
        (Some((_, error @ FormatError::Report(_))), None) => error,
        (Some((place, source)), None) => FormatError::At {
            form: form.name(),
            place,
            source: Box::new(source),
        },
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(failures).take(MAX_TOLD);
            let all: Vec<String> = all
                .map(|(place, error)| format!("at {place}: {error}"))
                .collect();
            FormatError::Nothing {
                form: form.name(),
                looked: all.join("; "),
            }
        }
        (None, _) => FormatError::Empty,
    }
}

fn looked(places: &[String], notes: &[String]) -> String {
    if places.is_empty() {
        return "it has no values".to_owned();
    }
    let mut text = format!(
        "looked at {}",
        places[..places.len().min(MAX_TOLD)].join(", ")
    );
    if places.len() > MAX_TOLD {
        text.push_str(&format!(" and {} more", places.len() - MAX_TOLD));
    }
    for note in notes.iter().take(MAX_TOLD) {
        text.push_str("; ");
        text.push_str(note);
    }
    text
}

/// The last name of a place, without an index.
fn last_name(place: &str) -> &str {
    let name = place.rsplit('.').next().unwrap_or(place);
    name.split('[').next().unwrap_or(name)
}

/// A name without what tools differ in.
fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Whether a name says that its value is a report.
fn is_report_name(name: &str) -> bool {
    let name = plain(name);
    name.ends_with("report")
        || matches!(
            name.as_str(),
            "quote" | "outblob" | "attestation" | "evidence" | "teeevidence" | "primaryevidence"
        )
}

/// Whether a name says that its value is a certificate or several.
fn is_certificate_name(name: &str) -> bool {
    let name = plain(name);
    [
        "cert",
        "vcek",
        "vlek",
        "chain",
        "endorsement",
        "auxblob",
        "crl",
    ]
    .into_iter()
    .any(|part| name.contains(part))
        || matches!(name.as_str(), "ask" | "asvk" | "ark" | "data")
}
