//! `sev-attest verify`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::certificates::{self, Found, SourceArgs};
use super::expect::ExpectArgs;
use super::input::{self, CliError};
use crate::appraise::{self, Appraisal};
use crate::formats::{self, FormatError, MAX_INPUT};
use crate::time::UnixTime;

/// Verify an attestation report: that it is genuine, and what it says
///
/// Prints the verdict, what failed and why, the facts that decide, and what was not checked.
///
/// Exit status: 0 genuine and as expected, launch digest and report data among it; 1 not; 2 wrong
/// usage or unreadable input; 3 undecided, as a certificate could not be had; 4 genuine, but launch
/// digest or report data were not expected, and neither --any-guest nor --any-time waives that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
  sev-attest verify report.bin --policy guest.toml --nonce 6a5d0cb2f06bd8bcdd1db26a8c6c0a1f\n  \
  sev-attest verify report.bin --certs certs/ --offline --measurement 4188779cfe25130b… --any-time\n  \
  sev-attest verify - --json < report.bin")]
pub(crate) struct VerifyArgs {
    /// The report, in any form that tools and clouds hand out; - for standard input
    report: PathBuf,
    /// Judge validity at this time, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<UnixTime>,
    /// Write findings and verdict as JSON
    #[arg(long)]
    json: bool,
    /// Write every check, one a line, then the verdict
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

/// Verifies a report and writes findings and verdict to `out`; answers the exit status.
///
/// # Errors
/// On wrong usage and unreadable input; nothing is written to `out` then.
pub(crate) fn run(args: &VerifyArgs, out: &mut impl Write) -> Result<u8, CliError> {
    let policy = args.expect.policy()?;
    let at = args.at.unwrap_or_else(UnixTime::now);
    let bytes = input::read(&args.report, MAX_INPUT)?;
    let refused = |source| CliError::Input {
        name: input::name(&args.report),
        source,
    };
    let evidence = match formats::read_report(&bytes) {
        Ok(evidence) => evidence,
        Err(FormatError::Report(error)) => {
            let appraisal = appraise::unreadable(error, &policy, at)
                .ok_or_else(|| refused(FormatError::Report(error)))?;
            return write(args, &appraisal, &[], out);
        }
        Err(error) => return Err(refused(error)),
    };
    let Found { chain, mut notes } = certificates::find(
        &evidence.report,
        &evidence.bundle,
        &args.sources,
        policy.require_crl,
        at,
    )?;
    notes.extend(evidence.notes.iter().cloned());
    notes.extend(args.expect.hint(&evidence.report));
    let appraisal = appraise::appraise_evidence(&evidence, chain.as_ref(), &policy, at);
    write(args, &appraisal, &notes, out)
}

fn write(
    args: &VerifyArgs,
    appraisal: &Appraisal,
    notes: &[String],
    out: &mut impl Write,
) -> Result<u8, CliError> {
    let text = if args.json {
        let mut value = appraisal.to_json();
        value["notes"] = notes.into();
        format!("{value:#}\n")
    } else {
        for note in notes {
            super::say(&crate::show::plain(note));
        }
        render(appraisal, args.all)
    };
    out.write_all(text.as_bytes()).map_err(CliError::Output)?;
    Ok(appraisal.outcome.exit_status())
}

/// Findings and verdict for people: all, or a screenful.
pub(super) fn render(appraisal: &Appraisal, all: bool) -> String {
    match (columns(), all) {
        (Some(columns), true) => appraisal.to_text_within(columns),
        (None, true) => appraisal.to_text(),
        (Some(columns), false) => appraisal.summary_within(columns),
        (None, false) => appraisal.summary(),
    }
}

/// The width of the terminal that standard output is, if it is one.
fn columns() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

fn time(text: &str) -> Result<UnixTime, String> {
    UnixTime::from_rfc3339(text)
        .ok_or_else(|| "expected a time after RFC 3339, as 2026-01-31T12:00:00Z".to_owned())
}
