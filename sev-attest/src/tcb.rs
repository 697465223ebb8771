//! TCB words: the versions of the firmware parts that a guest's security rests on.

use std::fmt;

use crate::product::{Product, TcbLayout};

/// A TCB word as it stands in a report; what its bytes mean depends on the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcbWord(pub u64);

impl TcbWord {
    /// The components, by the layout of `product`.
    #[must_use]
    pub fn decode(self, product: Product) -> Tcb {
        let bytes = self.0.to_le_bytes();
        match product.tcb_layout() {
            TcbLayout::MilanGenoa => Tcb {
                fmc: None,
                boot_loader: bytes[0],
                tee: bytes[1],
                snp: bytes[6],
                microcode: bytes[7],
            },
            TcbLayout::Turin => Tcb {
                fmc: Some(bytes[0]),
                boot_loader: bytes[1],
                tee: bytes[2],
                snp: bytes[3],
                microcode: bytes[7],
            },
        }
    }

    /// Whether the bytes that `product`'s layout reserves are zero.
    #[must_use]
    pub fn reserved_is_zero(self, product: Product) -> bool {
        self.0 & reserved_mask(product.tcb_layout()) == 0
    }

    /// The bytes that every known layout reserves are zero. For reports whose product is not
    /// known yet.
    #[must_use]
    pub fn common_reserved_is_zero(self) -> bool {
        let common = reserved_mask(TcbLayout::MilanGenoa) & reserved_mask(TcbLayout::Turin);
        self.0 & common == 0
    }
}

fn reserved_mask(layout: TcbLayout) -> u64 {
    match layout {
        TcbLayout::MilanGenoa => 0x0000_ffff_ffff_0000,
        TcbLayout::Turin => 0x00ff_ffff_0000_0000,
    }
}

impl fmt::Display for TcbWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// The components of a TCB, each a security version number.
///
/// There is deliberately no order on this type: one TCB is as new as another only if each of
/// its components is ([`Tcb::is_at_least`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tcb {
    /// Firmware configuration (Turin only).
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode of the cores.
    pub microcode: u8,
}

impl Tcb {
    /// The word that holds these components in the layout of `product`.
    #[must_use]
    pub fn encode(self, product: Product) -> TcbWord {
        let Self {
            fmc,
            boot_loader,
            tee,
            snp,
            microcode,
        } = self;
        TcbWord(u64::from_le_bytes(match product.tcb_layout() {
            TcbLayout::MilanGenoa => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
            TcbLayout::Turin => [fmc.unwrap_or(0), boot_loader, tee, snp, 0, 0, 0, microcode],
        }))
    }

    /// The component of that name, as policy files write it; `None` where there is none.
    #[must_use]
    pub fn component(self, name: &str) -> Option<u8> {
        match name {
            "fmc" => self.fmc,
            "boot_loader" => Some(self.boot_loader),
            "tee" => Some(self.tee),
            "snp" => Some(self.snp),
            "microcode" => Some(self.microcode),
            _ => None,
        }
    }

    /// The older of each component.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            fmc: self.fmc.min(other.fmc),
            boot_loader: self.boot_loader.min(other.boot_loader),
            tee: self.tee.min(other.tee),
            snp: self.snp.min(other.snp),
            microcode: self.microcode.min(other.microcode),
        }
    }

    /// Whether no component is older than in `other`.
    #[must_use]
    pub fn is_at_least(self, other: Self) -> bool {
        self.fmc >= other.fmc
            && self.boot_loader >= other.boot_loader
            && self.tee >= other.tee
            && self.snp >= other.snp
            && self.microcode >= other.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc}, ")?;
        }
        let Self {
            boot_loader,
            tee,
            snp,
            microcode,
            ..
        } = self;
        write!(
            f,
            "boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_differ_and_invert() {
        let word = TcbWord(0xdb18_0000_0000_0004);
        let milan = word.decode(Product::Milan);
        assert_eq!(
            milan,
            Tcb {
                fmc: None,
                boot_loader: 4,
                tee: 0,
                snp: 0x18,
                microcode: 0xdb
            }
        );
        assert_eq!(milan.encode(Product::Milan), word);
        assert!(word.reserved_is_zero(Product::Genoa) && !word.reserved_is_zero(Product::Turin));
        let word = TcbWord(0x4b00_0000_0403_0201);
        let turin = word.decode(Product::Turin);
        assert_eq!(
            turin,
            Tcb {
                fmc: Some(1),
                boot_loader: 2,
                tee: 3,
                snp: 4,
                microcode: 0x4b
            }
        );
        assert_eq!(turin.encode(Product::Turin), word);
        assert!(word.reserved_is_zero(Product::Turin) && !word.reserved_is_zero(Product::Milan));
        assert!(!TcbWord(1 << 32).common_reserved_is_zero());
        assert!(word.common_reserved_is_zero());
    }

    #[test]
    fn each_component_counts() {
        let base = Tcb {
            fmc: Some(1),
            boot_loader: 2,
            tee: 3,
            snp: 4,
            microcode: 5,
        };
        assert!(base.is_at_least(base));
        for older in [
            Tcb {
                fmc: Some(0),
                ..base
            },
            Tcb { fmc: None, ..base },
            Tcb {
                boot_loader: 1,
                microcode: 9,
                ..base
            },
            Tcb {
                tee: 2,
                microcode: 9,
                ..base
            },
            Tcb {
                snp: 3,
                microcode: 9,
                ..base
            },
            Tcb {
                microcode: 4,
                snp: 9,
                ..base
            },
        ] {
            assert!(!older.is_at_least(base), "{older}");
        }
    }
}
