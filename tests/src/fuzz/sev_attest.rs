//! Fuzz targets of `sev-attest`.

use std::sync::OnceLock;

use sev_attest::appraise::appraise_evidence;
use sev_attest::assemble;
use sev_attest::cert::{Certificate, Crl};
use sev_attest::chain::Chain;
use sev_attest::channel::{v1, v2};
use sev_attest::formats;
use sev_attest::measure::{CpuSignature, Firmware, KernelHashes, Launch, Mode, Variants};
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::report::Report;
use sev_attest::show;
use sev_attest::testing;
use sev_attest::time::UnixTime;

/// A firmware image: parsed as a whole and page by page, and measured in every mode.
///
/// # Panics
/// When the two ways of reading accept different images or give different digests.
pub fn ovmf_metadata(data: &[u8]) {
    let whole = Firmware::parse(data.to_vec());
    let paged = Firmware::read_pages(data.len(), |offset, bytes| {
        let end = offset + bytes.len();
        bytes.copy_from_slice(
            data.get(offset..end)
                .ok_or(std::io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    });
    let Ok(whole) = whole else { return };
    let boots: Vec<_> = KernelHashes::new(b"kernel", None, "").into_iter().collect();
    for boots in [&boots[..], &[]] {
        let variants = Variants {
            boots,
            cpus: &[CpuSignature(0x0080_0f12)],
            vcpus: &[1, 3],
        };
        for mode in [Mode::Sev, Mode::SevEs] {
            let _ = Launch::new(&whole, mode).measure(&variants);
        }
        let snp = |firmware| Launch::new(firmware, Mode::Snp).measure(&variants);
        let one = snp(&whole);
        if let Ok(paged) = &paged {
            assert_eq!(one, snp(paged), "whole and page by page");
        }
    }
}

/// A real report's chain, verified once.
fn real_chain() -> Option<&'static Chain> {
    static CHAIN: OnceLock<Option<Chain>> = OnceLock::new();
    let vcek = include_bytes!("../../../sev-attest/tests/vectors/az-genoa-vcek.der");
    CHAIN
        .get_or_init(|| Chain::under_amd(Certificate::parse(vcek).ok()?))
        .as_ref()
}

/// A report in any form, with what comes along: read, shown and judged.
///
/// # Panics
/// When a report is genuine that no security processor signed.
pub fn report(data: &[u8]) {
    let Ok(evidence) = formats::read_report(data) else {
        return;
    };
    let report = &evidence.report;
    let _ = show::to_text(&show::report(report, None));
    let _ = show::to_json(&show::report(report, Some(Product::Turin)));
    let _ = evidence
        .binding
        .as_ref()
        .map(|b| show::to_text(&show::binding(b)));
    // The time lies in the validity of the real certificate.
    let at = UnixTime(1_780_000_000);
    let chain = assemble::chain(report, &evidence.bundle, at);
    for chain in [None, chain.as_ref(), real_chain()] {
        let appraisal = appraise_evidence(&evidence, chain, &Policy::default(), at);
        let _ = (appraisal.to_text(), appraisal.to_json());
        assert!(
            !appraisal.is_genuine() || is_real(report),
            "a forged report is genuine: {report:?}"
        );
    }
}

/// Whether a report is one of those in the corpora.
fn is_real(report: &Report) -> bool {
    static REAL: OnceLock<Vec<Report>> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        let inputs: [&[u8]; 7] = [
            include_bytes!("../../../sev-attest/tests/vectors/az-genoa-report.bin"),
            include_bytes!("../../../sev-attest/tests/vectors/az-milan-v3-report.bin"),
            include_bytes!("../../../sev-attest/tests/vectors/ms-turin-report.bin"),
            include_bytes!("../../../sev-attest/tests/vectors/forms/vcek_chain_pem.json"),
            include_bytes!("../../../sev-attest/tests/vectors/forms/dstack.json"),
            include_bytes!("../../../sev-attest/tests/vectors/forms/go-sev-guest.proto.bin"),
            include_bytes!("../../../sev-attest/tests/vectors/forms/sevsnp-tsm-report.cbor"),
        ];
        let read = |bytes: &&[u8]| formats::read_report(bytes).ok();
        inputs.iter().filter_map(read).map(|e| e.report).collect()
    });
    real.contains(report)
}

/// Evidence in JSON, in all that people have it in.
///
/// # Panics
/// As [`report`]; and when what is read twice differs.
pub fn evidence_json(data: &[u8]) {
    report(data);
    assert_eq!(formats::read_report(data), formats::read_report(data));
}

/// Evidence in binary containers: CBOR, MessagePack, SCALE, protocol buffers, gzip, Azure's, a
/// message of the firmware.
///
/// # Panics
/// As [`report`]; and when hex of it is read as something else.
pub fn evidence_container(data: &[u8]) {
    report(data);
    if let Ok(bare) = formats::read_report(data)
        && let Ok(encoded) = formats::read_report(hex::encode(data).as_bytes())
    {
        assert_eq!(bare.report, encoded.report);
        assert_eq!(bare.binding, encoded.binding);
    }
}

/// Certificates with a report in an extension.
///
/// # Panics
/// As [`report`].
pub fn evidence_certificate(data: &[u8]) {
    report(data);
    let _ = formats::read_certificates(data);
}

/// A certificate table, alone and after a report.
///
/// # Panics
/// When the two are read differently.
pub fn certificate_table(data: &[u8]) {
    let alone = testing::table::read(data);
    let report = include_bytes!("../../../sev-attest/tests/vectors/az-genoa-report.bin");
    let extended = formats::read_report(&[report, data].concat());
    if !data.is_empty() {
        assert_eq!(
            alone.ok(),
            extended.ok().map(|evidence| evidence.bundle),
            "a table alone and after a report"
        );
    }
}

/// Certificates and revocation lists, in DER and in containers.
///
/// # Panics
/// When a certificate is not kept byte by byte.
pub fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.der(), data);
        let _ = show::to_text(&show::certificate(&certificate));
        let chain = Chain::new(certificate.clone(), certificate.clone(), certificate);
        let _ = (chain.roles_fit(), chain.leaf_key());
    }
    if let Ok(crl) = Crl::parse(data) {
        assert_eq!(crl.der(), data);
        let _ = show::to_text(&show::crl(&crl));
    }
    let _ = formats::read_certificates(data);
}

/// A policy file.
///
/// # Panics
/// When a file without keys is not the default.
pub fn policy_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(policy) = Policy::from_toml(text) {
        let no_keys = text
            .lines()
            .all(|line| line.trim().is_empty() || line.starts_with('#'));
        assert!(!no_keys || policy == Policy::default());
    }
}

/// A message of the attested channel, as each side and version would read it.
///
/// # Panics
/// When what was read and written again is read as something else.
pub fn channel_message(data: &[u8]) {
    if let Ok(report) = v1::read_evidence(data) {
        let written = v1::write_evidence(&report);
        assert!(v1::read_evidence(&written).is_ok_and(|again| again == report));
    }
    if let Ok((secrets, signature)) = v1::read_envelope(data) {
        // Text came in, so text goes out; only the signature may be one that JSON has to escape.
        assert!(v1::owner_text(data, &secrets).is_some());
        if signature.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let written = v1::write_envelope(&secrets, &signature);
            let again = written.map(|written| v1::read_envelope(&written));
            assert!(matches!(again, Some(Ok(again)) if again == (secrets, signature)));
        }
    }
    let _ = v1::read_injected(data);
    if let Ok(nonce) = v2::read_question(data) {
        let again = v2::read_question(&v2::write_question(&nonce));
        assert!(again.is_ok_and(|again| again == nonce));
    }
    if let Ok((report, table)) = v2::read_answer(data) {
        let written = v2::write_answer(&report, &table);
        let again = written.and_then(|written| v2::read_answer(&written));
        assert!(again.is_ok_and(|again| again == (report, table)));
    }
    if let Ok((secrets, signature)) = v2::read_envelope(data) {
        let written = v2::write_envelope(&secrets, &signature);
        let again = written.and_then(|written| v2::read_envelope(&written));
        assert!(again.is_ok_and(|again| again == (secrets, signature)));
    }
}
