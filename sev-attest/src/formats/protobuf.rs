//! Attestations of go-sev-guest (`sevsnp.Attestation`), and of go-tpm-tools around them
//! (`attest.Attestation`), in protocol buffers.

use std::collections::BTreeMap;

use prost::Message;

use super::fields::Builder;

/// go-sev-guest's `Report`.
#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    guest_svn: u32,
    #[prost(uint64, tag = "3")]
    policy: u64,
    #[prost(bytes = "vec", tag = "4")]
    family_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    image_id: Vec<u8>,
    #[prost(uint32, tag = "6")]
    vmpl: u32,
    #[prost(uint32, tag = "7")]
    signature_algo: u32,
    #[prost(uint64, tag = "8")]
    current_tcb: u64,
    #[prost(uint64, tag = "9")]
    platform_info: u64,
    #[prost(uint32, tag = "10")]
    signer_info: u32,
    #[prost(bytes = "vec", tag = "11")]
    report_data: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    measurement: Vec<u8>,
    #[prost(bytes = "vec", tag = "13")]
    host_data: Vec<u8>,
    #[prost(bytes = "vec", tag = "14")]
    id_key_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "15")]
    author_key_digest: Vec<u8>,
    #[prost(bytes = "vec", tag = "16")]
    report_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "17")]
    report_id_ma: Vec<u8>,
    #[prost(uint64, tag = "18")]
    reported_tcb: u64,
    #[prost(bytes = "vec", tag = "19")]
    chip_id: Vec<u8>,
    #[prost(uint64, tag = "20")]
    committed_tcb: u64,
    #[prost(uint32, tag = "21")]
    current_build: u32,
    #[prost(uint32, tag = "22")]
    current_minor: u32,
    #[prost(uint32, tag = "23")]
    current_major: u32,
    #[prost(uint32, tag = "24")]
    committed_build: u32,
    #[prost(uint32, tag = "25")]
    committed_minor: u32,
    #[prost(uint32, tag = "26")]
    committed_major: u32,
    #[prost(uint64, tag = "27")]
    launch_tcb: u64,
    #[prost(bytes = "vec", tag = "28")]
    signature: Vec<u8>,
    /// CPUID(1).EAX of the processor.
    #[prost(uint32, tag = "29")]
    cpuid1eax_fms: u32,
    #[prost(uint64, tag = "30")]
    launch_mit_vector: u64,
    #[prost(uint64, tag = "31")]
    current_mit_vector: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CertificateChain {
    #[prost(bytes = "vec", tag = "1")]
    vcek_cert: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    ask_cert: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ark_cert: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    vlek_cert: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "7")]
    extras: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Attestation {
    #[prost(message, optional, tag = "1")]
    report: Option<Report>,
    #[prost(message, optional, tag = "2")]
    certificate_chain: Option<CertificateChain>,
}

/// go-tpm-tools' `Attestation`; of the vTPM's part nothing is read.
#[derive(Clone, PartialEq, Message)]
struct TpmAttestation {
    #[prost(message, optional, tag = "8")]
    sev_snp_attestation: Option<Attestation>,
    #[prost(bytes = "vec", optional, tag = "9")]
    tdx_attestation: Option<Vec<u8>>,
}

/// What such a message holds.
pub(super) enum Found {
    /// A report, and certificates by their names.
    Report {
        report: Vec<u8>,
        certificates: Vec<(String, Vec<u8>)>,
    },
    /// A quote of Intel TDX beside a vTPM's.
    Tdx,
}

/// Reads one of the messages; `None` for bytes that are none of them.
pub(super) fn read(bytes: &[u8]) -> Option<Found> {
    let attestation = Attestation::decode(bytes).ok().and_then(of_attestation);
    if attestation.is_some() {
        return attestation;
    }
    let report = Report::decode(bytes).ok().and_then(|r| assemble(&r));
    if let Some(report) = report {
        return Some(Found::Report {
            report,
            certificates: Vec::new(),
        });
    }
    let message = TpmAttestation::decode(bytes).ok()?;
    match (message.sev_snp_attestation, message.tdx_attestation) {
        (Some(attestation), _) => of_attestation(attestation),
        (None, Some(quote)) if quote.len() > 1000 => Some(Found::Tdx),
        (None, _) => None,
    }
}

fn of_attestation(attestation: Attestation) -> Option<Found> {
    let report = assemble(&attestation.report?)?;
    let chain = attestation.certificate_chain.unwrap_or_default();
    let mut certificates = vec![
        ("vcek_cert".to_owned(), chain.vcek_cert),
        ("vlek_cert".to_owned(), chain.vlek_cert),
        ("ask_cert".to_owned(), chain.ask_cert),
        ("ark_cert".to_owned(), chain.ark_cert),
    ];
    certificates.extend(chain.extras);
    certificates.retain(|(_, bytes)| !bytes.is_empty());
    Some(Found::Report {
        report,
        certificates,
    })
}

/// The bytes of the report; `None` where a field has not its length.
fn assemble(report: &Report) -> Option<Vec<u8>> {
    let mut b = Builder::new();
    for (offset, field, len) in [
        (0x010, &report.family_id, 16),
        (0x020, &report.image_id, 16),
        (0x050, &report.report_data, 64),
        (0x090, &report.measurement, 48),
        (0x0c0, &report.host_data, 32),
        (0x0e0, &report.id_key_digest, 48),
        (0x110, &report.author_key_digest, 48),
        (0x140, &report.report_id, 32),
        (0x160, &report.report_id_ma, 32),
        (0x1a0, &report.chip_id, 64),
        (0x2a0, &report.signature, 512),
    ] {
        if field.len() != len {
            return None;
        }
        b.put(offset, field);
    }
    for (offset, field) in [
        (0x000, report.version),
        (0x004, report.guest_svn),
        (0x030, report.vmpl),
        (0x034, report.signature_algo),
        (0x048, report.signer_info),
    ] {
        b.put(offset, &field.to_le_bytes());
    }
    for (offset, field) in [
        (0x008, report.policy),
        (0x038, report.current_tcb),
        (0x040, report.platform_info),
        (0x180, report.reported_tcb),
        (0x1e0, report.committed_tcb),
        (0x1f0, report.launch_tcb),
        (0x1f8, report.launch_mit_vector),
        (0x200, report.current_mit_vector),
    ] {
        b.put(offset, &field.to_le_bytes());
    }
    for (offset, field) in [
        (0x1e8, report.current_build),
        (0x1e9, report.current_minor),
        (0x1ea, report.current_major),
        (0x1ec, report.committed_build),
        (0x1ed, report.committed_minor),
        (0x1ee, report.committed_major),
    ] {
        b.put(offset, &[u8::try_from(field).ok()?]);
    }
    // Extended family and model, family, model, stepping, as CPUID gives them.
    let [low, second, third, top] = report.cpuid1eax_fms.to_le_bytes();
    let family = (second & 0xf).checked_add((third >> 4) | (top << 4))?;
    let model = (third << 4) | (low >> 4);
    if report.cpuid1eax_fms != 0 {
        b.put(0x188, &[family, model, low & 0xf]);
    }
    Some(b.into_bytes())
}
