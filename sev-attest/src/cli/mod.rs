//! The `sev-attest` command: arguments in, text and exit status out.

pub mod measure;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status of wrong usage and unreadable input.
const USAGE: u8 = 2;

/// Verify AMD SEV-SNP attestation reports and predict launch digests
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Measure(Box<measure::MeasureArgs>),
}

/// Runs the command on this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Measure(args) => measure::run(&args, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sev-attest: {error}");
            ExitCode::from(USAGE)
        }
    }
}
