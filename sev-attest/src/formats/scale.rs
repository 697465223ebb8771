//! dstack's attestations: `VersionedAttestation` in SCALE, Substrate's encoding.

use parity_scale_codec::Decode;

use super::tee::OtherTee;

/// The head of an attestation, as far as its quote. What follows (events, configuration and a copy
/// of the report data) is bound by the report in dstack's own ways, and is not looked at.
#[derive(Decode)]
enum Versioned {
    #[codec(index = 0)]
    V0(Quote),
}

#[derive(Decode)]
enum Quote {
    #[codec(index = 0)]
    Tdx(Vec<u8>),
    #[codec(index = 1)]
    GcpTdx(Vec<u8>),
    #[codec(index = 2)]
    Nitro(Vec<u8>),
    #[codec(index = 3)]
    SevSnp {
        report: Vec<u8>,
        cert_chain: Vec<Vec<u8>>,
    },
}

/// What such an attestation holds.
pub(super) enum Found {
    /// A report and certificates.
    Report {
        report: Vec<u8>,
        certificates: Vec<Vec<u8>>,
    },
    /// Evidence of something else.
    Other(OtherTee),
}

/// Reads one; `None` for bytes that are none.
pub(super) fn read(bytes: &[u8]) -> Option<Found> {
    let Versioned::V0(quote) = Versioned::decode(&mut &*bytes).ok()?;
    match quote {
        Quote::SevSnp { report, cert_chain } => Some(Found::Report {
            report,
            certificates: cert_chain,
        }),
        Quote::Tdx(quote) | Quote::GcpTdx(quote) => {
            let (tee, _) = super::tee::of_bytes(&quote)?;
            Some(Found::Other(tee))
        }
        Quote::Nitro(document) => {
            let (tee, _) = super::tee::of_bytes(&document)?;
            Some(Found::Other(tee))
        }
    }
}
