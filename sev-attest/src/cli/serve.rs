//! `sev-attest guest serve`: the guest's end of the attested channel.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::input::{self, CliError};
use super::kernel::{GuestCommandError, Via, vmpl};
use crate::channel::PORT;
use crate::channel::ethereum::{self, Address};
use crate::endpoint::serve::{Command, Config, Directory, Event, Server, Sink, Versions};
use crate::guest::Vmpl;

/// Longest kernel command line that is read, in bytes.
const MAX_CMDLINE: usize = 64 << 10;

/// Serve reports of this guest, and take secrets from its owner
///
/// Speaks version 1 of the channel, for Aleph Cloud's clients, and version 2, which binds the
/// connection. The TLS key is made at the start and lives in this process alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
  sev-attest guest serve --owner-from-cmdline --secrets-dir /run/secrets\n  \
  sev-attest guest serve --owner-from-cmdline --no-v1 --once -- \\\n      \
      cryptsetup open --key-file - /dev/vda root")]
pub(super) struct ServeArgs {
    /// Address and port to listen on; may be repeated [default: [::]:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Account of the owner, 0x…: only what it signed is taken
    #[arg(long, value_name = "ADDRESS", group = "whose")]
    owner: Option<Address>,
    /// Take the owner from the measured kernel command line, its word owner=ADDRESS
    #[arg(
        long,
        value_name = "FILE",
        group = "whose",
        num_args = 0..=1,
        default_missing_value = "/proc/cmdline",
        required_unless_present = "owner"
    )]
    owner_from_cmdline: Option<PathBuf>,
    /// Write each secret to a file of its name in this directory, mode 0600
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    #[arg(required_unless_present = "command")]
    secrets_dir: Option<PathBuf>,
    /// Give a command the secret of this name on its standard input; if it fails, the owner is told
    /// and the guest goes on waiting
    #[arg(long, value_name = "NAME", default_value = super::unlock::DISK_KEY)]
    #[arg(conflicts_with = "secrets_dir")]
    secret: String,
    /// Time that the command has
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=140))]
    command_time: u64,
    /// The command, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Speak version 2 alone: with version 1, whoever has a TLS key out of a guest like this one can
    /// stand between unseen
    #[arg(long)]
    no_v1: bool,
    /// Let clients of version 1 come with TLS 1.2
    #[arg(long, conflicts_with = "no_v1")]
    tls12: bool,
    /// End once secrets were taken
    #[arg(long)]
    once: bool,
    /// Ask for reports at this VMPL [default: by configfs the kernel's own, by the device 0]
    #[arg(long, value_name = "0-3", value_parser = vmpl)]
    vmpl: Option<Vmpl>,
    /// The kernel's interface to ask by
    #[arg(long, value_enum, default_value = "auto")]
    via: Via,
}

/// Serves until the process ends, or, with `--once`, until secrets were taken.
pub(super) fn run(args: &ServeArgs, out: &mut impl Write) -> Result<(), GuestCommandError> {
    let owner = owner(args)?;
    let reports = args.via.provider()?;
    let listeners = listeners(&args.listen)?;
    let addresses: Vec<String> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .map(|address| address.to_string())
        .collect();
    let config = Config {
        owner,
        versions: match args.no_v1 {
            true => Versions::V2,
            false => Versions::Both,
        },
        tls12: args.tls12,
        vmpl: args.vmpl,
        reports,
        sink: sink(args)?,
        listener: Box::new(|event| super::say(&words(event))),
    };
    let server = Server::start(config, listeners)?;
    let versions = if args.no_v1 {
        "version 2"
    } else {
        "versions 1 and 2"
    };
    let key = hex::encode(Sha256::digest(server.spki()));
    let addresses = addresses.join(", ");
    writeln!(
        out,
        "serving on {addresses} for {owner}, {versions}; SHA-256 of the TLS key: {key}"
    )
    .and_then(|()| out.flush())
    .map_err(CliError::Output)?;
    loop {
        server.wait_unlocked();
        if args.once {
            return Ok(());
        }
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::Unlocked { version, names } => {
            format!("secrets taken by version {version}: {}", names.join(", "))
        }
        Event::NotTaken(why) | Event::NoReport(why) => why.clone(),
    }
}

fn owner(args: &ServeArgs) -> Result<Address, CliError> {
    match (args.owner, &args.owner_from_cmdline) {
        (Some(owner), _) => Ok(owner),
        // the parser requires one of the two
        (None, None) => Err(CliError::Usage("no owner is given".to_owned())),
        (None, Some(path)) => {
            let bytes = input::read(path, MAX_CMDLINE)?;
            let text = String::from_utf8_lossy(&bytes);
            ethereum::owner_of_cmdline(&text)
                .map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
        }
    }
}

fn sink(args: &ServeArgs) -> Result<Box<dyn Sink>, CliError> {
    match (args.command.split_first(), &args.secrets_dir) {
        (Some((program, arguments)), _) => Ok(Box::new(Command {
            program: program.into(),
            arguments: arguments.to_vec(),
            secret: args.secret.clone(),
            time: Duration::from_secs(args.command_time),
        })),
        (None, Some(directory)) => Ok(Box::new(Directory(directory.clone()))),
        // the parser requires one of the two
        (None, None) => Err(CliError::Usage("secrets have nowhere to go".to_owned())),
    }
}

fn listeners(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, CliError> {
    let bind = |address: &SocketAddr| {
        TcpListener::bind(address).map_err(|source| CliError::File {
            name: address.to_string(),
            source,
        })
    };
    if !addresses.is_empty() {
        return addresses.iter().map(bind).collect();
    }
    match bind(&(Ipv6Addr::UNSPECIFIED, PORT).into()) {
        Ok(listener) => Ok(vec![listener]),
        // A kernel without IPv6.
        Err(CliError::File { source, .. }) if source.kind() != io::ErrorKind::AddrInUse => {
            Ok(vec![bind(&(Ipv4Addr::UNSPECIFIED, PORT).into())?])
        }
        Err(error) => Err(error),
    }
}
