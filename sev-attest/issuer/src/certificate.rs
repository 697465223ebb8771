//! Certificates and revocation lists, every part of which can be bent.

use sev_attest::product::{Product, TcbLayout};

use crate::CSP_ID;
use crate::der::{SHA384, bits, element, ia5, integer, name, octets, oid, pss, sequence, utc_time};
use crate::key::{LeafKey, RsaKey};
pub use crate::key::{Scheme, ec_spki};
use crate::report::ReportSpec;

/// Start of validity of all that is issued, as UTCTime.
pub const NOT_BEFORE: &str = "250101000000Z";
/// End of validity.
pub const NOT_AFTER: &str = "450101000000Z";

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Identifier, dotted.
    pub oid: String,
    /// Whether it is critical.
    pub critical: bool,
    /// Its value, without the OCTET STRING around it.
    pub value: Vec<u8>,
}

impl Extension {
    /// An extension.
    #[must_use]
    pub fn new(oid: &str, critical: bool, value: Vec<u8>) -> Self {
        Self {
            oid: oid.to_owned(),
            critical,
            value,
        }
    }

    fn to_der(&self) -> Vec<u8> {
        let critical = if self.critical {
            element(0x01, &[0xff])
        } else {
            Vec::new()
        };
        sequence(&[&oid(&self.oid), &critical, &octets(&self.value)])
    }

    /// Basic constraints of an authority.
    #[must_use]
    pub fn ca(path_len: Option<u8>) -> Self {
        let path_len = path_len.map(|len| integer(&[len])).unwrap_or_default();
        let value = sequence(&[&element(0x01, &[0xff]), &path_len]);
        Self::new("2.5.29.19", true, value)
    }

    /// Key usage, as the content of the BIT STRING: unused bits, then the bits.
    #[must_use]
    pub fn key_usage(content: &[u8]) -> Self {
        Self::new("2.5.29.15", true, element(0x03, content))
    }
}

/// A certificate to be.
#[derive(Debug, Clone)]
pub struct CertSpec {
    /// X.509 version, less one.
    pub version: u8,
    /// Common name of the subject.
    pub subject: String,
    /// Common name of the issuer.
    pub issuer: String,
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// Start of validity, UTCTime.
    pub not_before: String,
    /// End of validity, UTCTime.
    pub not_after: String,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The signed AlgorithmIdentifier, DER.
    pub algorithm: Vec<u8>,
    /// The unsigned one, where it differs.
    pub outer_algorithm: Option<Vec<u8>>,
    /// How it is signed in truth.
    pub scheme: Scheme,
    /// Extensions.
    pub extensions: Vec<Extension>,
}

const KEY_CERT_SIGN: [u8; 2] = [2, 0x04];
const KEY_CERT_AND_CRL_SIGN: [u8; 2] = [1, 0x06];

impl CertSpec {
    /// A certificate without extensions.
    #[must_use]
    pub fn new(subject: &str, issuer: &str, spki: Vec<u8>) -> Self {
        Self {
            version: 2,
            subject: subject.to_owned(),
            issuer: issuer.to_owned(),
            serial: vec![0],
            not_before: NOT_BEFORE.to_owned(),
            not_after: NOT_AFTER.to_owned(),
            spki,
            algorithm: pss(SHA384, 48),
            outer_algorithm: None,
            scheme: Scheme::PssSha384,
            extensions: Vec::new(),
        }
    }

    fn authority(subject: &str, product: Product, serial: [u8; 3], key: &RsaKey) -> Self {
        let mut spec = Self::new(subject, &format!("ARK-{product}"), key.spki());
        spec.serial = serial.to_vec();
        spec
    }

    /// An ARK.
    #[must_use]
    pub fn ark(product: Product, key: &RsaKey) -> Self {
        let mut spec = Self::authority(&format!("ARK-{product}"), product, [9, 0, 0], key);
        spec.extensions = vec![
            Extension::key_usage(&KEY_CERT_AND_CRL_SIGN),
            Extension::ca(None),
        ];
        spec
    }

    /// An ASK.
    #[must_use]
    pub fn ask(product: Product, key: &RsaKey) -> Self {
        let mut spec = Self::authority(&format!("SEV-{product}"), product, [9, 0, 1], key);
        spec.extensions = vec![Extension::ca(Some(0)), Extension::key_usage(&KEY_CERT_SIGN)];
        spec
    }

    /// An ASVK.
    #[must_use]
    pub fn asvk(product: Product, key: &RsaKey) -> Self {
        let mut spec = Self::authority(&format!("SEV-VLEK-{product}"), product, [9, 1, 1], key);
        spec.extensions = vec![Extension::ca(Some(0)), Extension::key_usage(&KEY_CERT_SIGN)];
        spec
    }

    /// A VCEK for a report's chip and reported TCB.
    #[must_use]
    pub fn vcek(report: &ReportSpec, key: &LeafKey) -> Self {
        let product = report.product;
        let mut spec = Self::new("SEV-VCEK", &format!("SEV-{product}"), key.spki());
        spec.extensions = endorsement(report);
        let hwid = report.chip_id[..product.hwid_len()].to_vec();
        spec.extensions.push(Extension::new(&amd("4"), false, hwid));
        spec
    }

    /// A VLEK for a report's reported TCB.
    #[must_use]
    pub fn vlek(report: &ReportSpec, key: &LeafKey) -> Self {
        let product = report.product;
        let mut spec = Self::new("SEV-VLEK", &format!("SEV-VLEK-{product}"), key.spki());
        spec.serial = vec![0x51];
        spec.extensions = endorsement(report);
        spec.extensions
            .push(Extension::new(&amd("5"), false, ia5(CSP_ID)));
        spec
    }

    /// The extension with AMD's identifier under `1.3.6.1.4.1.3704.1`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn amd_extension(&mut self, id: &str) -> &mut Extension {
        let oid = amd(id);
        self.extensions
            .iter_mut()
            .find(|extension| extension.oid == oid)
            .unwrap()
    }

    /// Leaves out AMD's extension with this identifier.
    pub fn without_amd_extension(&mut self, id: &str) {
        let oid = amd(id);
        self.extensions.retain(|extension| extension.oid != oid);
    }

    /// The certificate, signed.
    #[must_use]
    pub fn sign(&self, key: &RsaKey) -> Vec<u8> {
        let version = match self.version {
            0 => Vec::new(),
            version => element(0xa0, &integer(&[version])),
        };
        let validity = sequence(&[&utc_time(&self.not_before), &utc_time(&self.not_after)]);
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::to_der).collect();
        let extensions = if extensions.is_empty() {
            Vec::new()
        } else {
            element(0xa3, &element(0x30, &extensions))
        };
        let tbs = sequence(&[
            &version,
            &integer(&self.serial),
            &self.algorithm,
            &name(&self.issuer),
            &validity,
            &name(&self.subject),
            &self.spki,
            &extensions,
        ]);
        let outer = self.outer_algorithm.as_ref().unwrap_or(&self.algorithm);
        sequence(&[&tbs, outer, &bits(&key.sign(&tbs, self.scheme))])
    }
}

/// AMD's identifier.
#[must_use]
pub fn amd(id: &str) -> String {
    format!("1.3.6.1.4.1.3704.1.{id}")
}

/// What VCEKs and VLEKs share.
fn endorsement(report: &ReportSpec) -> Vec<Extension> {
    let tcb = report.reported_tcb;
    let number = |id: &str, value: u8| Extension::new(&amd(id), false, integer(&[value]));
    let layout = report.product.tcb_layout();
    let name = match report.product {
        Product::Milan => "Milan-B0",
        Product::Genoa => "Genoa",
        Product::Turin => "Turin",
    };
    let mut extensions = vec![
        number("1", u8::from(layout == TcbLayout::Turin)),
        Extension::new(&amd("2"), false, ia5(name)),
    ];
    if layout == TcbLayout::Turin {
        extensions.push(number("3.9", tcb.fmc.unwrap_or(0)));
    }
    extensions.extend([number("3.1", tcb.boot_loader), number("3.2", tcb.tee)]);
    let reserved: &[&str] = match layout {
        TcbLayout::MilanGenoa => &["3.4", "3.5", "3.6", "3.7"],
        TcbLayout::Turin => &["3.5", "3.6", "3.7"],
    };
    extensions.extend(reserved.iter().map(|id| number(id, 0)));
    extensions.extend([number("3.3", tcb.snp), number("3.8", tcb.microcode)]);
    extensions
}

/// A revocation list to be.
#[derive(Debug, Clone)]
pub struct CrlSpec {
    /// Common name of the issuer.
    pub issuer: String,
    /// When it is made, UTCTime.
    pub this_update: String,
    /// When the next one comes, UTCTime.
    pub next_update: Option<String>,
    /// Serial numbers, big-endian.
    pub revoked: Vec<Vec<u8>>,
    /// Extensions of the list.
    pub extensions: Vec<Extension>,
}

impl CrlSpec {
    /// A list of a product's ARK.
    #[must_use]
    pub fn new(product: Product) -> Self {
        Self {
            issuer: format!("ARK-{product}"),
            this_update: NOT_BEFORE.to_owned(),
            next_update: Some(NOT_AFTER.to_owned()),
            revoked: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The list, signed.
    #[must_use]
    pub fn sign(&self, key: &RsaKey) -> Vec<u8> {
        let algorithm = pss(SHA384, 48);
        let entries: Vec<u8> = self
            .revoked
            .iter()
            .flat_map(|serial| sequence(&[&integer(serial), &utc_time(NOT_BEFORE)]))
            .collect();
        let entries = if entries.is_empty() {
            entries
        } else {
            element(0x30, &entries)
        };
        let next = self
            .next_update
            .as_deref()
            .map(utc_time)
            .unwrap_or_default();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(Extension::to_der).collect();
        let extensions = if extensions.is_empty() {
            extensions
        } else {
            element(0xa0, &element(0x30, &extensions))
        };
        let tbs = sequence(&[
            &integer(&[1]),
            &algorithm,
            &name(&self.issuer),
            &utc_time(&self.this_update),
            &next,
            &entries,
            &extensions,
        ]);
        sequence(&[&tbs, &algorithm, &bits(&key.sign(&tbs, Scheme::PssSha384))])
    }
}
