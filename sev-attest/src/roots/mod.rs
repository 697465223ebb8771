//! AMD's roots and intermediate keys, compiled in.

use std::sync::OnceLock;

use crate::cert::{Certificate, Role};
use crate::formats::pem;
use crate::product::Product;
use crate::report::SigningKey;

const VCEK: [&str; 3] = [
    include_str!("amd-milan-ask-ark.pem"),
    include_str!("amd-genoa-ask-ark.pem"),
    include_str!("amd-turin-ask-ark.pem"),
];
const VLEK: [&str; 3] = [
    include_str!("amd-milan-asvk-ark.pem"),
    include_str!("amd-genoa-asvk-ark.pem"),
    include_str!("amd-turin-asvk-ark.pem"),
];

/// AMD's certificates above the leaf.
#[derive(Debug)]
pub struct Authorities {
    /// The root.
    pub ark: Certificate,
    /// ASK or ASVK.
    pub intermediate: Certificate,
}

/// AMD's certificates above VCEKs or VLEKs of a product.
///
/// `None` can't happen: the files are part of the program, and a test reads each.
#[must_use]
pub fn authorities(product: Product, key: SigningKey) -> Option<&'static Authorities> {
    static VCEK_PARSED: [OnceLock<Option<Authorities>>; 3] = [const { OnceLock::new() }; 3];
    static VLEK_PARSED: [OnceLock<Option<Authorities>>; 3] = [const { OnceLock::new() }; 3];
    let index = match product {
        Product::Milan => 0,
        Product::Genoa => 1,
        Product::Turin => 2,
    };
    let (parsed, text) = match key {
        SigningKey::Vcek => (&VCEK_PARSED[index], VCEK[index]),
        SigningKey::Vlek => (&VLEK_PARSED[index], VLEK[index]),
    };
    parsed.get_or_init(|| read(text)).as_ref()
}

fn read(text: &str) -> Option<Authorities> {
    let mut certificates = pem::blocks(text.as_bytes())
        .ok()?
        .into_iter()
        .map(|block| Certificate::parse(&block.der));
    let intermediate = certificates.next()?.ok()?;
    let ark = certificates.next()?.ok()?;
    Some(Authorities { ark, intermediate })
}

/// The product whose ARK has this certificate's key; `None` for a key that is not AMD's.
#[must_use]
pub fn product_of_root(certificate: &Certificate) -> Option<Product> {
    Product::ALL.into_iter().find(|product| {
        // Roots of another name are not worth reading.
        certificate.role() == Role::Ark(*product)
            && authorities(*product, SigningKey::Vcek)
                .is_some_and(|built_in| built_in.ark.key() == certificate.key())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_there() {
        for product in Product::ALL {
            let vcek = authorities(product, SigningKey::Vcek).unwrap();
            assert_eq!(vcek.ark.role(), Role::Ark(product));
            assert_eq!(vcek.intermediate.role(), Role::Ask(product));
            let vlek = authorities(product, SigningKey::Vlek).unwrap();
            assert_eq!(vlek.intermediate.role(), Role::Asvk(product));
            assert_eq!(vlek.ark.key(), vcek.ark.key());
            assert_eq!(product_of_root(&vlek.ark), Some(product));
            assert_eq!(product_of_root(&vlek.intermediate), None);
        }
    }
}
