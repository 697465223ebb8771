//! Least TCBs by silicon: numbers of one are meaningless for another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::TcbMinimum;
use crate::advisories::{RowStatus, Table};
use crate::product::Silicon;

/// Least TCBs, by silicon. They hold for the reported, the launch and the running TCB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors(pub BTreeMap<Silicon, TcbMinimum>);

/// A set of floors that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloorSet {
    /// For each silicon the highest number of the active rows of the built-in table of bulletins,
    /// and so of that table's date.
    Recommended,
    /// What the network's own client asks for (aleph-sdk 0.22).
    Aleph,
}

impl FloorSet {
    /// The name, as in policy files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::Aleph => "aleph",
        }
    }

    /// The floors.
    #[must_use]
    pub fn floors(self) -> Floors {
        match self {
            Self::Recommended => recommended(Table::built_in()),
            Self::Aleph => aleph(),
        }
    }
}

impl FromStr for FloorSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Recommended, Self::Aleph]
            .into_iter()
            .find(|set| set.name() == text)
            .ok_or_else(|| "expected recommended or aleph".to_owned())
    }
}

impl<'de> Deserialize<'de> for FloorSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for FloorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Floors {
    /// These floors, and those of `other` for what has none.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for (silicon, minimum) in other.0 {
            let own = self.0.entry(silicon).or_default();
            *own = own.or(minimum);
        }
        self
    }

    /// What is asked of a component, where a report may be of any of these silicons: the least and
    /// the highest of their floors. `None` where nothing is.
    #[must_use]
    pub fn of(&self, silicon: &[Silicon], component: &str) -> Option<(u8, u8)> {
        let floors = silicon.iter().map(|silicon| {
            let floor = self.0.get(silicon).copied().unwrap_or_default();
            floor.component(component).unwrap_or(0)
        });
        let (least, highest) = floors.fold((u8::MAX, 0), |(least, highest), floor| {
            (least.min(floor), highest.max(floor))
        });
        (highest > 0).then_some((least, highest))
    }
}

fn recommended(table: &Table) -> Floors {
    let mut floors = Floors::default();
    for row in table.advisories.iter().flat_map(|advisory| &advisory.rows) {
        if row.status != RowStatus::Active {
            continue;
        }
        for silicon in &row.silicon {
            let floor = floors.0.entry(*silicon).or_default();
            for (have, asked) in [
                (&mut floor.fmc, row.fmc),
                (&mut floor.boot_loader, row.boot_loader),
                (&mut floor.tee, row.tee),
                (&mut floor.snp, row.snp),
                (&mut floor.microcode, row.microcode),
            ] {
                *have = (*have).max(asked);
            }
        }
    }
    floors
}

/// aleph-sdk 0.22, `src/attest/tcb.rs`. Turin's is above both Turin reports that are known.
fn aleph() -> Floors {
    let floor = |fmc, [boot_loader, tee, snp, microcode]: [u8; 4]| TcbMinimum {
        fmc,
        boot_loader: Some(boot_loader),
        tee: Some(tee),
        snp: Some(snp),
        microcode: Some(microcode),
    };
    Floors(BTreeMap::from([
        (Silicon::Milan, floor(None, [4, 0, 22, 219])),
        (Silicon::MilanX, floor(None, [4, 0, 22, 68])),
        (Silicon::Genoa, floor(None, [9, 0, 21, 84])),
        (Silicon::GenoaX, floor(None, [9, 0, 21, 79])),
        (Silicon::BergamoSiena, floor(None, [9, 0, 21, 25])),
        (Silicon::Turin, floor(Some(3), [4, 0, 8, 12])),
        (Silicon::TurinDense, floor(Some(3), [4, 0, 8, 12])),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_is_the_table_s_highest() {
        let Floors(floors) = FloorSet::Recommended.floors();
        let of = |silicon: Silicon| {
            let floor = floors[&silicon];
            (floor.snp, floor.microcode)
        };
        assert_eq!(of(Silicon::Milan), (Some(0x1d), Some(0xdb)));
        assert_eq!(of(Silicon::MilanX), (Some(0x1d), Some(0x44)));
        assert_eq!(of(Silicon::Genoa), (Some(0x1b), Some(0x56)));
        assert_eq!(of(Silicon::GenoaX), (Some(0x1b), Some(0x51)));
        assert_eq!(of(Silicon::BergamoSiena), (Some(0x1b), Some(0x19)));
        assert_eq!(of(Silicon::Turin), (Some(4), Some(0x51)));
        assert_eq!(of(Silicon::TurinDense), (Some(4), None));
    }

    #[test]
    fn floors_of_possible_silicon() {
        let floors = FloorSet::Aleph.floors();
        let both = [Silicon::Milan, Silicon::MilanX];
        assert_eq!(floors.of(&both, "snp"), Some((22, 22)));
        assert_eq!(floors.of(&both, "microcode"), Some((68, 219)));
        assert_eq!(floors.of(&both[..1], "microcode"), Some((219, 219)));
        assert_eq!(floors.of(&both, "fmc"), None);
        let own = TcbMinimum {
            microcode: Some(220),
            ..TcbMinimum::default()
        };
        let own = Floors(BTreeMap::from([(Silicon::Milan, own)])).or(floors);
        assert_eq!(own.of(&both[..1], "microcode"), Some((220, 220)));
        assert_eq!(own.of(&both[..1], "snp"), Some((22, 22)));
    }
}
