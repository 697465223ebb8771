//! `sev-attest guest`: reports and keys from inside a guest.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};

use super::input::CliError;
use super::kernel::{GuestCommandError, Via, vmpl};
use super::report_data::{self, Given, nonce};
use crate::fetch;
use crate::guest::{DEVICE, KeyRequest, ReportRequest, RootKey, SevGuest, Vmpl};
use crate::hex_bytes::HexBytes;

/// Inside a guest: have a report made, or derive a key
#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Have the security processor make a report of this guest
    Report(ReportArgs),
    /// Derive a key from this chip's or provider's, and from what this guest is
    DeriveKey(KeyArgs),
    Serve(Box<super::serve::ServeArgs>),
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// 64 bytes for the report to carry, in hex; @FILE for a file of them
    #[arg(
        long,
        value_name = "HEX",
        value_parser = report_data::report_data,
        group = "data",
        required_unless_present = "nonce"
    )]
    report_data: Option<Given>,
    /// The verifier's nonce in hex, which the report carries with zeros after it; @FILE for a file
    /// of its bytes
    #[arg(long, value_name = "HEX", value_parser = nonce, group = "data")]
    nonce: Option<Given>,
    /// Ask at this VMPL [default: by configfs the kernel's own, by the device 0]
    #[arg(long, value_name = "0-3", value_parser = vmpl)]
    vmpl: Option<Vmpl>,
    /// With the certificates that the host holds for guests
    #[arg(long)]
    extended: bool,
    /// The kernel's interface to ask by
    #[arg(long, value_enum, default_value = "auto")]
    via: Via,
    /// How the report is written
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    /// File to write, - for standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct KeyArgs {
    /// The root key
    #[arg(long, value_enum, default_value = "vcek")]
    root: Root,
    /// What is mixed in, so that another guest, or this one changed, gets another key
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    #[arg(default_values = ["policy", "measurement"])]
    with: Vec<Field>,
    /// VMPL to mix in
    #[arg(long, value_name = "0-3", value_parser = vmpl, default_value = "0")]
    vmpl: Vmpl,
    /// Guest SVN to mix in, at most that of the ID block
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    guest_svn: u32,
    /// TCB word to mix in, at most the committed one, as 0x…
    #[arg(long, value_name = "HEX", value_parser = word, default_value = "0x0")]
    tcb: u64,
    /// How the key is written
    #[arg(long, value_enum, default_value = "hex")]
    format: Format,
    /// File to write, readable by its owner only; - for standard output
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Raw,
    Hex,
    Base64,
}

impl Format {
    fn encode(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Raw => bytes.to_vec(),
            Self::Hex => format!("{}\n", hex::encode(bytes)).into_bytes(),
            Self::Base64 => format!("{}\n", STANDARD.encode(bytes)).into_bytes(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Root {
    /// The chip's key, or the provider's (VLEK) where there is one
    Vcek,
    /// The migration agent's
    Vmrk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Field {
    /// Nothing of this guest
    None,
    /// Guest policy
    Policy,
    /// Image id of the ID block
    ImageId,
    /// Family id of the ID block
    FamilyId,
    /// Launch digest
    Measurement,
    /// Guest SVN
    Svn,
    /// TCB
    Tcb,
}

impl Field {
    /// Bit of GUEST_FIELD_SELECT (AMD 56860, MSG_KEY_REQ).
    fn bit(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Policy => 1,
            Self::ImageId => 1 << 1,
            Self::FamilyId => 1 << 2,
            Self::Measurement => 1 << 3,
            Self::Svn => 1 << 4,
            Self::Tcb => 1 << 5,
        }
    }
}

/// Asks for what the arguments say and writes it.
///
/// # Errors
/// Where this is no SEV-SNP guest, the request is refused, or the answer can't be written.
pub(crate) fn run(args: &GuestArgs, out: &mut impl Write) -> Result<(), GuestCommandError> {
    match &args.what {
        What::Serve(args) => super::serve::run(args, out)?,
        What::Report(args) => {
            // one of the two is there: the parser requires it
            let given = args.report_data.as_ref().or(args.nonce.as_ref());
            let data = given
                .map(Given::bytes)
                .transpose()?
                .unwrap_or(HexBytes([0; 64]));
            let request = ReportRequest {
                data: data.0,
                vmpl: args.vmpl,
                extended: args.extended,
            };
            let report = args.via.provider()?.report(&request)?;
            let bytes = args.format.encode(&report.to_bytes());
            if args.out.as_os_str() == "-" {
                out.write_all(&bytes).map_err(CliError::Output)?;
            } else {
                fetch::write_named(&args.out, &bytes)
                    .map_err(|error| CliError::Usage(error.to_string()))?;
            }
        }
        What::DeriveKey(args) => {
            let request = KeyRequest {
                root: match args.root {
                    Root::Vcek => RootKey::Vcek,
                    Root::Vmrk => RootKey::Vmrk,
                },
                fields: args.with.iter().fold(0, |bits, field| bits | field.bit()),
                vmpl: args.vmpl,
                guest_svn: args.guest_svn,
                tcb: args.tcb,
            };
            let mut device = SevGuest::open(Path::new(DEVICE))?;
            let key = device.derive_key(&request)?;
            let bytes = args.format.encode(&key.0);
            if args.out.as_os_str() == "-" {
                out.write_all(&bytes).map_err(CliError::Output)?;
            } else {
                let mut file = OpenOptions::new();
                file.write(true).create_new(true).mode(0o600);
                let written = file
                    .open(&args.out)
                    .and_then(|mut file| file.write_all(&bytes));
                written.map_err(|source| CliError::File {
                    name: args.out.display().to_string(),
                    source,
                })?;
            }
        }
    }
    Ok(())
}

fn word(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "expected hexadecimal digits".to_owned())
}
