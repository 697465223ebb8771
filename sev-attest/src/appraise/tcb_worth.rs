//! What a TCB is worth: the floors of its silicon, and AMD's bulletins.

use super::{Finding, Findings};
use crate::advisories::{Attested, Standing, Table};
use crate::policy::Policy;
use crate::product::{Product, Silicon};
use crate::report::Report;

pub(super) fn check(
    findings: &mut Findings,
    report: &Report,
    policy: &Policy,
    product: Option<Product>,
) {
    let attested = Attested::of(report, product);
    floors(findings, &attested, policy);
    advisories(findings, &attested, policy);
}

/// Components of a TCB, with the names of their checks.
const FLOORS: [(&str, &str); 5] = [
    ("fmc", "floor.fmc"),
    ("boot_loader", "floor.boot_loader"),
    ("tee", "floor.tee"),
    ("snp", "floor.snp"),
    ("microcode", "floor.microcode"),
];

fn floors(findings: &mut Findings, attested: &Attested, policy: &Policy) {
    const WHAT: &str = "least TCB of this silicon";
    let names: Vec<&str> = attested.silicon.iter().map(|it| it.name()).collect();
    let names = names.join(" or ");
    if policy.floors.0.is_empty() {
        findings.push(Finding::new("floor", WHAT).skipped("no floor was asked for"));
        return;
    }
    let covered = |silicon: &Silicon| policy.floors.0.contains_key(silicon);
    if attested.silicon.is_empty() || !attested.silicon.iter().all(covered) {
        let finding = Finding::new("floor", WHAT).expected("silicon that has a floor");
        findings.push(match (attested.product, attested.silicon.is_empty()) {
            (None, _) => finding.required("neither report nor certificate tells the product"),
            (Some(product), true) => finding
                .failed(product.name())
                .because("no floor is known for this stepping of the processor"),
            (Some(_), false) => finding
                .failed(names)
                .because("floors were asked for, and there is none for this silicon"),
        });
        return;
    }
    let mut any = false;
    for (component, id) in FLOORS {
        let Some((least, highest)) = policy.floors.of(&attested.silicon, component) else {
            continue;
        };
        any = true;
        let finding = Finding::new(id, WHAT).expected(if least == highest {
            format!("{component} at least {highest} ({names})")
        } else {
            format!("{component} at least {least} to {highest} ({names})")
        });
        findings.push(
            match attested.tcb.and_then(|tcb| tcb.component(component)) {
                Some(value) if value >= highest => finding.ok(value.to_string()),
                Some(value) if value < least => finding.failed(value.to_string()),
                Some(value) => finding
                    .found(value.to_string())
                    .required("the report does not tell its model, and their floors differ"),
                None => finding
                    .failed("none")
                    .because("the report has no such component"),
            },
        );
    }
    if !any {
        findings.push(Finding::new("floor", WHAT).skipped("the floor of this silicon is empty"));
    }
}

fn advisories(findings: &mut Findings, attested: &Attested, policy: &Policy) {
    let rules = &policy.advisories;
    let table = rules.table.as_ref().unwrap_or_else(|| Table::built_in());
    if attested.product.is_none() {
        let finding = Finding::new("advisories", "AMD's security bulletins");
        let why = "neither report nor certificate tells the product";
        findings.push(match rules.require {
            crate::policy::RequireAdvisories::None => finding.skipped(why),
            _ => finding.required(why),
        });
        return;
    }
    for assessment in table.assess(attested) {
        let advisory = assessment.advisory;
        let finding = Finding::new(
            format!("advisories.{}", advisory.bulletin),
            match advisory.title() {
                "" => advisory.bulletin.clone(),
                title => format!("{} ({title})", advisory.bulletin),
            },
        );
        let standing = assessment.standing;
        let told = |why: &str| match (assessment.why.as_str(), why) {
            ("", why) => why.to_owned(),
            (words, "") => words.to_owned(),
            (words, why) => format!("{words}; {why}"),
        };
        let required = rules.require.covers(&advisory.date);
        findings.push(match standing {
            Standing::Fixed => finding.expected("fixed").ok("fixed"),
            Standing::NotFixed if required => finding
                .expected("fixed")
                .failed("not fixed")
                .because(told(&advisory.gives)),
            Standing::NotFixed => finding
                .found("not fixed")
                .skipped(told("told only: --require-advisories insists on it")),
            _ => finding.found(standing.name()).skipped(told(match standing {
                Standing::NoFix => "a warning: no firmware helps",
                _ => "",
            })),
        });
    }
}
