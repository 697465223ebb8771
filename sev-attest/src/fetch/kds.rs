//! Paths of AMD's Key Distribution Service (AMD 57230, section 4).

use std::fmt::Write as _;

use crate::product::Product;
use crate::report::{ChipId, SigningKey};
use crate::tcb::TcbWord;

/// A document of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The VCEK of a chip and TCB.
    Vcek {
        /// Product.
        product: Product,
        /// The chip; Turin's ids are 8 bytes, and what follows is left out.
        chip_id: ChipId,
        /// TCB.
        tcb: TcbWord,
    },
    /// ASK or ASVK, and ARK.
    Chain(Product, SigningKey),
    /// The ARK's revocation list.
    Crl(Product, SigningKey),
}

impl Document {
    /// Path and query at the service.
    #[must_use]
    pub fn path(&self) -> String {
        match *self {
            Self::Vcek {
                product,
                chip_id,
                tcb,
            } => {
                let hwid = hex::encode(&chip_id.0[..product.hwid_len()]);
                let tcb = tcb.decode(product);
                let mut path = format!("/vcek/v1/{product}/{hwid}?");
                if let Some(fmc) = tcb.fmc {
                    let _ = write!(path, "fmcSPL={fmc:02}&");
                }
                let _ = write!(
                    path,
                    "blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
                    tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode
                );
                path
            }
            Self::Chain(product, key) => format!("/{}/v1/{product}/cert_chain", kind(key)),
            Self::Crl(product, key) => format!("/{}/v1/{product}/crl", kind(key)),
        }
    }

    /// Name of the file in a cache. It is made of what the document is asked by, so that no
    /// answer can choose where it is kept.
    #[must_use]
    pub fn file_name(&self) -> String {
        match *self {
            Self::Vcek {
                product,
                chip_id,
                tcb,
            } => {
                let hwid = hex::encode(&chip_id.0[..product.hwid_len()]);
                format!("vcek/{product}/{hwid}-{:016x}.der", tcb.0)
            }
            Self::Chain(product, key) => format!("{}/{product}/cert_chain.pem", kind(key)),
            Self::Crl(product, key) => format!("{}/{product}/crl.der", kind(key)),
        }
    }
}

fn kind(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vcek => "vcek",
        SigningKey::Vlek => "vlek",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_services() {
        let mut chip_id = [0; 64];
        for (byte, n) in chip_id.iter_mut().zip(1u8..) {
            *byte = n;
        }
        let hex64 = hex::encode(chip_id);
        let vcek = |product, tcb| Document::Vcek {
            product,
            chip_id: ChipId(chip_id),
            tcb: TcbWord(tcb),
        };
        let tcb = 0xd316_0000_0000_0004;
        let milan = vcek(Product::Milan, tcb);
        assert_eq!(
            milan.path(),
            format!("/vcek/v1/Milan/{hex64}?blSPL=04&teeSPL=00&snpSPL=22&ucodeSPL=211")
        );
        assert_eq!(
            milan.file_name(),
            format!("vcek/Milan/{hex64}-d316000000000004.der")
        );
        let turin = vcek(Product::Turin, 0x4700_0000_0301_0201);
        assert_eq!(
            turin.path(),
            "/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=02&teeSPL=01&snpSPL=03&ucodeSPL=71"
        );
        assert_eq!(
            turin.file_name(),
            "vcek/Turin/0102030405060708-4700000003010201.der"
        );
        for (document, path) in [
            (
                Document::Chain(Product::Genoa, SigningKey::Vcek),
                "/vcek/v1/Genoa/cert_chain",
            ),
            (
                Document::Chain(Product::Turin, SigningKey::Vlek),
                "/vlek/v1/Turin/cert_chain",
            ),
            (
                Document::Crl(Product::Milan, SigningKey::Vcek),
                "/vcek/v1/Milan/crl",
            ),
            (
                Document::Crl(Product::Milan, SigningKey::Vlek),
                "/vlek/v1/Milan/crl",
            ),
        ] {
            assert_eq!(document.path(), path);
        }
    }
}
