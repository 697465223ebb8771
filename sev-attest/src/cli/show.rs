//! `sev-attest show`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::input::{self, CliError};
use crate::formats::{self, Bundle, Input, MAX_INPUT};
use crate::show::{self, Section};
use crate::time::UnixTime;

/// Name and version of the JSON schema.
const SCHEMA: &str = "sev-attest/show/1";

/// Show every field of a report or certificate in words; nothing is verified
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Report or certificates, in any form that `verify` reads; - for standard input
    file: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Writes what the file says to `out`.
///
/// # Errors
/// On unreadable input; nothing is written to `out` then.
pub(crate) fn run(args: &ShowArgs, out: &mut impl Write) -> Result<(), CliError> {
    let bytes = input::read(&args.file, MAX_INPUT)?;
    let input = formats::read(&bytes).map_err(|source| CliError::Input {
        name: input::name(&args.file),
        source,
    })?;
    let mut binding = None;
    let mut notes = Vec::new();
    let (report, form, bundle) = match input {
        Input::Report(evidence) => {
            // The certificate tells the layout of TCBs where the report does not.
            let leaf = crate::assemble::chain(&evidence.report, &evidence.bundle, UnixTime::now());
            let product = leaf.and_then(|chain| chain.product());
            let sections = show::report(&evidence.report, product);
            binding = evidence.binding.as_ref().map(show::binding);
            notes = evidence.notes;
            (Some(sections), Some(evidence.form.name()), evidence.bundle)
        }
        Input::Certificates(bundle) => (None, None, bundle),
    };
    let text = if args.json {
        let value = json!({
            "schema": SCHEMA,
            "form": form,
            "report": report.as_deref().map(show::to_json),
            "came_with": binding.as_deref().map(show::to_json),
            "certificates": to_json(certificates(&bundle)),
            "crls": to_json(crls(&bundle)),
            "notes": notes,
        });
        format!("{value:#}\n")
    } else {
        for note in &notes {
            super::say(&show::plain(note));
        }
        let parts = report
            .into_iter()
            .chain(binding)
            .chain(certificates(&bundle))
            .chain(crls(&bundle));
        parts
            .map(|sections| show::to_text(&sections))
            .collect::<Vec<_>>()
            .join("\n")
    };
    out.write_all(text.as_bytes()).map_err(CliError::Output)
}

fn to_json(parts: impl Iterator<Item = Vec<Section>>) -> Vec<Value> {
    parts.map(|sections| show::to_json(&sections)).collect()
}

fn certificates(bundle: &Bundle) -> impl Iterator<Item = Vec<Section>> {
    bundle.certificates.iter().map(show::certificate)
}

fn crls(bundle: &Bundle) -> impl Iterator<Item = Vec<Section>> {
    bundle.crls.iter().map(show::crl)
}
