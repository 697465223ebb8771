//! `sev-attest measure`: launch digests of guests to be, ID blocks, and a policy file to verify by.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::measure::{
    CpuSignature, Firmware, FirmwareReadError, IdBlock, IdKey, KernelHashes, Launch, LaunchDigest,
    MAX_FIRMWARE, MeasureError, Measurement, Mode, SignedIdBlock, Variants, VcpuCounts, Vmm,
    sha256_reader,
};

/// Largest key file read, in bytes.
const MAX_KEY: u64 = 64 << 10;

/// Compute the expected launch digest of what QEMU will launch
#[derive(Debug, Args)]
#[command(after_help = "\
Several command lines (--append), CPU types and vCPU counts are computed in one run, for little more \
than one.\n\n\
Examples:\n  \
  sev-attest measure --firmware OVMF.fd --vcpus 4 --vcpu-type EPYC-v4\n  \
  sev-attest measure --firmware OVMF.amdsev.fd --vcpus 1..64 --vcpu-type EPYC-v4 \\\n      \
    --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --policy-out guest.toml")]
pub struct MeasureArgs {
    /// Kind of guest
    #[arg(long, value_enum, default_value = "snp")]
    mode: ModeArg,
    /// OVMF image, as given to QEMU's -bios
    #[arg(long, visible_alias = "ovmf", value_name = "FILE")]
    firmware: PathBuf,
    /// vCPU counts: 4, or 1,2,4, or 1..64
    #[arg(long, value_name = "LIST")]
    vcpus: Option<VcpuCounts>,
    /// CPU types as after QEMU's -cpu, without features: EPYC-v4, EPYC-Milan, …
    #[arg(long, value_name = "TYPE", value_delimiter = ',', group = "cpu")]
    vcpu_type: Vec<String>,
    /// CPUID signature (Fn0000_0001 EAX) of another CPU type
    #[arg(long, value_name = "NUMBER", value_parser = number::<u32>, group = "cpu")]
    vcpu_sig: Option<u32>,
    /// CPU family of another CPU type, with --vcpu-model and --vcpu-stepping
    #[arg(long, value_name = "NUMBER", value_parser = number::<u32>, group = "cpu")]
    #[arg(requires_all = ["vcpu_model", "vcpu_stepping"])]
    vcpu_family: Option<u32>,
    /// CPU model, extended model included
    #[arg(long, value_name = "NUMBER", value_parser = number::<u32>, requires = "vcpu_family")]
    vcpu_model: Option<u32>,
    /// CPU stepping
    #[arg(long, value_name = "NUMBER", value_parser = number::<u32>, requires = "vcpu_family")]
    vcpu_stepping: Option<u32>,
    /// Virtual machine monitor
    #[arg(
        long,
        visible_alias = "vmm-type",
        value_enum,
        default_value = "qemu",
        ignore_case = true
    )]
    vmm: VmmArg,
    /// SEV_FEATURES of the vCPUs [default: 0x1 for snp, 0 for sev-es]
    #[arg(long, value_name = "NUMBER", value_parser = number::<u64>)]
    guest_features: Option<u64>,
    /// Kernel for direct boot with kernel-hashes=on
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Kernel command line; may be repeated
    #[arg(
        long,
        value_name = "TEXT",
        requires = "kernel",
        allow_hyphen_values = true
    )]
    append: Vec<String>,

    /// Sign an ID block with this P-384 key (PEM or DER)
    #[arg(long, value_name = "FILE", help_heading = "ID block")]
    id_key: Option<PathBuf>,
    /// Sign the ID key with this P-384 key
    #[arg(
        long,
        value_name = "FILE",
        requires = "id_key",
        help_heading = "ID block"
    )]
    author_key: Option<PathBuf>,
    /// Family id, 16 bytes in hex
    #[arg(long, value_name = "HEX", value_parser = id, requires = "id_key")]
    #[arg(help_heading = "ID block")]
    family_id: Option<[u8; 16]>,
    /// Image id, 16 bytes in hex
    #[arg(long, value_name = "HEX", value_parser = id, requires = "id_key")]
    #[arg(help_heading = "ID block")]
    image_id: Option<[u8; 16]>,
    /// Guest SVN
    #[arg(long, value_name = "NUMBER", value_parser = number::<u32>, requires = "id_key")]
    #[arg(help_heading = "ID block")]
    guest_svn: Option<u32>,
    /// Guest policy of the launch [default: 0x30000]
    #[arg(long, value_name = "NUMBER", value_parser = number::<u64>, requires = "id_key")]
    #[arg(help_heading = "ID block")]
    guest_policy: Option<u64>,

    /// How digests are written
    #[arg(long, value_enum, default_value = "hex")]
    output_format: Encoding,
    /// Write all as JSON
    #[arg(long)]
    json: bool,
    /// Write a policy file for `sev-attest verify --policy`
    #[arg(long, value_name = "FILE")]
    policy_out: Option<PathBuf>,
    /// Replace an existing policy file
    #[arg(long, requires = "policy_out")]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    Snp,
    #[value(alias = "seves")]
    SevEs,
    Sev,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VmmArg {
    Qemu,
    Ec2,
    Gce,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encoding {
    Hex,
    Base64,
}

/// Why `measure` could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureCommandError {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An input was refused.
    #[error("{}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: MeasureError,
    },
    /// Arguments that don't fit together.
    #[error("{0}")]
    Usage(&'static str),
    /// The request can't be fulfilled.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

/// Computes what the arguments ask for and writes it to `out`.
///
/// # Errors
/// On unreadable or refused input; nothing is written to `out` then.
pub fn run(args: &MeasureArgs, out: &mut impl Write) -> Result<(), MeasureCommandError> {
    let mode = match args.mode {
        ModeArg::Snp => Mode::Snp,
        ModeArg::SevEs => Mode::SevEs,
        ModeArg::Sev => Mode::Sev,
    };
    if mode != Mode::Snp && (args.id_key.is_some() || args.policy_out.is_some()) {
        return Err(MeasureCommandError::Usage(
            "ID blocks and policy files are for --mode snp only",
        ));
    }
    if mode != Mode::Sev && args.vcpus.is_none() {
        return Err(MeasureCommandError::Usage(
            "the vCPUs' state is measured: give --vcpus",
        ));
    }
    let cpus = cpus(args, mode)?;
    let signer = args
        .id_key
        .as_deref()
        .map(|id| Signer::new(args, id))
        .transpose()?;
    let (firmware, boots) = inputs(args, mode)?;
    let signatures: Vec<CpuSignature> = cpus.iter().map(|(signature, _)| *signature).collect();
    let variants = Variants {
        boots: &boots,
        cpus: &signatures,
        vcpus: args
            .vcpus
            .as_ref()
            .map(VcpuCounts::as_slice)
            .unwrap_or_default(),
    };
    let launch = Launch::new(&firmware, mode)
        .vmm(match args.vmm {
            VmmArg::Qemu => Vmm::Qemu,
            VmmArg::Ec2 => Vmm::Ec2,
            VmmArg::Gce => Vmm::Gce,
        })
        .features(args.guest_features.unwrap_or(mode.default_features()));
    let measured = launch
        .measure(&variants)
        .map_err(|source| in_file(&args.firmware, source))?;
    // Types of one signature are told apart by their place: one after another, all counts of each.
    let counts = variants.vcpus.len().max(1);
    let rows = measured
        .into_iter()
        .enumerate()
        .map(|(i, measurement)| {
            let at = (i / counts).checked_rem(cpus.len()).unwrap_or(0);
            let cpu = cpus.get(at).map(|(_, name)| name.as_str());
            Row::new(args, cpu, signer.as_ref(), measurement)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &args.policy_out {
        write_policy(path, args.force, &policy(&rows, signer.as_ref()))?;
    }
    let text = if args.json {
        json_text(args, mode, &rows)
    } else {
        text(args, &rows)
    };
    out.write_all(text.as_bytes())
        .map_err(MeasureCommandError::Output)
}

/// The CPU signatures asked for, each with the name it was asked by.
fn cpus(
    args: &MeasureArgs,
    mode: Mode,
) -> Result<Vec<(CpuSignature, String)>, MeasureCommandError> {
    if mode == Mode::Sev {
        // They don't count, but a slip in a name tells of a mistake.
        for name in &args.vcpu_type {
            CpuSignature::of_type(name)?;
        }
        return Ok(Vec::new());
    }
    if let Some(signature) = args.vcpu_sig {
        let signature = CpuSignature(signature);
        return Ok(vec![(signature, signature.to_string())]);
    }
    if let (Some(family), Some(model), Some(stepping)) =
        (args.vcpu_family, args.vcpu_model, args.vcpu_stepping)
    {
        let signature = CpuSignature::new(family, model, stepping)?;
        return Ok(vec![(signature, format!("{family}/{model}/{stepping}"))]);
    }
    match args.vcpu_type.as_slice() {
        // Other monitors than QEMU put no signature into the registers.
        [] if !matches!(args.vmm, VmmArg::Qemu) => Ok(vec![(CpuSignature(0), "any".to_owned())]),
        [] => Err(MeasureCommandError::Usage(
            "the vCPUs' type is measured: give --vcpu-type, --vcpu-sig or --vcpu-family with model \
             and stepping",
        )),
        names => names
            .iter()
            .map(|name| Ok((CpuSignature::of_type(name)?, name.clone())))
            .collect(),
    }
}

/// Firmware and hashes of what it boots; kernel and initial RAM disk are read meanwhile.
fn inputs(
    args: &MeasureArgs,
    mode: Mode,
) -> Result<(Firmware, Vec<KernelHashes>), MeasureCommandError> {
    std::thread::scope(|scope| {
        let hash = |path: &Path| {
            File::open(path)
                .and_then(sha256_reader)
                .map_err(|source| file(path, source))
        };
        let initrd = args.initrd.as_deref().and_then(|path| {
            // Where no thread can be had, it is read below.
            std::thread::Builder::new()
                .spawn_scoped(scope, move || hash(path))
                .ok()
        });
        let firmware = firmware(&args.firmware, mode)?;
        let Some(kernel) = args.kernel.as_deref() else {
            return Ok((firmware, Vec::new()));
        };
        let kernel = hash(kernel)?;
        let initrd = match (
            initrd.map(std::thread::ScopedJoinHandle::join),
            &args.initrd,
        ) {
            (Some(Ok(hash)), _) => Some(hash?),
            (_, Some(path)) => Some(hash(path)?),
            (_, None) => None,
        };
        let one = [String::new()];
        let lines = if args.append.is_empty() {
            &one[..]
        } else {
            &args.append
        };
        let boots = lines
            .iter()
            .map(|line| KernelHashes::from_hashes(kernel, initrd, line))
            .collect::<Result<_, _>>()?;
        Ok((firmware, boots))
    })
}

/// Keys and contents of ID blocks.
struct Signer {
    id: IdKey,
    author: Option<IdKey>,
    block: IdBlock,
}

impl Signer {
    fn new(args: &MeasureArgs, id: &Path) -> Result<Self, MeasureCommandError> {
        let key = |path: &Path| {
            IdKey::from_bytes(&read(path, MAX_KEY)?).map_err(|source| in_file(path, source))
        };
        let mut block = IdBlock::new([0; 48]);
        block.family_id = args.family_id.unwrap_or(block.family_id);
        block.image_id = args.image_id.unwrap_or(block.image_id);
        block.guest_svn = args.guest_svn.unwrap_or(block.guest_svn);
        block.policy = args.guest_policy.unwrap_or(block.policy);
        Ok(Self {
            id: key(id)?,
            author: args.author_key.as_deref().map(key).transpose()?,
            block,
        })
    }
}

/// One digest with all that is said about it.
struct Row {
    digest: LaunchDigest,
    vcpus: Option<(u32, CpuSignature, String)>,
    append: Option<String>,
    signed: Option<SignedIdBlock>,
}

impl Row {
    fn new(
        args: &MeasureArgs,
        cpu: Option<&str>,
        signer: Option<&Signer>,
        measurement: Measurement,
    ) -> Result<Self, MeasureCommandError> {
        let Measurement {
            boot,
            vcpus,
            digest,
        } = measurement;
        let signed = match (signer, digest) {
            (Some(Signer { id, author, block }), LaunchDigest::Snp(launch_digest)) => {
                let block = IdBlock {
                    launch_digest,
                    ..block.clone()
                };
                Some(block.sign(id, author.as_ref())?)
            }
            _ => None,
        };
        Ok(Self {
            digest,
            vcpus: vcpus.map(|(signature, count)| {
                let name = cpu.unwrap_or_default().to_owned();
                (count, signature, name)
            }),
            append: args
                .kernel
                .is_some()
                .then(|| args.append.get(boot).cloned().unwrap_or_default()),
            signed,
        })
    }

    /// vCPUs and command line in words; control characters escaped.
    fn words(&self) -> String {
        let vcpus = self
            .vcpus
            .as_ref()
            .map(|(count, _, name)| format!("{count} x {name}"));
        let append = self.append.as_ref().map(|line| format!("{line:?}"));
        vcpus
            .into_iter()
            .chain(append)
            .collect::<Vec<_>>()
            .join("  ")
    }
}

fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Hex => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    }
}

/// One digest alone for scripts; several with what they are for.
fn text(args: &MeasureArgs, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        text += &encode(args.output_format, row.digest.as_ref());
        if rows.len() > 1 {
            let _ = write!(text, "  {}", row.words());
        }
        text.push('\n');
        if let Some(signed) = &row.signed {
            let _ = writeln!(text, "{}", qemu_options(signed, args));
            let _ = writeln!(text, "id key digest {}", hex::encode(signed.id_key_digest));
            if let Some(digest) = signed.author_key_digest {
                let _ = writeln!(text, "author key digest {}", hex::encode(digest));
            }
        }
    }
    text
}

/// What to add to `-object sev-snp-guest`.
fn qemu_options(signed: &SignedIdBlock, args: &MeasureArgs) -> String {
    let policy = args.guest_policy.unwrap_or(IdBlock::new([0; 48]).policy);
    let author = if signed.author_key_digest.is_some() {
        "on"
    } else {
        "off"
    };
    format!(
        "policy={policy:#x},author-key-enabled={author},id-block={},id-auth={}",
        signed.block_base64(),
        signed.auth_base64()
    )
}

fn json_text(args: &MeasureArgs, mode: Mode, rows: &[Row]) -> String {
    let path = |path: &Path| path.display().to_string();
    let measurements: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut value = json!({ "digest": encode(args.output_format, row.digest.as_ref()) });
            if let Some((count, signature, name)) = &row.vcpus {
                value["vcpus"] = json!(count);
                value["vcpu_type"] = json!(name);
                value["vcpu_signature"] = json!(signature.to_string());
            }
            if let Some(line) = &row.append {
                value["append"] = json!(line);
            }
            if let Some(signed) = &row.signed {
                value["id_block"] = json!({
                    "block": signed.block_base64(),
                    "auth": signed.auth_base64(),
                    "id_key_digest": hex::encode(signed.id_key_digest),
                    "author_key_digest": signed.author_key_digest.map(hex::encode),
                });
            }
            value
        })
        .collect();
    let value = json!({
        "mode": mode.name(),
        "firmware": path(&args.firmware),
        "kernel": args.kernel.as_deref().map(path),
        "initrd": args.initrd.as_deref().map(path),
        "guest_features": args.guest_features.unwrap_or(mode.default_features()),
        "measurements": measurements,
    });
    format!("{value:#}\n")
}

/// The policy file: what `verify` must find in a report of one of these guests.
fn policy(rows: &[Row], signer: Option<&Signer>) -> String {
    let mut text = String::from("# Written by `sev-attest measure`.\nmeasurement = [\n");
    for row in rows {
        let _ = writeln!(text, "  \"{}\", # {}", hex::encode(row.digest), row.words());
    }
    text += "]\n";
    if let Some(Signer { id, author, block }) = signer {
        let _ = writeln!(text, "id_key_digest = [\"{}\"]", hex::encode(id.digest()));
        if let Some(author) = author {
            let _ = writeln!(
                text,
                "author_key_digest = [\"{}\"]",
                hex::encode(author.digest())
            );
        }
        if block.guest_svn > 0 {
            let _ = writeln!(text, "min_guest_svn = {}", block.guest_svn);
        }
        let _ = writeln!(text, "family_id = \"{}\"", hex::encode(block.family_id));
        let _ = writeln!(text, "image_id = \"{}\"", hex::encode(block.image_id));
    }
    text
}

fn write_policy(path: &Path, force: bool, text: &str) -> Result<(), MeasureCommandError> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let source = std::io::Error::other("exists already: give --force to replace it");
            file(path, source)
        }
        _ => file(path, source),
    })
}

/// The firmware, read in the way that is fastest for the mode.
fn firmware(path: &Path, mode: Mode) -> Result<Firmware, MeasureCommandError> {
    let image = File::open(path).map_err(|source| file(path, source))?;
    let metadata = image.metadata().map_err(|source| file(path, source))?;
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if mode == Mode::Snp && metadata.is_file() {
        let read_at = |offset: usize, bytes: &mut [u8]| image.read_exact_at(bytes, offset as u64);
        return Firmware::read_pages(len, read_at).map_err(|error| match error {
            FirmwareReadError::Io(source) => file(path, source),
            FirmwareReadError::Firmware(source) => in_file(path, source),
        });
    }
    let bytes = read(path, MAX_FIRMWARE as u64)?;
    Firmware::parse(bytes).map_err(|source| in_file(path, source))
}

/// A whole file of at most `max` bytes.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, MeasureCommandError> {
    let open = || {
        let file = File::open(path)?;
        let len = file.metadata()?.len().min(max);
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0).saturating_add(1));
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(std::io::Error::other(format!("longer than {max} bytes")));
        }
        Ok(bytes)
    };
    open().map_err(|source| file(path, source))
}

fn file(path: &Path, source: std::io::Error) -> MeasureCommandError {
    MeasureCommandError::File {
        path: path.to_owned(),
        source,
    }
}

fn in_file(path: &Path, source: MeasureError) -> MeasureCommandError {
    MeasureCommandError::Input {
        path: path.to_owned(),
        source,
    }
}

/// A number, decimal or hexadecimal with 0x.
fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let value = parsed.map_err(|_| "expected a number, as 26 or 0x1a".to_owned())?;
    T::try_from(value).map_err(|_| "the number is too large".to_owned())
}

/// 16 bytes in hex.
fn id(text: &str) -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "expected 32 hex digits".to_owned())?;
    Ok(bytes)
}
