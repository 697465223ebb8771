//! A report held against a table.

use super::{Advisory, Row, RowStatus, Table};
use crate::product::{Product, Silicon};
use crate::report::Report;
use crate::tcb::Tcb;

/// How a report stands to a bulletin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The report shows that the fault is fixed.
    Fixed,
    /// The report shows that it is not.
    NotFixed,
    /// The report can't show it.
    NotAttestable,
    /// AMD took its numbers back.
    Withdrawn,
    /// Sources contradict each other.
    Disputed,
    /// There is no fix.
    NoFix,
}

impl Standing {
    /// Name in JSON, and in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::NotFixed => "not fixed",
            Self::NotAttestable => "not attestable",
            Self::Withdrawn => "withdrawn",
            Self::Disputed => "disputed",
            Self::NoFix => "no fix",
        }
    }
}

/// A bulletin that is about a report's silicon, and how the report stands to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assessment<'a> {
    /// The bulletin.
    pub advisory: &'a Advisory,
    /// How the report stands to it.
    pub standing: Standing,
    /// Why: what is lacking, or what can't be seen.
    pub why: String,
}

/// What of a report tells whether a fault is fixed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attested {
    /// What the processor may be; more than one where the report does not tell.
    pub silicon: Vec<Silicon>,
    /// The product.
    pub product: Option<Product>,
    /// The least of reported, launch and running TCB, component by component. The reported one is
    /// what the key proves; several faults are exploited at launch; the running one may be older
    /// where the firmware was changed since.
    pub tcb: Option<Tcb>,
    /// Mitigation bits that were set at launch and are now; `None` below version 5.
    pub mitigations: Option<u64>,
    /// The alias check is complete; `None` where the report's version has no such bit.
    pub alias_check_complete: Option<bool>,
    /// The IOMMU is write safe.
    pub iommu_write_safe: Option<bool>,
    /// Ciphertexts are hidden.
    pub ciphertext_hiding: bool,
    /// SMT is on.
    pub smt: bool,
}

impl Attested {
    /// What `report` attests. `product` is the certificate's, for reports that do not tell theirs.
    #[must_use]
    pub fn of(report: &Report, product: Option<Product>) -> Self {
        let product = report.product().or(product);
        let tcb = product.map(|product| {
            let [first, rest @ ..] = [report.reported_tcb, report.launch_tcb, report.current_tcb]
                .map(|word| word.decode(product));
            rest.into_iter().fold(first, Tcb::least)
        });
        let vectors = report.launch_mitigations.zip(report.current_mitigations);
        Self {
            silicon: Silicon::possible(report.cpuid, product),
            product,
            tcb,
            mitigations: vectors.map(|(launch, current)| launch & current),
            alias_check_complete: report.alias_check_complete(),
            iommu_write_safe: report.iommu_write_safe(),
            ciphertext_hiding: report.platform_info.ciphertext_hiding(),
            smt: report.platform_info.smt(),
        }
    }
}

impl Table {
    /// The bulletins about this silicon, in the table's order.
    #[must_use]
    pub fn assess(&self, attested: &Attested) -> Vec<Assessment<'_>> {
        self.advisories
            .iter()
            .filter_map(|advisory| {
                let (standing, why) = advisory.assess(attested)?;
                Some(Assessment {
                    advisory,
                    standing,
                    why,
                })
            })
            .collect()
    }
}

impl Advisory {
    /// `None` for a bulletin about other silicon.
    fn assess(&self, attested: &Attested) -> Option<(Standing, String)> {
        let row = |silicon: Silicon| {
            let row = self
                .rows
                .iter()
                .find(|row| row.silicon.contains(&silicon))?;
            Some((silicon, row.judge(attested)))
        };
        let known = |silicon: &Silicon| Some(silicon.product()) == attested.product;
        if attested.silicon.is_empty() {
            // A stepping that no row is about: of a product that is touched, nothing can be said.
            let touched = self.rows.iter().any(|row| row.silicon.iter().any(known));
            let why = "this stepping of the processor is not in the table";
            return touched.then(|| (Standing::NotAttestable, why.to_owned()));
        }
        let judged: Vec<_> = attested.silicon.iter().copied().filter_map(row).collect();
        let (_, first) = judged.first()?;
        let same = judged.len() == attested.silicon.len()
            && judged.iter().all(|(_, (standing, _))| *standing == first.0);
        if same {
            return Some(first.clone());
        }
        let each: Vec<String> = attested
            .silicon
            .iter()
            .map(|silicon| {
                let found = judged.iter().find(|(of, _)| of == silicon);
                let word = found.map_or("not affected", |(_, (standing, _))| standing.name());
                format!("{silicon}: {word}")
            })
            .collect();
        let why = format!("the report does not tell its model; {}", each.join(", "));
        Some((Standing::NotAttestable, why))
    }
}

impl Row {
    fn judge(&self, attested: &Attested) -> (Standing, String) {
        let note = || self.note.clone().unwrap_or_default();
        let by_smt = self.or_smt_off && !attested.smt;
        match self.status {
            RowStatus::Active | RowStatus::NotAttestable if by_smt => {
                (Standing::Fixed, "SMT is off".to_owned())
            }
            RowStatus::Active => self.hold(attested),
            RowStatus::NotAttestable => (Standing::NotAttestable, note()),
            RowStatus::Withdrawn => (Standing::Withdrawn, note()),
            RowStatus::Disputed => (Standing::Disputed, note()),
            RowStatus::NoFix => (Standing::NoFix, note()),
        }
    }

    fn hold(&self, attested: &Attested) -> (Standing, String) {
        let mut lacking = Vec::new();
        let mut unseen = Vec::new();
        for (name, minimum) in self.minima() {
            let Some(minimum) = minimum else { continue };
            match attested.tcb.and_then(|tcb| tcb.component(name)) {
                None => unseen.push(format!("{name} is not in the report")),
                Some(value) if value >= minimum => {}
                Some(value) => lacking.push(format!("{name} {value}, needs {minimum}")),
            }
        }
        let mut bit = |asked: bool, found: Option<bool>, what: &str| match found {
            _ if !asked => {}
            Some(true) => {}
            Some(false) => lacking.push(format!("{what} is not on")),
            None => unseen.push(format!("reports of this version do not tell {what}")),
        };
        bit(
            self.alias_check_complete,
            attested.alias_check_complete,
            "the alias check",
        );
        bit(
            self.iommu_write_safe,
            attested.iommu_write_safe,
            "IOMMU write safety",
        );
        bit(
            self.ciphertext_hiding,
            Some(attested.ciphertext_hiding),
            "ciphertext hiding",
        );
        if let Some(number) = self.mitigation {
            let found = attested.mitigations.map(|vector| vector >> number & 1 == 1);
            bit(true, found, &format!("mitigation {number}"));
        }
        if !lacking.is_empty() {
            (Standing::NotFixed, lacking.join("; "))
        } else if !unseen.is_empty() {
            (Standing::NotAttestable, unseen.join("; "))
        } else {
            (Standing::Fixed, String::new())
        }
    }
}
