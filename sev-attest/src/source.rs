//! Where certificates come from.

use std::fmt;

use crate::cert::{Certificate, Crl};
use crate::product::Product;
use crate::report::{ChipId, Report, SigningKey};
use crate::tcb::TcbWord;
use crate::time::UnixTime;

/// The leaf certificate that a report needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Kind of key.
    pub signing_key: SigningKey,
    /// Product, where the report says it: reports of version 2 don't, and a source then tries each
    /// product that [`Wanted::products`] names.
    pub product: Option<Product>,
    /// The chip; zero where masked, and then no source can find a VCEK.
    pub chip_id: ChipId,
    /// The TCB that the key was derived from. Its layout is that of the product.
    pub reported_tcb: TcbWord,
}

impl Wanted {
    /// What `report` needs; `None` for a report that says no known signing key.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        Some(Self {
            signing_key: report.key_info.signing_key()?,
            product: report.product(),
            chip_id: report.chip_id,
            reported_tcb: report.reported_tcb,
        })
    }

    /// The products that can have made the report, likeliest first.
    #[must_use]
    pub fn products(&self) -> Vec<Product> {
        let possible = |product: &Product| {
            let chip_fits = self.chip_id.0[product.hwid_len()..].iter().all(|b| *b == 0);
            self.reported_tcb.reserved_is_zero(*product) && chip_fits
        };
        match self.product {
            Some(product) => vec![product],
            None => Product::ALL.into_iter().filter(possible).collect(),
        }
    }

    /// Whether a leaf certificate's extensions are the wanted ones. Says nothing of its signature.
    #[must_use]
    pub fn fits(&self, certificate: &Certificate) -> bool {
        let Ok(extensions) = certificate.endorsement() else {
            return false;
        };
        let chip_fits = match &extensions.hwid {
            Some(hwid) => {
                let (id, rest) = self.chip_id.0.split_at(hwid.len().min(64));
                id == hwid && rest.iter().all(|byte| *byte == 0)
            }
            None => true,
        };
        chip_fits && self.fits_but_for_chip(certificate)
    }

    /// As [`Self::fits`], of any chip: all that can be told of a masked report's.
    #[must_use]
    pub fn fits_but_for_chip(&self, certificate: &Certificate) -> bool {
        let Ok(extensions) = certificate.endorsement() else {
            return false;
        };
        let product = extensions.product;
        extensions.signing_key() == self.signing_key
            && self.product.is_none_or(|wanted| wanted == product)
            && self.reported_tcb.decode(product) == extensions.tcb
    }
}

/// A place to ask for certificates: a directory, a cache, AMD's Key Distribution Service.
///
/// What a source answers is not trusted: the chain is verified and compared with the report
/// whatever it is. Sources should all the same not store what does not verify.
pub trait CertificateSource {
    /// Name in messages, as `cache` or a URL.
    fn name(&self) -> String;

    /// The leaf certificate, one that is valid `at` that time before others, or `None` where this
    /// source has none.
    ///
    /// # Errors
    /// Where the source could not answer.
    fn leaf(&self, wanted: &Wanted, at: UnixTime) -> Result<Option<Certificate>, SourceError>;

    /// The revocation list of a product's ARK, or `None` where this source has none.
    ///
    /// # Errors
    /// Where the source could not answer.
    fn crl(&self, product: Product, key: SigningKey) -> Result<Option<Crl>, SourceError>;

    /// What went wrong on the way to the answers so far, and did not keep them back.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A source that could not answer.
#[derive(Debug)]
pub struct SourceError {
    /// [`CertificateSource::name`].
    pub source_name: String,
    /// Why.
    pub reason: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source_name, self.reason)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.reason)
    }
}
