//! The command line: a client of the API, and the way to start the agent.
//!
//! Results go to standard output, progress and errors to standard error. Exit
//! statuses are in docs/cli.md. Foreign text (a guest's, an image's, a name's)
//! reaches a terminal only through [`table::plain`], but for the console.

mod args;
mod console;
mod exit;
mod follow;
mod image;
mod instance;
mod local;
mod node;
mod out;
mod parse;
mod table;
mod volume;
mod wait;

use std::{ffi::OsString, io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser as _;

pub use args::{Cli, Command};
pub use exit::{Failure, Status};

use crate::{client::Client, qemu::launcher};
use args::Global;
use out::Out;

/// The program, from its arguments to its exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() && args.iter().any(|arg| arg == "--json") => {
            let failure = misused(&e);
            let _ = writeln!(std::io::stderr(), "{}", failure.json());
            return failure.status.into();
        }
        // Help goes to standard output with status 0, complaints to standard error with 2.
        Err(e) => e.exit(),
    };
    // Before any thread exists.
    if let Command::LaunchVm(args) = &cli.command {
        let Err(e) = launcher::run(args) else {
            return ExitCode::SUCCESS;
        };
        let _ = writeln!(std::io::stderr(), "crn-agent launch-vm: {e}");
        return ExitCode::FAILURE;
    }
    let json = cli.global.json;
    match run(cli) {
        Ok(status) => status,
        Err(failure) => {
            let line = if json { failure.json() } else { failure.line() };
            let _ = writeln!(std::io::stderr(), "{line}");
            failure.status.into()
        }
    }
}

/// What a program is told of wrong usage: the first line of what people are.
fn misused(e: &clap::Error) -> Failure {
    let text = e.to_string();
    let first = text.lines().next().unwrap_or_default();
    Failure::new(
        Status::Usage,
        first.strip_prefix("error: ").unwrap_or(first),
    )
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let out = Out::new(cli.global.json);
    let command = match local::run(out, &cli.global, cli.command)? {
        local::Outcome::Done(status) => return Ok(status),
        local::Outcome::Remote(command) => command,
    };
    let client = Client::new(&socket(&cli.global)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(remote(&client, out, command));
    // A thread may still wait for a key.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// The agent's socket: named, or as configured.
fn socket(global: &Global) -> Result<PathBuf, Failure> {
    match &global.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(local::load(global, &[])?.socket()),
    }
}

async fn remote(client: &Client, out: Out, command: Command) -> Result<(), Failure> {
    match command {
        Command::Instance(command) => instance::run(client, out, command).await,
        Command::Volume(command) => volume::run(client, out, command).await,
        Command::Image(command) => image::run(client, out, command).await,
        Command::Status => node::status(client, out).await,
        Command::Events(args) => node::events(client, out, args).await,
        // Carried out before.
        Command::Serve(_)
        | Command::Doctor(_)
        | Command::Config(_)
        | Command::Completion { .. }
        | Command::Openapi
        | Command::LaunchVm(_) => Ok(()),
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
