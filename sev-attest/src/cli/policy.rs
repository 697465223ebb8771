//! `sev-attest policy`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::input::{self, CliError};
use crate::formats::MAX_INPUT;
use crate::policy::{Policy, TEMPLATE};

/// Write and check policy files
#[derive(Debug, Args)]
pub struct PolicyArgs {
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
pub fn run(args: &PolicyArgs, out: &mut impl Write) -> Result<(), CliError> {
    match &args.command {
        PolicyCommand::Init {
            file: Some(path),
            force,
        } if path.as_os_str() != "-" => {
            let mut options = OpenOptions::new();
            options.write(true);
            if *force {
                options.create(true).truncate(true);
            } else {
                options.create_new(true);
            }
            let written = options
                .open(path)
                .and_then(|mut file| file.write_all(TEMPLATE.as_bytes()));
            written.map_err(|source| CliError::File {
                name: input::name(path),
                source: match source.kind() {
                    std::io::ErrorKind::AlreadyExists => {
                        std::io::Error::other("exists already: give --force to replace it")
                    }
                    _ => source,
                },
            })
        }
        PolicyCommand::Init { .. } => out.write_all(TEMPLATE.as_bytes()).map_err(CliError::Output),
        PolicyCommand::Check { file } => {
            let bytes = input::read(file, MAX_INPUT)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| CliError::Usage(format!("{}: not UTF-8", input::name(file))))?;
            Policy::from_toml(&text)
                .map(drop)
                .map_err(|source| CliError::Policy {
                    path: file.clone(),
                    source,
                })
        }
    }
}
