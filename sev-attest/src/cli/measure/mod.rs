//! `sev-attest measure`: launch digests of guests to be, ID blocks, and a policy file to verify by.

mod from;
mod output;

use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use self::output::{Row, Signer, encode};
use super::input::{self, CliError};
use crate::hex_bytes::HexBytes;
use crate::measure::{
    CpuSignature, Firmware, FirmwareReadError, IGVM_MAGIC, Igvm, KernelHashes, Launch,
    LaunchDigest, MAX_FIRMWARE, MeasureError, Measurement, Mode, RecordError, Svsm, Variants,
    VcpuCounts, Vmm, firmware_context, sha256_reader,
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
    --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --policy-out guest.toml\n  \
  sev-attest measure --from launch.json --firmware OVMF.amdsev.fd --kernel vmlinuz")]
pub(crate) struct MeasureArgs {
    /// Kind of guest
    #[arg(long, value_enum, default_value = "snp")]
    mode: ModeArg,
    /// What a host says that it launched from: launch.json, recomputed with --firmware and, where
    /// given, --kernel and --initrd of one's own
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "mode", "vcpus", "cpu", "vcpu_model", "vcpu_stepping", "vmm", "guest_features",
        "snp_ovmf_hash", "svsm", "append", "id_key", "json", "policy_out",
    ])]
    from: Option<PathBuf>,
    /// OVMF image, as given to QEMU's -bios; or an IGVM file, which says all that is measured
    #[arg(long, visible_aliases = ["ovmf", "igvm"], value_name = "FILE")]
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
    /// Virtual machine monitor: qemu, ec2 (since about April 2026), ec2-2023 (before), gce (on
    /// Milan), gce-genoa or krun
    #[arg(long, visible_alias = "vmm-type", default_value = "qemu", value_parser = vmm)]
    vmm: Vmm,
    /// SEV_FEATURES of the vCPUs [default: 0x1 for snp, 0 for sev-es]
    #[arg(long, value_name = "NUMBER", value_parser = number::<u64>)]
    guest_features: Option<u64>,
    /// Digest of the firmware's pages, computed elsewhere: of --firmware the tables alone count
    /// then
    #[arg(long, value_name = "HEX")]
    snp_ovmf_hash: Option<HexBytes<48>>,
    /// SVSM image, for --mode snp:svsm
    #[arg(long, value_name = "FILE")]
    svsm: Option<PathBuf>,
    /// Bytes of the firmware's variables, which lie between it and the SVSM
    #[arg(long, value_name = "BYTES", value_parser = number::<u64>, requires = "svsm")]
    vars_size: Option<u64>,
    /// The firmware's variables, whose length counts
    #[arg(
        long,
        value_name = "FILE",
        requires = "svsm",
        conflicts_with = "vars_size"
    )]
    vars_file: Option<PathBuf>,
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
    /// SNP below a COCONUT SVSM, from two files: with --svsm and --vars-size or --vars-file
    #[value(name = "snp:svsm", alias = "snp-svsm")]
    SnpSvsm,
    /// The digest of the firmware's pages alone, for --snp-ovmf-hash
    #[value(name = "snp:ovmf-hash", alias = "snp-ovmf-hash")]
    SnpOvmfHash,
    #[value(alias = "seves")]
    SevEs,
    Sev,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encoding {
    Hex,
    Base64,
}

/// Why `measure` could not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureCommandError {
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
    /// The policy file can't be written.
    #[error(transparent)]
    Policy(#[from] CliError),
    /// The request can't be fulfilled.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A `launch.json` does not hold.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<RecordError>,
    },
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

/// Computes what the arguments ask for and writes it to `out`.
///
/// # Errors
/// On unreadable or refused input; nothing is written to `out` then.
pub(crate) fn run(args: &MeasureArgs, out: &mut impl Write) -> Result<(), MeasureCommandError> {
    if let Some(from) = &args.from {
        return from::run(args, from, out);
    }
    let mode = match args.mode {
        ModeArg::Snp | ModeArg::SnpSvsm | ModeArg::SnpOvmfHash => Mode::Snp,
        ModeArg::SevEs => Mode::SevEs,
        ModeArg::Sev => Mode::Sev,
    };
    if mode == Mode::Snp && is_igvm(&args.firmware)? {
        return write(args, mode, &[igvm(args)?], None, out);
    }
    consistent(args, mode)?;
    if matches!(args.mode, ModeArg::SnpOvmfHash) {
        let context = firmware_context(&firmware(&args.firmware, mode)?)
            .map_err(|source| in_file(&args.firmware, source))?;
        let text = encode(args.output_format, &context.digest()) + "\n";
        return out
            .write_all(text.as_bytes())
            .map_err(MeasureCommandError::Output);
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
    let measured = match &args.svsm {
        Some(path) => svsm(args, path, &firmware)?
            .measure(&firmware, &variants)
            .map_err(|source| in_file(path, source))?,
        None => {
            let mut launch = Launch::new(&firmware, mode)
                .vmm(args.vmm)
                .features(args.guest_features.unwrap_or(mode.default_features()));
            if let Some(HexBytes(digest)) = args.snp_ovmf_hash {
                launch = launch.firmware_digest(digest);
            }
            if let Some(why) = launch.impossible_features() {
                super::say(&format!("warning: --guest-features: {why}"));
            }
            launch
                .measure(&variants)
                .map_err(|source| in_file(&args.firmware, source))?
        }
    };
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
    write(args, mode, &rows, signer.as_ref(), out)
}

/// Writes the digests, and the policy file where one is asked for.
fn write(
    args: &MeasureArgs,
    mode: Mode,
    rows: &[Row],
    signer: Option<&Signer>,
    out: &mut impl Write,
) -> Result<(), MeasureCommandError> {
    if let Some(path) = &args.policy_out {
        input::write_new(path, args.force, &output::policy(rows, signer))?;
    }
    let text = if args.json {
        output::json_text(args, mode, rows)
    } else {
        output::text(args, rows)
    };
    out.write_all(text.as_bytes())
        .map_err(MeasureCommandError::Output)
}

/// Whether the file begins as an IGVM file does.
fn is_igvm(path: &Path) -> Result<bool, MeasureCommandError> {
    let mut magic = [0; IGVM_MAGIC.len()];
    let image = File::open(path).map_err(|source| file(path, source))?;
    let read = image.take(magic.len() as u64).read_exact(&mut magic);
    Ok(read.is_ok() && magic == IGVM_MAGIC)
}

/// The digest of an IGVM file, with a warning where QEMU launches it otherwise.
fn igvm(args: &MeasureArgs) -> Result<Row, MeasureCommandError> {
    let more = args.vcpus.is_some()
        || args.kernel.is_some()
        || args.id_key.is_some()
        || args.svsm.is_some()
        || args.snp_ovmf_hash.is_some()
        || args.guest_features.is_some()
        || !matches!(args.mode, ModeArg::Snp);
    if more {
        return Err(MeasureCommandError::Usage(
            "an IGVM file says all that is measured: give no vCPUs, kernel, key, features or mode",
        ));
    }
    let bytes = read(&args.firmware, MAX_FIRMWARE as u64)?;
    let measured = Igvm::measure(&bytes).map_err(|source| in_file(&args.firmware, source))?;
    for differs in &measured.kvm_differs {
        super::say(&format!("warning: QEMU launches another digest: {differs}"));
    }
    let measurement = Measurement {
        boot: 0,
        vcpus: None,
        digest: LaunchDigest::Snp(measured.digest),
    };
    Row::new(args, None, None, measurement)
}

/// Refuses arguments that the mode has no use for: whoever gives one expects it to count.
fn consistent(args: &MeasureArgs, mode: Mode) -> Result<(), MeasureCommandError> {
    let refuse = |text| Err(MeasureCommandError::Usage(text));
    if mode != Mode::Snp && (args.id_key.is_some() || args.policy_out.is_some()) {
        return refuse("ID blocks and policy files are for --mode snp only");
    }
    if matches!(args.mode, ModeArg::SnpOvmfHash) {
        let more = args.kernel.is_some()
            || args.id_key.is_some()
            || args.policy_out.is_some()
            || args.svsm.is_some()
            || args.snp_ovmf_hash.is_some()
            || args.json;
        return match more {
            true => refuse("--mode snp:ovmf-hash is of the firmware alone: give nothing else"),
            false => Ok(()),
        };
    }
    if args.snp_ovmf_hash.is_some() && !matches!(args.mode, ModeArg::Snp) {
        return refuse("--snp-ovmf-hash is for --mode snp only");
    }
    match (args.mode, &args.svsm) {
        (ModeArg::SnpSvsm, None) => return refuse("--mode snp:svsm needs --svsm"),
        (ModeArg::SnpSvsm, Some(_)) => {
            if args.kernel.is_some() || args.guest_features.is_some() || args.vmm != Vmm::Qemu {
                return refuse("--mode snp:svsm takes no --kernel, --guest-features or --vmm");
            }
            if args.vars_size.is_none() && args.vars_file.is_none() {
                return refuse("--mode snp:svsm needs --vars-size or --vars-file");
            }
        }
        (_, Some(_)) => return refuse("--svsm is for --mode snp:svsm only"),
        (_, None) => {}
    }
    if mode != Mode::Sev && args.vcpus.is_none() {
        return refuse("the vCPUs' state is measured: give --vcpus");
    }
    Ok(())
}

/// The SVSM, below the firmware.
fn svsm(args: &MeasureArgs, path: &Path, below: &Firmware) -> Result<Svsm, MeasureCommandError> {
    let variables = match (&args.vars_file, args.vars_size) {
        (Some(path), _) => {
            let metadata = std::fs::metadata(path).map_err(|source| file(path, source))?;
            metadata.len()
        }
        (None, size) => size.unwrap_or(0),
    };
    let image = read(path, MAX_FIRMWARE as u64)?;
    Svsm::parse(image, below, variables).map_err(|source| in_file(path, source))
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
        [] if !args.vmm.measures_cpu_type() => Ok(vec![(CpuSignature(0), "any".to_owned())]),
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

/// A virtual machine monitor, in any case.
fn vmm(text: &str) -> Result<Vmm, String> {
    let named = Vmm::ALL
        .into_iter()
        .find(|vmm| vmm.name().eq_ignore_ascii_case(text));
    named.ok_or_else(|| {
        let names: Vec<&str> = Vmm::ALL.into_iter().map(Vmm::name).collect();
        format!("known are {}", names.join(", "))
    })
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
