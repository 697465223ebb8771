//! What an answer must be before it is kept: of the kind that was asked for, and signed by the
//! root that is trusted. Validity in time is not looked at here: it is judged at each verification,
//! for the time that the verification is about.

use crate::cert::{CertError, Certificate, Crl};
use crate::chain::{Chain, Root};
use crate::crypto::verifies_pss;
use crate::formats::pem::{self, PemError};
use crate::product::Product;
use crate::report::SigningKey;
use crate::roots;
use crate::source::Wanted;

/// Why an answer is not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotGenuine {
    /// Not a certificate or list at all.
    #[error("not a certificate: {0}")]
    Malformed(#[from] CertError),
    /// Not PEM.
    #[error("not a certificate chain: {0}")]
    Pem(#[from] PemError),
    /// A chain of more or fewer certificates than two.
    #[error("not a certificate chain: {0} certificates instead of two")]
    ChainLength(usize),
    /// A genuine certificate, of another chip, TCB, product or kind.
    #[error("it is the certificate of another key: {subject}")]
    AnotherKey {
        /// Subject of the certificate.
        subject: String,
    },
    /// A link of the chain doesn't hold.
    #[error("{0}")]
    Chain(&'static str),
}

/// The root that answers must lead to.
#[derive(Debug, Clone)]
pub enum Trust {
    /// AMD's own, compiled in.
    Amd,
    /// Another root, of one product, with its intermediates: for simulated processors.
    Foreign(Box<ForeignRoot>),
}

/// A root that is not AMD's.
#[derive(Debug, Clone)]
pub struct ForeignRoot {
    /// The root's certificate.
    pub ark: Certificate,
    /// What it signed: ASK, ASVK or both.
    pub intermediates: Vec<Certificate>,
}

impl Trust {
    /// The certificates above a leaf of that kind, intermediate first.
    #[must_use]
    pub fn authorities(&self, product: Product, key: SigningKey) -> Option<[&Certificate; 2]> {
        match self {
            Self::Amd => {
                let amd = roots::authorities(product, key)?;
                Some([&amd.intermediate, &amd.ark])
            }
            Self::Foreign(root) => {
                let role = intermediate_role(product, key);
                let found = root.intermediates.iter().find(|c| c.role() == role)?;
                Some([found, &root.ark])
            }
        }
    }

    fn roots_in(&self, chain: &Chain, product: Product) -> bool {
        match self {
            Self::Amd => chain.root() == Root::Amd(product),
            Self::Foreign(root) => chain.ark().key() == root.ark.key(),
        }
    }

    /// Reads the leaf that `wanted` describes.
    ///
    /// # Errors
    /// When it is not one, another one, or not signed under this root.
    pub fn leaf(&self, der: &[u8], wanted: &Wanted) -> Result<Certificate, NotGenuine> {
        let leaf = Certificate::parse(der)?;
        if !wanted.fits(&leaf) {
            return Err(NotGenuine::AnotherKey {
                subject: leaf.subject(),
            });
        }
        let product = match leaf.endorsement() {
            Ok(extensions) => extensions.product,
            Err(_) => return Err(NotGenuine::Chain("it is neither a VCEK nor a VLEK")),
        };
        let [intermediate, ark] = self
            .authorities(product, wanted.signing_key)
            .ok_or(NotGenuine::Chain("no authority is known for its kind"))?;
        let chain = Chain::new(ark.clone(), intermediate.clone(), leaf.clone());
        if !self.roots_in(&chain, product) || !chain.ark_is_self_signed() {
            return Err(NotGenuine::Chain("its root is not the trusted one"));
        }
        if !chain.roles_fit() {
            return Err(NotGenuine::Chain("its names do not fit its issuer"));
        }
        if !chain.intermediate_is_signed() || !chain.leaf_is_signed() {
            return Err(NotGenuine::Chain("its issuer did not sign it"));
        }
        Ok(leaf)
    }

    /// Reads a `cert_chain` document: ASK or ASVK, then ARK.
    ///
    /// # Errors
    /// When it is not one or not of this root.
    pub fn chain(
        &self,
        text: &[u8],
        product: Product,
        key: SigningKey,
    ) -> Result<[Certificate; 2], NotGenuine> {
        let mut certificates = Vec::with_capacity(2);
        for block in pem::blocks(text)? {
            certificates.push(Certificate::parse(&block.der)?);
        }
        let [intermediate, ark]: [Certificate; 2] = certificates
            .try_into()
            .map_err(|all: Vec<_>| NotGenuine::ChainLength(all.len()))?;
        let [_, trusted] = self
            .authorities(product, key)
            .ok_or(NotGenuine::Chain("no authority is known for its kind"))?;
        if ark.key() != trusted.key() {
            return Err(NotGenuine::Chain("its root is not the trusted one"));
        }
        if intermediate.role() != intermediate_role(product, key)
            || ark.role() != trusted.role()
            || !intermediate.is_issued_in_name_of(&ark)
            || !ark.is_issued_in_name_of(&ark)
        {
            return Err(NotGenuine::Chain(
                "its names are not those of this kind of chain",
            ));
        }
        for certificate in [&intermediate, &ark] {
            if !certificate.is_pss_sha384()
                || !verifies_pss(
                    trusted.key(),
                    certificate.signed_bytes(),
                    certificate.signature(),
                )
            {
                return Err(NotGenuine::Chain("the root did not sign it"));
            }
        }
        Ok([intermediate, ark])
    }

    /// Reads a revocation list.
    ///
    /// # Errors
    /// When it is not one or not of this root.
    pub fn crl(&self, der: &[u8], product: Product, key: SigningKey) -> Result<Crl, NotGenuine> {
        let crl = Crl::parse(der)?;
        let [_, ark] = self
            .authorities(product, key)
            .ok_or(NotGenuine::Chain("no authority is known for its kind"))?;
        if !crl.is_issued_in_name_of(ark) {
            return Err(NotGenuine::Chain("it is another issuer's list"));
        }
        if !crl.is_pss_sha384() || !verifies_pss(ark.key(), crl.signed_bytes(), crl.signature()) {
            return Err(NotGenuine::Chain("the root did not sign it"));
        }
        Ok(crl)
    }
}

fn intermediate_role(product: Product, key: SigningKey) -> crate::cert::Role {
    match key {
        SigningKey::Vcek => crate::cert::Role::Ask(product),
        SigningKey::Vlek => crate::cert::Role::Asvk(product),
    }
}
