//! Product generations and how a report or a certificate names them.

use std::fmt;

/// A generation of EPYC processors that has SEV-SNP, with one ARK, ASK and ASVK each.
///
/// Siena and Bergamo are of Genoa's generation: the same keys, the same formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// EPYC 7003, Zen 3.
    Milan,
    /// EPYC 9004 (Genoa, Bergamo) and 8004 (Siena), Zen 4.
    Genoa,
    /// EPYC 9005, Zen 5.
    Turin,
}

impl Product {
    /// All generations, oldest first.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in the Key Distribution Service's paths and in certificate subjects.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The generation of that name, in any case; also by the names of its members.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "milan" => Some(Self::Milan),
            "genoa" | "bergamo" | "siena" => Some(Self::Genoa),
            "turin" => Some(Self::Turin),
            _ => None,
        }
    }

    /// The generation in a leaf certificate's productName extension: `Genoa`, or with a
    /// stepping as in `Milan-B0` (AMD 57230, table 8).
    #[must_use]
    pub fn from_certificate_name(name: &str) -> Option<Self> {
        let (product, stepping) = match name.split_once('-') {
            Some((product, stepping)) => (product, Some(stepping.as_bytes())),
            None => (name, None),
        };
        let stepping_fits = match stepping {
            None => true,
            Some([letter, digit]) => letter.is_ascii_uppercase() && digit.is_ascii_digit(),
            Some(_) => false,
        };
        let product = match product {
            "Milan" => Self::Milan,
            "Genoa" | "Siena" | "Bergamo" => Self::Genoa,
            "Turin" => Self::Turin,
            _ => return None,
        };
        stepping_fits.then_some(product)
    }

    /// The layout of this generation's TCB words.
    #[must_use]
    pub fn tcb_layout(self) -> TcbLayout {
        match self {
            Self::Milan | Self::Genoa => TcbLayout::MilanGenoa,
            Self::Turin => TcbLayout::Turin,
        }
    }

    /// Length of the hardware id in this generation's VCEKs, in bytes.
    #[must_use]
    pub fn hwid_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which byte of a TCB word holds which component (AMD 56860, TCB_VERSION).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbLayout {
    /// Boot loader, TEE, four reserved bytes, SNP, microcode.
    MilanGenoa,
    /// FMC, boot loader, TEE, SNP, three reserved bytes, microcode.
    Turin,
}

/// CPUID of the processor that made a report, in reports of version 3 and later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpuid {
    /// Extended and base family, added.
    pub family: u8,
    /// Extended and base model, joined.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

impl Cpuid {
    /// The generation with this family and model; `None` for a processor that this program
    /// doesn't know.
    #[must_use]
    pub fn product(self) -> Option<Product> {
        match (self.family, self.model) {
            (0x19, 0x00..=0x0f) => Some(Product::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Product::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Product::Turin),
            _ => None,
        }
    }

    /// What the processor is sold as, where that is finer than the generation.
    #[must_use]
    pub fn member(self) -> Option<&'static str> {
        match (self.product()?, self.model) {
            (Product::Genoa, 0xa0..=0xaf) => Some("Bergamo or Siena"),
            (product, _) => Some(product.name()),
        }
    }

    /// The silicon: what shares one numbering of microcode. `None` for steppings whose numbering is
    /// not known.
    #[must_use]
    pub fn silicon(self) -> Option<Silicon> {
        match (self.family, self.model, self.stepping) {
            (0x19, 0x01, 0x01) => Some(Silicon::Milan),
            (0x19, 0x01, 0x02) => Some(Silicon::MilanX),
            (0x19, 0x11, 0x01) => Some(Silicon::Genoa),
            (0x19, 0x11, 0x02) => Some(Silicon::GenoaX),
            (0x19, 0xa0, 0x02) => Some(Silicon::BergamoSiena),
            (0x1a, 0x02, _) => Some(Silicon::Turin),
            (0x1a, 0x10 | 0x11, _) => Some(Silicon::TurinDense),
            _ => None,
        }
    }

    /// Whether this is a Venice. Its models are public; its keys and its certificates' extensions
    /// are not, so that its reports can be named and not verified.
    #[must_use]
    pub fn is_venice(self) -> bool {
        self.family == 0x1a && matches!(self.model, 0x50..=0x57 | 0x90..=0xaf | 0xc0..=0xc7)
    }
}

/// Silicon of a generation. Its members share AMD's keys and the layout of TCBs, but each numbers
/// its microcode apart: numbers of different silicon must never be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silicon {
    /// EPYC 7003.
    Milan,
    /// EPYC 7003 with 3D V-Cache.
    MilanX,
    /// EPYC 9004.
    Genoa,
    /// EPYC 9004 with 3D V-Cache.
    GenoaX,
    /// EPYC 97x4 and 8004: Zen 4c.
    BergamoSiena,
    /// EPYC 9005.
    Turin,
    /// EPYC 9005 with Zen 5c.
    TurinDense,
}

impl Silicon {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::Milan,
        Self::MilanX,
        Self::Genoa,
        Self::GenoaX,
        Self::BergamoSiena,
        Self::Turin,
        Self::TurinDense,
    ];

    /// The name, as in tables and policy files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::MilanX => "Milan-X",
            Self::Genoa => "Genoa",
            Self::GenoaX => "Genoa-X",
            Self::BergamoSiena => "Bergamo-Siena",
            Self::Turin => "Turin",
            Self::TurinDense => "Turin-dense",
        }
    }

    /// The silicon of that name, in any case; Bergamo and Siena also by themselves.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if ["bergamo", "siena"].contains(&name.to_ascii_lowercase().as_str()) {
            return Some(Self::BergamoSiena);
        }
        let mut all = Self::ALL.into_iter();
        all.find(|silicon| silicon.name().eq_ignore_ascii_case(name))
    }

    /// The generation.
    #[must_use]
    pub fn product(self) -> Product {
        match self {
            Self::Milan | Self::MilanX => Product::Milan,
            Self::Genoa | Self::GenoaX | Self::BergamoSiena => Product::Genoa,
            Self::Turin | Self::TurinDense => Product::Turin,
        }
    }

    /// What a report's processor may be: one silicon, or all of the product where the report does
    /// not tell them apart.
    #[must_use]
    pub fn possible(cpuid: Option<Cpuid>, product: Option<Product>) -> Vec<Self> {
        match (cpuid, cpuid.and_then(Cpuid::silicon)) {
            (_, Some(silicon)) => vec![silicon],
            // A stepping that no table knows is none of those that are known.
            (Some(_), None) => Vec::new(),
            (None, None) => Self::ALL
                .into_iter()
                .filter(|silicon| Some(silicon.product()) == product)
                .collect(),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Silicon {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|silicon| silicon.name()).collect();
            let known = known.join(", ");
            serde::de::Error::custom(format!("{name:?} is none of {known}"))
        })
    }
}

impl fmt::Display for Silicon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Cpuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            model,
            stepping,
        } = self;
        write!(
            f,
            "family {family:#04x} model {model:#04x} stepping {stepping:#04x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuid_names_the_generation() {
        let product = |family, model| {
            Cpuid {
                family,
                model,
                stepping: 1,
            }
            .product()
        };
        for (family, model, expected) in [
            (0x19, 0x01, Some(Product::Milan)),
            (0x19, 0x0f, Some(Product::Milan)),
            (0x19, 0x11, Some(Product::Genoa)),
            (0x19, 0xa0, Some(Product::Genoa)),
            (0x19, 0xaf, Some(Product::Genoa)),
            (0x1a, 0x02, Some(Product::Turin)),
            (0x1a, 0x11, Some(Product::Turin)),
            (0x19, 0x20, None),
            (0x17, 0x31, None),
            (0x1a, 0x50, None),
        ] {
            assert_eq!(product(family, model), expected, "{family:#x} {model:#x}");
        }
    }

    #[test]
    fn silicon_is_told_by_model_and_stepping() {
        let cpuid = |family, model, stepping| Cpuid {
            family,
            model,
            stepping,
        };
        for (it, expected) in [
            (cpuid(0x19, 0x01, 1), Some(Silicon::Milan)),
            (cpuid(0x19, 0x01, 2), Some(Silicon::MilanX)),
            (cpuid(0x19, 0x01, 0), None),
            (cpuid(0x19, 0x11, 1), Some(Silicon::Genoa)),
            (cpuid(0x19, 0x11, 2), Some(Silicon::GenoaX)),
            (cpuid(0x19, 0xa0, 2), Some(Silicon::BergamoSiena)),
            (cpuid(0x1a, 0x02, 1), Some(Silicon::Turin)),
            (cpuid(0x1a, 0x11, 0), Some(Silicon::TurinDense)),
        ] {
            assert_eq!(it.silicon(), expected, "{it}");
            if let Some(silicon) = expected {
                assert_eq!(it.product(), Some(silicon.product()), "{it}");
            }
        }
        let of_milan = Silicon::possible(None, Some(Product::Milan));
        assert_eq!(of_milan, [Silicon::Milan, Silicon::MilanX]);
        let unknown = Silicon::possible(Some(cpuid(0x19, 0x01, 7)), Some(Product::Milan));
        assert!(
            unknown.is_empty(),
            "a number of another stepping says nothing"
        );
        for silicon in Silicon::ALL {
            assert_eq!(Silicon::from_name(silicon.name()), Some(silicon));
        }
        assert_eq!(Silicon::from_name("siena"), Some(Silicon::BergamoSiena));
        assert!(cpuid(0x1a, 0x50, 0).is_venice() && cpuid(0x1a, 0xc7, 0).is_venice());
        assert!(!cpuid(0x1a, 0x58, 0).is_venice() && !cpuid(0x1a, 0x02, 0).is_venice());
    }

    #[test]
    fn certificate_names_are_exact() {
        for (name, expected) in [
            ("Milan-B0", Some(Product::Milan)),
            ("Milan", Some(Product::Milan)),
            ("Genoa", Some(Product::Genoa)),
            ("Siena", Some(Product::Genoa)),
            ("Turin-B1", Some(Product::Turin)),
            ("milan", None),
            ("Milan-", None),
            ("Milan-B", None),
            ("Milan-b0", None),
            ("Milan-B00", None),
            ("MilanX", None),
            ("Venice", None),
            ("", None),
        ] {
            assert_eq!(Product::from_certificate_name(name), expected, "{name}");
        }
    }
}
