//! `sev-attest policy`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::input::{self, CliError};
use crate::formats::{self, MAX_INPUT};
use crate::policy::{self, TEMPLATE};

/// Write and check policy files
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Write a policy file with every key explained
    Init {
        /// The file; - or nothing for standard output
        file: Option<PathBuf>,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
        /// Refuse what can be refused: products that can be forged, platforms that were not
        /// updated, memory that was not searched for aliases; ask for a revocation list
        #[arg(long)]
        strict: bool,
        /// Pin the product and the chip of this report
        #[arg(long, value_name = "REPORT")]
        from_report: Option<PathBuf>,
    },
    /// Read a policy file and say what is wrong with it, if anything
    Check {
        /// The file; - for standard input
        file: PathBuf,
    },
}

/// Does what the arguments ask for.
///
/// # Errors
/// On files that can't be read or written, and on a refused policy.
pub(crate) fn run(args: &PolicyArgs, out: &mut impl Write) -> Result<(), CliError> {
    match &args.command {
        PolicyCommand::Init {
            file,
            force,
            strict,
            from_report,
        } => {
            let text = template(*strict, from_report.as_deref())?;
            match file {
                Some(path) if path.as_os_str() != "-" => input::write_new(path, *force, &text),
                _ => out.write_all(text.as_bytes()).map_err(CliError::Output),
            }
        }
        PolicyCommand::Check { file } => input::policy(file).map(drop),
    }
}

/// The text of a new policy file.
fn template(strict: bool, from_report: Option<&Path>) -> Result<String, CliError> {
    let evidence = match from_report {
        None => None,
        Some(path) => {
            let bytes = input::read(path, MAX_INPUT)?;
            let evidence = formats::read_report(&bytes).map_err(|source| CliError::Input {
                name: input::name(path),
                source,
            })?;
            let certificates = &evidence.bundle.certificates;
            let product = certificates
                .iter()
                .find_map(|certificate| Some(certificate.endorsement().ok()?.product));
            Some((evidence.report, product))
        }
    };
    let of = evidence
        .as_ref()
        .map(|(report, product)| (report, *product));
    match (strict, of) {
        (true, of) => policy::strict(of).map_err(|error| CliError::Usage(error.to_string())),
        (false, Some((report, product))) => Ok(policy::pinned(TEMPLATE, report, product)),
        (false, None) => Ok(TEMPLATE.to_owned()),
    }
}
