//! Everything that a report needs, in one directory, for a machine without a network.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cache::write_atomically;
use super::error::FetchError;
use super::fetcher::Fetcher;
use crate::cert::Certificate;
use crate::chain::signed_report;
use crate::report::{Report, SigningKey};
use crate::source::Wanted;
use crate::time::UnixTime;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The files, leaf first.
    pub files: Vec<PathBuf>,
    /// When the revocation list ends to be valid: the bundle should be made again before.
    pub crl_until: Option<UnixTime>,
}

/// Writes the leaf, its chain and the revocation list of `report` to `directory`. Certificates
/// `at_hand` (from an extended report, say) are used before any is fetched; a VLEK can only come
/// from there.
///
/// # Errors
/// When a document can't be had, which leaves the directory untouched, or can't be written.
pub fn bundle(
    fetcher: &Fetcher,
    report: &Report,
    at_hand: &[Certificate],
    directory: &Path,
    now: UnixTime,
) -> Result<Bundle, FetchError> {
    let wanted = Wanted::of(report).ok_or(FetchError::UnsignedReport)?;
    let key = wanted.signing_key;
    let at_hand = at_hand.iter().filter_map(|certificate| {
        let wanted = of_chip(certificate, report, wanted);
        fetcher.trust().leaf(certificate.der(), &wanted).ok()
    });
    // of equals the first one
    let mut at_hand: Vec<Certificate> = at_hand.collect();
    at_hand.sort_by_key(|leaf| !leaf.is_valid_at(now));
    let leaf = match at_hand.into_iter().next() {
        Some(leaf) if key == SigningKey::Vlek || leaf.is_valid_at(now) => leaf,
        None if key == SigningKey::Vlek => return Err(FetchError::VlekNotPublic),
        // one that has run out serves where no other is to be had
        old => match (fetcher.leaf(&wanted, now), old) {
            (Ok(Some(found)), _) => found.document,
            (_, Some(old)) => old,
            (Ok(None), None) => return Err(fetcher.no_such_key()),
            (Err(error), None) => return Err(error),
        },
    };
    let product = match leaf.endorsement() {
        Ok(extensions) => extensions.product,
        Err(_) => return Err(fetcher.no_such_key()),
    };
    let chain = match fetcher.chain(product, key)? {
        Some(found) => found.document,
        None => return Err(FetchError::Offline("the certificate chain")),
    };
    let Some(crl) = fetcher.crl(product, key, now)? else {
        return Err(FetchError::Offline("the revocation list"));
    };
    let crl = crl.document;

    let name = match key {
        SigningKey::Vcek => "vcek.der",
        SigningKey::Vlek => "vlek.der",
    };
    let chain: String = chain.iter().map(|c| pem("CERTIFICATE", c.der())).collect();
    let contents: [(&str, &[u8]); 3] = [
        (name, leaf.der()),
        ("cert_chain.pem", chain.as_bytes()),
        ("crl.der", crl.der()),
    ];
    let mut files = Vec::with_capacity(contents.len());
    for (name, bytes) in contents {
        let path = directory.join(name);
        write_atomically(&path, bytes)?;
        files.push(path);
    }
    Ok(Bundle {
        files,
        crl_until: crl.next_update(),
    })
}

/// What is wanted, of the certificate's chip where the report masks its own and the certificate's
/// key signed it.
fn of_chip(certificate: &Certificate, report: &Report, mut wanted: Wanted) -> Wanted {
    if let Ok(extensions) = certificate.endorsement()
        && let Some(hwid) = &extensions.hwid
        && wanted.chip_id.is_zero()
        && signed_report(certificate, report)
        && let Some(id) = wanted.chip_id.0.get_mut(..hwid.len())
    {
        id.copy_from_slice(hwid);
    }
    wanted
}

/// A PEM block.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}
