//! An issuer of simulated SEV-SNP evidence: authorities of its own, VCEKs and VLEKs with the true
//! extension layout, reports of any product and version, revocation lists.
//!
//! For tests only. It is a crate of its own that nothing but tests depends on, so that no released
//! program can hold it. What it issues is refused by every verifier that is not told to accept a
//! foreign root.
//!
//! ```
//! use sev_attest_issuer::{Issuer, ReportSpec};
//! use sev_attest::product::Product;
//!
//! let issuer = Issuer::new(Product::Genoa);
//! let spec = ReportSpec::new(Product::Genoa);
//! let vcek = issuer.vcek(&spec);
//! let report = vcek.sign(spec.to_bytes());
//! let chain = issuer.chain(&vcek);
//! assert!(chain.leaf_signed_report(&sev_attest::report::Report::parse(&report).unwrap()));
//! ```

// Fixed inputs can't fail; whatever does is a test's failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod certificate;
pub mod der;
mod key;
mod report;
pub mod table;

pub use certificate::{CertSpec, CrlSpec, Extension};
pub use key::{LeafKey, RsaKey};
pub use report::{REPORT_LEN, ReportSpec, SIGNED_LEN};

use sev_attest::cert::Certificate;
use sev_attest::chain::Chain;
use sev_attest::product::Product;

/// The CSP id of simulated VLEKs.
pub const CSP_ID: &str = "simulated-csp";

/// A simulated ARK with its ASK and ASVK.
#[derive(Debug)]
pub struct Issuer {
    /// The product that all is for.
    pub product: Product,
    /// The root's certificate, in DER.
    pub ark: Vec<u8>,
    /// The ASK's certificate, in DER.
    pub ask: Vec<u8>,
    /// The ASVK's certificate, in DER.
    pub asvk: Vec<u8>,
}

/// A simulated leaf: certificate and key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate, in DER.
    pub der: Vec<u8>,
    /// The key.
    pub key: LeafKey,
    /// Whether it is a VLEK.
    pub vlek: bool,
}

impl Leaf {
    /// Signs a report: the signature field is overwritten.
    #[must_use]
    pub fn sign(&self, report: [u8; REPORT_LEN]) -> [u8; REPORT_LEN] {
        self.key.sign_report(report)
    }
}

impl Issuer {
    /// An issuer for a product. The keys are the same for all products.
    #[must_use]
    pub fn new(product: Product) -> Self {
        let (ark, ask, asvk) = (RsaKey::ark(), RsaKey::ask(), RsaKey::asvk());
        Self {
            product,
            ark: CertSpec::ark(product, &ark).sign(&ark),
            ask: CertSpec::ask(product, &ask).sign(&ark),
            asvk: CertSpec::asvk(product, &asvk).sign(&ark),
        }
    }

    /// A VCEK for the chip and the reported TCB of `report`.
    #[must_use]
    pub fn vcek(&self, report: &ReportSpec) -> Leaf {
        let key = LeafKey::default();
        Leaf {
            der: CertSpec::vcek(report, &key).sign(&RsaKey::ask()),
            key,
            vlek: false,
        }
    }

    /// A VLEK for the reported TCB of `report`.
    #[must_use]
    pub fn vlek(&self, report: &ReportSpec) -> Leaf {
        let key = LeafKey::new(9);
        Leaf {
            der: CertSpec::vlek(report, &key).sign(&RsaKey::asvk()),
            key,
            vlek: true,
        }
    }

    /// The chain over a leaf.
    #[must_use]
    pub fn chain(&self, leaf: &Leaf) -> Chain {
        let above = if leaf.vlek { &self.asvk } else { &self.ask };
        let parse = |der: &[u8]| Certificate::parse(der).unwrap();
        Chain::new(parse(&self.ark), parse(above), parse(&leaf.der))
    }
}
