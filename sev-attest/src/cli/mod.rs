//! The `sev-attest` command: arguments in, text and exit status out.

mod advisories;
mod certificates;
mod expect;
mod fetch;
#[cfg(target_os = "linux")]
mod guest;
mod input;
#[cfg(target_os = "linux")]
mod kernel;
mod measure;
mod policy;
mod report_data;
#[cfg(target_os = "linux")]
mod serve;
mod show;
mod unlock;
mod verify;

use std::error::Error;
use std::io::Write as _;
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
    Verify(Box<verify::VerifyArgs>),
    Show(show::ShowArgs),
    Unlock(Box<unlock::UnlockArgs>),
    Fetch(Box<fetch::FetchArgs>),
    #[cfg(target_os = "linux")]
    Guest(guest::GuestArgs),
    Measure(Box<measure::MeasureArgs>),
    Policy(Box<policy::PolicyArgs>),
    Advisories(advisories::AdvisoriesArgs),
}

/// Runs the command on this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(USAGE)
        }
    }
}

/// Says something on standard error. That nobody may be there to hear it changes no exit status.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "sev-attest: {text}");
}

/// Runs one command; answers the exit status.
fn run(command: Command) -> Result<u8, Box<dyn Error>> {
    let out = &mut std::io::stdout().lock();
    match command {
        Command::Verify(args) => return Ok(verify::run(&args, out)?),
        Command::Unlock(args) => return Ok(unlock::run(&args, out)?),
        Command::Show(args) => show::run(&args, out)?,
        Command::Fetch(args) => {
            if let Err(error) = fetch::run(&args, out) {
                say(&error.to_string());
                return Ok(error.exit_status());
            }
        }
        #[cfg(target_os = "linux")]
        Command::Guest(args) => guest::run(&args, out)?,
        Command::Measure(args) => measure::run(&args, out)?,
        Command::Policy(args) => policy::run(&args, out)?,
        Command::Advisories(args) => advisories::run(&args, out)?,
    }
    Ok(0)
}
