//! The chain from a root to the key that signed a report.
//!
//! A [`Chain`] is built once and serves for many reports of one chip and TCB: the signatures in it
//! are verified when it is built. It decides nothing: it keeps what holds and what does not, for
//! [`crate::appraise`] to judge.

use crate::cert::{Certificate, Crl, PublicKey, Role};
use crate::crypto::{P384Key, verifies_pss};
use crate::product::Product;
use crate::report::{Report, SigningKey};
use crate::roots;

/// Bits of the RSA keys of ARKs, ASKs and ASVKs.
pub const AUTHORITY_BITS: usize = 4096;

/// Whose root a chain ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// AMD's, of this product.
    Amd(Product),
    /// Somebody else's.
    Foreign,
}

/// ARK, ASK or ASVK, and VCEK or VLEK.
#[derive(Debug)]
pub struct Chain {
    ark: Certificate,
    intermediate: Certificate,
    leaf: Certificate,
    root: Root,
    leaf_key: Option<P384Key>,
    ark_signed: bool,
    intermediate_signed: bool,
    leaf_signed: bool,
    crl: Option<(Crl, bool)>,
}

impl Chain {
    /// Builds a chain and verifies the signatures in it.
    #[must_use]
    pub fn new(ark: Certificate, intermediate: Certificate, leaf: Certificate) -> Self {
        let signed = [(&ark, &ark), (&intermediate, &ark), (&leaf, &intermediate)]
            .map(|(certificate, issuer)| signed(certificate, issuer));
        Self::with(signed, ark, intermediate, leaf)
    }

    /// Builds a chain whose three signatures the caller has verified.
    pub(crate) fn of_signed(
        ark: Certificate,
        intermediate: Certificate,
        leaf: Certificate,
    ) -> Self {
        Self::with([true; 3], ark, intermediate, leaf)
    }

    fn with(
        [ark_signed, intermediate_signed, leaf_signed]: [bool; 3],
        ark: Certificate,
        intermediate: Certificate,
        leaf: Certificate,
    ) -> Self {
        Self {
            root: roots::product_of_root(&ark).map_or(Root::Foreign, Root::Amd),
            ark_signed,
            intermediate_signed,
            leaf_signed,
            leaf_key: p384(&leaf),
            ark,
            intermediate,
            leaf,
            crl: None,
        }
    }

    /// Builds a chain from a leaf alone, under AMD's own authorities for its product and kind.
    /// `None` for a certificate that is not a VCEK or VLEK.
    #[must_use]
    pub fn under_amd(leaf: Certificate) -> Option<Self> {
        let extensions = leaf.endorsement().ok()?;
        let above = roots::authorities(extensions.product, extensions.signing_key())?;
        Some(Self::new(
            above.ark.clone(),
            above.intermediate.clone(),
            leaf,
        ))
    }

    /// Adds a revocation list of the root and verifies its signature.
    #[must_use]
    pub fn with_crl(mut self, crl: Crl) -> Self {
        let signed = self.signs_crl(&crl);
        self.crl = Some((crl, signed));
        self
    }

    /// Whether the root signed a revocation list.
    #[must_use]
    pub fn signs_crl(&self, crl: &Crl) -> bool {
        crl.is_pss_sha384()
            && crl.is_issued_in_name_of(&self.ark)
            && verifies_pss(self.ark.key(), crl.signed_bytes(), crl.signature())
    }

    /// The root's certificate.
    #[must_use]
    pub fn ark(&self) -> &Certificate {
        &self.ark
    }

    /// The ASK or ASVK.
    #[must_use]
    pub fn intermediate(&self) -> &Certificate {
        &self.intermediate
    }

    /// The VCEK or VLEK.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// All three, root first.
    #[must_use]
    pub fn certificates(&self) -> [&Certificate; 3] {
        [&self.ark, &self.intermediate, &self.leaf]
    }

    /// Whose root it is, by its key.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// Whether the root signed itself.
    #[must_use]
    pub fn ark_is_self_signed(&self) -> bool {
        self.ark_signed
    }

    /// Whether the root signed the ASK or ASVK.
    #[must_use]
    pub fn intermediate_is_signed(&self) -> bool {
        self.intermediate_signed
    }

    /// Whether the ASK or ASVK signed the leaf.
    #[must_use]
    pub fn leaf_is_signed(&self) -> bool {
        self.leaf_signed
    }

    /// The revocation list, and whether the root signed it.
    #[must_use]
    pub fn crl(&self) -> Option<(&Crl, bool)> {
        self.crl.as_ref().map(|(crl, signed)| (crl, *signed))
    }

    /// The leaf's key; `None` where it is not a point on P-384.
    #[must_use]
    pub fn leaf_key(&self) -> Option<&P384Key> {
        self.leaf_key.as_ref()
    }

    /// The kind of the leaf, by its extensions.
    #[must_use]
    pub fn signing_key(&self) -> Option<SigningKey> {
        let extensions = self.leaf.endorsement().ok()?;
        Some(extensions.signing_key())
    }

    /// The product of the leaf, by its extensions.
    #[must_use]
    pub fn product(&self) -> Option<Product> {
        self.leaf
            .endorsement()
            .ok()
            .map(|extensions| extensions.product)
    }

    /// Whether the leaf's key signed the report. Says nothing of the leaf itself.
    #[must_use]
    pub fn leaf_signed_report(&self, report: &Report) -> bool {
        key_signed(self.leaf_key.as_ref(), report)
    }

    /// Whether this chain's names and kinds fit together: an ASK over a VCEK or an ASVK over a VLEK,
    /// under the ARK of the same product.
    #[must_use]
    pub fn roles_fit(&self) -> bool {
        let Ok(extensions) = self.leaf.endorsement() else {
            return false;
        };
        let product = extensions.product;
        let kind = extensions.signing_key();
        let intermediate = match kind {
            SigningKey::Vcek => Role::Ask(product),
            SigningKey::Vlek => Role::Asvk(product),
        };
        self.leaf.role() == Role::Leaf(kind)
            && self.intermediate.role() == intermediate
            && self.ark.role() == Role::Ark(product)
            && self.leaf.is_issued_in_name_of(&self.intermediate)
            && self.intermediate.is_issued_in_name_of(&self.ark)
            && self.ark.is_issued_in_name_of(&self.ark)
    }
}

fn p384(leaf: &Certificate) -> Option<P384Key> {
    match leaf.key() {
        PublicKey::P384(point) => P384Key::new(point),
        PublicKey::Rsa { .. } | PublicKey::Other(_) => None,
    }
}

fn key_signed(key: Option<&P384Key>, report: &Report) -> bool {
    match (key, report.signature.fixed()) {
        (Some(key), Ok(signature)) => key.verifies(report.signed_bytes(), &signature),
        _ => false,
    }
}

/// Whether the key of `leaf` signed the report. Says nothing of the leaf itself.
pub(crate) fn signed_report(leaf: &Certificate, report: &Report) -> bool {
    key_signed(p384(leaf).as_ref(), report)
}

/// Whether `issuer`'s key signed `certificate`, by the one algorithm of AMD's hierarchy and a key
/// of its size.
pub(crate) fn signed(certificate: &Certificate, issuer: &Certificate) -> bool {
    let right_key = matches!(issuer.key(), PublicKey::Rsa { bits, .. } if *bits == AUTHORITY_BITS);
    right_key
        && certificate.is_pss_sha384()
        && verifies_pss(
            issuer.key(),
            certificate.signed_bytes(),
            certificate.signature(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_authorities_are_sound() {
        for product in Product::ALL {
            for key in [SigningKey::Vcek, SigningKey::Vlek] {
                let amd = roots::authorities(product, key).unwrap();
                assert!(signed(&amd.ark, &amd.ark) && signed(&amd.intermediate, &amd.ark));
                assert!(!signed(&amd.ark, &amd.intermediate));
            }
        }
    }
}
