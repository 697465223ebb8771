//! `sev-attest fetch`: certificates from AMD's Key Distribution Service, a cache, and bundles.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::input::{self, CliError};
use crate::fetch::{
    self, AlephCache, BaseUrl, Cache, Client, FetchError, Fetcher, ForeignRoot, Limits,
    RetryPolicy, Trust,
};
use crate::formats::{self, MAX_INPUT};
use crate::product::Product;
use crate::report::{ChipId, SigningKey};
use crate::source::Wanted;
use crate::tcb::{Tcb, TcbWord};
use crate::time::UnixTime;

/// Where certificates come from: the options that `verify` shares.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Certificates from AMD")]
pub(crate) struct ServiceArgs {
    /// Address of AMD's Key Distribution Service or a mirror, https:// or http://
    #[arg(long, value_name = "URL", env = "SEV_ATTEST_KDS_URL", global = true)]
    #[arg(default_value = fetch::KDS, hide_env_values = true)]
    kds_url: String,
    /// Where fetched certificates are kept [default: $XDG_CACHE_HOME/sev-attest]
    #[arg(long, value_name = "DIR", env = "SEV_ATTEST_CACHE_DIR", global = true)]
    #[arg(hide_env_values = true)]
    cache_dir: Option<PathBuf>,
    /// Where Aleph Cloud's client keeps the certificates that it fetched; they are read too
    /// [default: $XDG_CACHE_HOME/aleph-sdk/kds]
    #[arg(
        long,
        value_name = "DIR",
        env = "SEV_ATTEST_ALEPH_CACHE",
        global = true
    )]
    #[arg(hide_env_values = true)]
    aleph_cache: Option<PathBuf>,
    /// Time for one request
    #[arg(long, value_name = "SECONDS", default_value_t = 20, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    request_timeout: u64,
    /// Time for all that one run asks of the service: requests, and the waits between them
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86400))]
    max_wait: u64,
}

impl ServiceArgs {
    /// The cache and the service. Offline, only the cache is looked at; without a place for a
    /// cache, only the service.
    ///
    /// # Errors
    /// On an unusable address.
    pub(crate) fn fetcher(&self, trust: Trust, offline: bool) -> Result<Fetcher, CliError> {
        let base: Result<BaseUrl, FetchError> = self.kds_url.parse();
        let base = base.map_err(|error| CliError::Usage(error.to_string()))?;
        let limits = Limits {
            request_time: Duration::from_secs(self.request_timeout),
            retry: RetryPolicy {
                total_time: Duration::from_secs(self.max_wait),
                ..RetryPolicy::default()
            },
        };
        let client = (!offline).then(|| Client::new(base, limits));
        let cache = self.directory().ok().map(|path| Cache::new(&path, &trust));
        let fetcher = Fetcher::new(trust, cache, client);
        let aleph = self.aleph_cache.clone();
        Ok(match aleph.or_else(AlephCache::default_directory) {
            Some(directory) => fetcher.with_aleph_cache(AlephCache::new(directory)),
            None => fetcher,
        })
    }

    fn directory(&self) -> Result<PathBuf, FetchError> {
        match &self.cache_dir {
            Some(directory) => Ok(directory.clone()),
            None => Cache::default_directory(),
        }
    }
}

/// Get certificates from AMD's Key Distribution Service
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(after_help = "\
What arrives is kept in the cache only when AMD's signatures on it hold and it is what was asked \
for.\n\n\
Examples:\n  \
  sev-attest fetch --bundle certs report.bin    all that the report needs, for a machine offline\n  \
  sev-attest fetch vcek report.bin\n  \
  sev-attest fetch crl --product genoa -o crl.der")]
pub(crate) struct FetchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Write all that the report needs to this directory: its VCEK, the chain, the revocation list
    #[arg(long, value_name = "DIR", requires = "report")]
    bundle: Option<PathBuf>,
    /// Report in any form, - for standard input; an extended report brings its certificates along
    #[arg(value_name = "REPORT", requires = "bundle")]
    report: Option<PathBuf>,
    /// More certificates at hand, such as a VLEK
    #[arg(long, value_name = "FILE", requires = "bundle")]
    certificate: Vec<PathBuf>,
    /// Trust this root instead of AMD's: PEM or DER, with what it signed. For simulated processors
    #[arg(long, value_name = "FILE", global = true)]
    foreign_root: Option<PathBuf>,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// ASK and ARK of a product, or ASVK and ARK
    Ca {
        #[command(flatten)]
        of: Authority,
        #[command(flatten)]
        out: Out,
    },
    /// The VCEK that signed a report, or that of a chip and TCB
    Vcek {
        /// Report in any form, - for standard input
        #[arg(value_name = "REPORT", required_unless_present = "hwid")]
        #[arg(conflicts_with = "hwid")]
        report: Option<PathBuf>,
        /// Product, where the report does not say it
        #[arg(long, value_name = "NAME", value_parser = product)]
        product: Option<Product>,
        /// Chip id: 64 bytes in hex, Turin's 8
        #[arg(long, value_name = "HEX")]
        #[arg(requires_all = ["product", "bl_spl", "tee_spl", "snp_spl", "ucode_spl"])]
        hwid: Option<String>,
        /// Firmware configuration (Turin)
        #[arg(long, value_name = "SVN", requires = "hwid")]
        fmc_spl: Option<u8>,
        /// Boot loader
        #[arg(long, value_name = "SVN", requires = "hwid")]
        bl_spl: Option<u8>,
        /// TEE
        #[arg(long, value_name = "SVN", requires = "hwid")]
        tee_spl: Option<u8>,
        /// SNP firmware
        #[arg(long, value_name = "SVN", requires = "hwid")]
        snp_spl: Option<u8>,
        /// Microcode
        #[arg(long, value_name = "SVN", requires = "hwid")]
        ucode_spl: Option<u8>,
        #[command(flatten)]
        out: Out,
    },
    /// What is public of VLEKs: their ASVK and ARK. AMD gives VLEKs to cloud providers only
    Vlek {
        /// Product
        #[arg(long, value_name = "NAME", value_parser = product)]
        product: Product,
        #[command(flatten)]
        out: Out,
    },
    /// The revocation list of a product's ARK
    Crl {
        #[command(flatten)]
        of: Authority,
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Debug, Args)]
struct Authority {
    /// Product
    #[arg(long, value_name = "NAME", value_parser = product)]
    product: Product,
    /// Of the kind of key that signed the report
    #[arg(long, value_enum, default_value = "vcek")]
    key: KeyArg,
}

#[derive(Debug, Args)]
struct Out {
    /// Write it to this file too, - for standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write PEM to that file, where the service gives DER
    #[arg(long, requires = "out")]
    pem: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyArg {
    Vcek,
    Vlek,
}

impl From<KeyArg> for SigningKey {
    fn from(key: KeyArg) -> Self {
        match key {
            KeyArg::Vcek => Self::Vcek,
            KeyArg::Vlek => Self::Vlek,
        }
    }
}

fn product(name: &str) -> Result<Product, String> {
    Product::from_name(name).ok_or_else(|| "known products: milan, genoa, turin".to_owned())
}

/// Why `fetch` did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchCommandError {
    /// Wrong usage or unreadable input.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// The certificate was not had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl FetchCommandError {
    /// Exit status: 1 when an answer was not genuine, 2 on wrong usage or unreadable input, 3 when
    /// a certificate could not be had.
    #[must_use]
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Fetch(FetchError::NotGenuine { .. }) => 1,
            Self::Cli(_)
            | Self::Fetch(
                FetchError::BaseUrl { .. } | FetchError::File { .. } | FetchError::NoCacheDirectory,
            ) => 2,
            Self::Fetch(_) => 3,
        }
    }
}

/// Fetches what the arguments ask for and says where it is.
///
/// # Errors
/// When it could not be had, kept or written.
pub(crate) fn run(args: &FetchArgs, out: &mut impl Write) -> Result<(), FetchCommandError> {
    let trust = match &args.foreign_root {
        Some(path) => foreign_root(path)?,
        None => Trust::Amd,
    };
    args.service.directory()?;
    let fetcher = args.service.fetcher(trust, false)?;
    let now = UnixTime::now();
    match (&args.what, &args.bundle, &args.report) {
        (Some(what), ..) => fetch_one(what, &fetcher, now, out),
        (None, Some(directory), Some(report)) => {
            let mut evidence = read_report(report)?;
            let mut notes = Vec::new();
            for path in &args.certificate {
                evidence
                    .bundle
                    .extend(input::certificates(path, &mut notes)?);
            }
            for note in &notes {
                super::say(&crate::show::plain(note));
            }
            let at_hand = &evidence.bundle.certificates;
            let made = fetch::bundle(&fetcher, &evidence.report, at_hand, directory, now)?;
            let mut text = String::new();
            for file in &made.files {
                text.push_str(&format!("{}\n", file.display()));
            }
            if let Some(until) = made.crl_until {
                text.push_str(&format!("the revocation list is valid until {until}\n"));
            }
            text.push_str(&format!(
                "next: sev-attest verify --offline --certs {} {}\n",
                directory.display(),
                report.display()
            ));
            write(out, text.as_bytes())
        }
        (None, ..) => Err(usage(
            "say what to fetch: ca, vcek, vlek, crl, or --bundle DIR REPORT",
        )),
    }
}

fn fetch_one(
    what: &What,
    fetcher: &Fetcher,
    now: UnixTime,
    out: &mut impl Write,
) -> Result<(), FetchCommandError> {
    match what {
        What::Ca { of, out: to } => chain(fetcher, of.product, of.key.into(), to, out),
        What::Vlek { product, out: to } => {
            chain(fetcher, *product, SigningKey::Vlek, to, out)?;
            super::say(
                "these are the certificates above VLEKs; a VLEK itself comes from the cloud \
                 provider or in the guest's extended report",
            );
            Ok(())
        }
        What::Crl { of, out: to } => {
            let found = fetcher.crl(of.product, of.key.into(), now)?;
            let found = found.ok_or(FetchError::Offline("the revocation list"))?;
            if let Some(until) = found.document.next_update()
                && until < now
            {
                super::say(&format!(
                    "this list ran out at {until}, and the service gives no newer one"
                ));
            }
            let der = found.document.der();
            deliver(&found.origin, der, || fetch::pem("X509 CRL", der), to, out)
        }
        What::Vcek {
            report,
            product,
            hwid,
            fmc_spl,
            bl_spl,
            tee_spl,
            snp_spl,
            ucode_spl,
            out: to,
        } => {
            let wanted = if let Some(path) = report {
                let mut wanted =
                    Wanted::of(&read_report(path)?.report).ok_or(FetchError::UnsignedReport)?;
                if wanted.signing_key == SigningKey::Vlek {
                    return Err(FetchError::VlekNotPublic.into());
                }
                if let (Some(said), Some(given)) = (wanted.product, *product)
                    && said != given
                {
                    return Err(usage(&format!(
                        "the report is of {said}, --product says {given}"
                    )));
                }
                wanted.product = wanted.product.or(*product);
                wanted
            } else {
                let (Some(product), Some(hwid)) = (*product, hwid) else {
                    return Err(usage("give a report, or --hwid with --product"));
                };
                let svn = |given: &Option<u8>| given.unwrap_or(0);
                let tcb = Tcb {
                    fmc: *fmc_spl,
                    boot_loader: svn(bl_spl),
                    tee: svn(tee_spl),
                    snp: svn(snp_spl),
                    microcode: svn(ucode_spl),
                };
                by_chip(product, hwid, tcb)?
            };
            let found = fetcher
                .leaf(&wanted, now)?
                .ok_or_else(|| fetcher.no_such_key())?;
            let der = found.document.der();
            deliver(
                &found.origin,
                der,
                || fetch::pem("CERTIFICATE", der),
                to,
                out,
            )
        }
    }
}

fn by_chip(product: Product, hwid: &str, tcb: Tcb) -> Result<Wanted, FetchCommandError> {
    let bytes = hex::decode(hwid).map_err(|_| usage("--hwid is not hexadecimal"))?;
    let (id, rest) = bytes.split_at_checked(product.hwid_len()).ok_or_else(|| {
        let (given, needed) = (bytes.len(), product.hwid_len());
        usage(&format!(
            "--hwid has {given} bytes, {product}'s have {needed}"
        ))
    })?;
    if rest.iter().any(|byte| *byte != 0) || bytes.len() > 64 {
        return Err(usage("--hwid is longer than the product's"));
    }
    let has_fmc = product.tcb_layout() == crate::product::TcbLayout::Turin;
    if tcb.fmc.is_some() != has_fmc {
        return Err(usage("--fmc-spl is for Turin, which needs it"));
    }
    let mut chip_id = [0; 64];
    chip_id[..id.len()].copy_from_slice(id);
    let reported_tcb: TcbWord = tcb.encode(product);
    Ok(Wanted {
        signing_key: SigningKey::Vcek,
        product: Some(product),
        chip_id: ChipId(chip_id),
        reported_tcb,
    })
}

fn chain(
    fetcher: &Fetcher,
    product: Product,
    key: SigningKey,
    to: &Out,
    out: &mut impl Write,
) -> Result<(), FetchCommandError> {
    let found = fetcher.chain(product, key)?;
    let found = found.ok_or(FetchError::Offline("the certificate chain"))?;
    let text: String = found
        .document
        .iter()
        .map(|certificate| fetch::pem("CERTIFICATE", certificate.der()))
        .collect();
    deliver(&found.origin, text.as_bytes(), || text.clone(), to, out)
}

/// Writes the document to where it shall be, and says where it came from unless it went to standard
/// output itself.
fn deliver(
    origin: &fetch::Origin,
    bytes: &[u8],
    pem: impl Fn() -> String,
    to: &Out,
    out: &mut impl Write,
) -> Result<(), FetchCommandError> {
    let text;
    let bytes = if to.pem {
        text = pem();
        text.as_bytes()
    } else {
        bytes
    };
    match &to.out {
        Some(path) if path.as_os_str() == "-" => {
            return write(out, bytes);
        }
        Some(path) => fetch::write_named(path, bytes)?,
        None => {}
    }
    write(out, format!("{origin}\n").as_bytes())
}

/// A root with what it signed, as `--foreign-root` names it.
///
/// # Errors
/// When the file can't be read or has no self-issued certificate in it.
fn foreign_root(path: &Path) -> Result<Trust, FetchCommandError> {
    let bundle = input::certificates(path, &mut Vec::new())?;
    let (mut arks, intermediates): (Vec<_>, Vec<_>) = bundle
        .certificates
        .into_iter()
        .partition(|certificate| certificate.is_issued_in_name_of(certificate));
    let (Some(ark), true) = (arks.pop(), arks.is_empty()) else {
        let name = path.display();
        return Err(usage(&format!(
            "{name}: exactly one self-issued certificate is a root"
        )));
    };
    Ok(Trust::Foreign(Box::new(ForeignRoot { ark, intermediates })))
}

fn read_report(path: &Path) -> Result<formats::Evidence, CliError> {
    let bytes = input::read(path, MAX_INPUT)?;
    formats::read_report(&bytes).map_err(|source| CliError::Input {
        name: input::name(path),
        source,
    })
}

fn usage(text: &str) -> FetchCommandError {
    CliError::Usage(text.to_owned()).into()
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), FetchCommandError> {
    out.write_all(bytes).map_err(CliError::Output)?;
    Ok(())
}
