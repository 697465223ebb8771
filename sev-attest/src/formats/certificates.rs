//! Certificates and revocation lists as DER, one after another, and as PEM.

use super::{Bundle, FormatError, MAX_CERTIFICATES, pem};
use crate::cert::{Certificate, Crl};

/// The elements of DER, one after another.
pub(super) fn elements(mut bytes: &[u8]) -> Result<Vec<&[u8]>, FormatError> {
    let unknown = || FormatError::Unknown("DER with something else after it".to_owned());
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        if elements.len() == MAX_CERTIFICATES {
            return Err(FormatError::TooMany);
        }
        let len = der_len(bytes).ok_or_else(unknown)?;
        let (one, rest) = bytes.split_at_checked(len).ok_or_else(unknown)?;
        elements.push(one);
        bytes = rest;
    }
    Ok(elements)
}

/// Length of the DER element that starts here, header included.
fn der_len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0x30, len @ 0..=0x7f, ..] => Some(2 + usize::from(len)),
        [0x30, 0x81, a, ..] => Some(3 + usize::from(a)),
        [0x30, 0x82, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([a, b]))),
        [0x30, 0x83, a, b, c, ..] => usize::try_from(u32::from_be_bytes([0, a, b, c]))
            .ok()?
            .checked_add(5),
        _ => None,
    }
}

/// Certificates and revocation lists in DER or PEM, without a report in any of them.
pub(super) fn plain(bytes: &[u8]) -> Result<Bundle, FormatError> {
    let mut bundle = Bundle::default();
    if bytes.first() == Some(&0x30) {
        for element in elements(bytes)? {
            match Certificate::parse(element) {
                Ok(certificate) => bundle.certificates.push(certificate),
                Err(error) => match Crl::parse(element) {
                    Ok(crl) => bundle.crls.push(crl),
                    Err(_) => return Err(error.into()),
                },
            }
        }
        return Ok(bundle);
    }
    for block in pem::blocks(bytes)? {
        match block.label.as_str() {
            "CERTIFICATE" => bundle.certificates.push(Certificate::parse(&block.der)?),
            "X509 CRL" => bundle.crls.push(Crl::parse(&block.der)?),
            _ => {}
        }
    }
    if bundle.is_empty() {
        return Err(FormatError::Other("PEM without a certificate"));
    }
    Ok(bundle)
}
