//! What a confidential guest is launched from: read once, measured, written down.
//!
//! Firmware, kernel and initial RAM disk are read into sealed memory. The launch digest is
//! predicted from those bytes, which are the ones that QEMU opens, and a launch that would
//! differ from what was asked for is refused here, before there is a process. All of it
//! is in the record, which the guest's owner recomputes: `sev-attest measure --from`.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sev_attest::{
    hex_bytes::HexBytes,
    measure::{
        FileRecord, Firmware, GuestPolicy, IdBlock, IdentityRecord, KernelRecord, LaunchRecord,
        MAX_FIRMWARE, MeasureError, RecordError,
    },
};

use super::{
    plan::{DirectKernel, Identity, NamedCpu, SevHost, Snp},
    sealed::SealedFile,
};

/// Largest kernel and initial RAM disk, bytes: QEMU hands on their lengths in 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;

/// An SNP guest that is asked for.
#[derive(Debug, Clone)]
pub struct SnpRequest {
    /// The firmware.
    pub firmware: PathBuf,
    /// The kernel of a measured direct boot.
    pub kernel: Option<KernelFiles>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Their model.
    pub cpu: NamedCpu,
    /// The policy.
    pub policy: GuestPolicy,
    /// What the guest's reports say of the host's data.
    pub host_data: [u8; 32],
    /// Who says what may be launched.
    pub identity: IdentityRequest,
    /// The launch digests that its owner takes; empty when none was named.
    pub expected: Vec<[u8; 48]>,
}

/// The files of a measured direct boot.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
}

/// Whose ID block a launch is held to.
#[derive(Debug, Clone)]
pub enum IdentityRequest {
    /// There is none.
    None,
    /// One without a private key, for what is launched.
    Keyless,
    /// The owner's.
    Owners(Identity),
}

/// A guest that is as it was asked for.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What is launched.
    pub snp: Snp,
    /// The same for its owner.
    pub record: LaunchRecord,
}

/// Why a guest is not launched.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The firmware is none for such guests.
    #[error("{path}: {source}")]
    Firmware {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MeasureError,
    },
    /// It cannot be measured, or the ID block is for another launch.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The digest is none that was asked for.
    #[error("the guest's launch digest would be {0}, which was not asked for")]
    Unexpected(HexBytes<48>),
}

/// Reads what is to be launched and predicts its digest. Blocks for reading and hashing.
///
/// # Errors
/// [`PrepareError`]: it is not launched then.
pub fn prepare(request: &SnpRequest, host: SevHost) -> Result<Prepared, PrepareError> {
    let firmware = read(&request.firmware, MAX_FIRMWARE as u64)?;
    let kernel = request.kernel.as_ref().map(read_kernel).transpose()?;
    let image = firmware.bytes().map_err(|source| PrepareError::File {
        path: request.firmware.clone(),
        source,
    })?;
    let image = Firmware::parse(image).map_err(|source| PrepareError::Firmware {
        path: request.firmware.clone(),
        source,
    })?;
    let mut record = LaunchRecord::new(
        file_record(&firmware),
        &image,
        kernel.as_ref().map(kernel_record),
        (request.vcpus, request.cpu.name()),
        request.policy,
        request.host_data,
    )?;
    let digest = record.launch_digest;
    if !request.expected.is_empty() && !request.expected.contains(&digest.0) {
        return Err(PrepareError::Unexpected(digest));
    }
    let identity = identity(&request.identity, digest.0, request.policy)?;
    record.id_block = identity.as_ref().map(|identity| IdentityRecord {
        block: STANDARD.encode(identity.block),
        auth: STANDARD.encode(identity.auth.as_slice()),
        author_key: identity.author_key,
    });
    // The firmware would refuse it only when all the rest is done.
    record.check_id_block()?;
    let snp = Snp {
        host,
        cpu: request.cpu.clone(),
        policy: request.policy,
        host_data: request.host_data,
        identity,
        firmware,
        kernel,
    };
    Ok(Prepared { snp, record })
}

fn identity(
    request: &IdentityRequest,
    launch_digest: [u8; 48],
    policy: GuestPolicy,
) -> Result<Option<Identity>, RecordError> {
    match request {
        IdentityRequest::None => Ok(None),
        IdentityRequest::Owners(identity) => Ok(Some(identity.clone())),
        IdentityRequest::Keyless => {
            let block = IdBlock {
                policy: policy.bits(),
                ..IdBlock::new(launch_digest)
            };
            let signed = block.sign_without_key()?;
            Ok(Some(Identity {
                block: signed.block,
                auth: signed.auth,
                author_key: false,
            }))
        }
    }
}

fn read(path: &Path, most: u64) -> Result<SealedFile, PrepareError> {
    SealedFile::read(path, most).map_err(|source| PrepareError::File {
        path: path.to_owned(),
        source,
    })
}

fn read_kernel(files: &KernelFiles) -> Result<DirectKernel, PrepareError> {
    let initrd = files.initrd.as_deref();
    Ok(DirectKernel {
        kernel: read(&files.kernel, LARGEST_FILE)?,
        initrd: initrd.map(|path| read(path, LARGEST_FILE)).transpose()?,
        cmdline: files.cmdline.clone(),
    })
}

fn file_record(file: &SealedFile) -> FileRecord {
    FileRecord {
        bytes: file.length(),
        sha256: HexBytes(file.sha256()),
    }
}

fn kernel_record(direct: &DirectKernel) -> KernelRecord {
    KernelRecord {
        kernel: file_record(&direct.kernel),
        initrd: direct.initrd.as_ref().map(file_record),
        cmdline: direct.cmdline.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that Debian's `ovmf` installs: SEV metadata, no place for kernel hashes.
    const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

    fn request() -> SnpRequest {
        SnpRequest {
            firmware: OVMF.into(),
            kernel: None,
            vcpus: 2,
            cpu: NamedCpu::new("EPYC-v4").unwrap(),
            policy: GuestPolicy::USUAL,
            host_data: [3; 32],
            identity: IdentityRequest::None,
            expected: Vec::new(),
        }
    }

    fn prepared(request: &SnpRequest) -> Result<Prepared, PrepareError> {
        let host = SevHost {
            device: "/dev/sev".into(),
            cbitpos: 51,
            reduced_phys_bits: 1,
        };
        prepare(request, host)
    }

    #[test]
    fn the_record_holds_for_what_is_launched() {
        let prepared = prepared(&request()).unwrap();
        let (snp, record) = (prepared.snp, prepared.record);
        let bytes = snp.firmware.bytes().unwrap();
        assert_eq!(bytes, std::fs::read(OVMF).unwrap());
        record.check(&bytes).unwrap();
        let again = LaunchRecord::parse(record.to_json().as_bytes()).unwrap();
        assert_eq!(again, record);
        assert_eq!((again.vcpus, again.host_data.0), (2, [3; 32]));
        assert_eq!(again.policy().unwrap(), GuestPolicy::USUAL);
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let digest = prepared(&request()).unwrap().record.launch_digest;
        let expecting = |expected| SnpRequest {
            expected,
            ..request()
        };
        assert!(prepared(&expecting(vec![[0; 48], digest.0])).is_ok());
        let refused = prepared(&expecting(vec![[0; 48]])).unwrap_err();
        assert!(matches!(refused, PrepareError::Unexpected(d) if d == digest));
        // One vCPU more is another guest.
        let more = SnpRequest {
            vcpus: 3,
            ..expecting(vec![digest.0])
        };
        assert!(matches!(prepared(&more), Err(PrepareError::Unexpected(_))));
        // This firmware would boot any kernel.
        let kernel = SnpRequest {
            kernel: Some(KernelFiles {
                kernel: OVMF.into(),
                initrd: None,
                cmdline: String::new(),
            }),
            ..request()
        };
        let refused = prepared(&kernel).unwrap_err().to_string();
        assert!(refused.contains("unmeasured"), "{refused}");
        for firmware in [
            "/nonexistent",
            "/dev/zero",
            "/usr/share/OVMF/OVMF_VARS_4M.fd",
        ] {
            let firmware = firmware.into();
            assert!(
                prepared(&SnpRequest {
                    firmware,
                    ..request()
                })
                .is_err()
            );
        }
    }

    #[test]
    fn an_id_block_is_for_this_launch() {
        let keyless = SnpRequest {
            identity: IdentityRequest::Keyless,
            ..request()
        };
        let prepared_once = prepared(&keyless).unwrap();
        let identity = prepared_once.snp.identity.unwrap();
        let digest = prepared_once.record.launch_digest.0;
        assert_eq!(identity.block[..48], digest);
        // As the owner's own: for this guest, and for no other.
        let owners = |vcpus, policy| SnpRequest {
            identity: IdentityRequest::Owners(identity.clone()),
            vcpus,
            policy: GuestPolicy::new(policy).unwrap(),
            ..request()
        };
        assert!(prepared(&owners(2, 0x3_0000)).is_ok());
        for (vcpus, policy, why) in [(1, 0x3_0000, "digest"), (2, 0xb_0000, "policy")] {
            let refused = prepared(&owners(vcpus, policy)).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }
}
