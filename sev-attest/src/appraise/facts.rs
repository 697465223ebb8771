//! The facts that decide, for people.

use crate::chain::Chain;
use crate::product::{Product, Silicon};
use crate::report::{HOST_VMPL, Report, SigningKey};

/// A line of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) label: &'static str,
    pub(super) text: String,
}

pub(super) fn of(report: &Report, chain: Option<&Chain>, product: Option<Product>) -> Vec<Fact> {
    let fact = |label, text: String| Fact { label, text };
    let key = report
        .key_info
        .signing_key()
        .map_or("no key", SigningKey::name);
    let until = chain.map_or_else(String::new, |chain| {
        format!(", valid until {}", chain.leaf().not_after())
    });
    let mut facts = vec![
        fact("product", product_words(report, product)),
        fact("chip", chip(report)),
        fact(
            "signed by",
            format!(
                "{key}{until}; report of version {}",
                report.version.number()
            ),
        ),
    ];
    facts.extend(tcb(report, product));
    let vmpl = match report.vmpl {
        HOST_VMPL => "the host asked for the report, not the guest".to_owned(),
        vmpl => vmpl.to_string(),
    };
    facts.push(fact("VMPL", vmpl));
    facts.push(fact("policy", policy(report)));
    facts
}

fn product_words(report: &Report, product: Option<Product>) -> String {
    let silicon: Vec<&str> = Silicon::possible(report.cpuid, product)
        .into_iter()
        .map(Silicon::name)
        .collect();
    let name = match (silicon.as_slice(), product) {
        ([], Some(product)) => product.name().to_owned(),
        ([], None) => "unknown".to_owned(),
        (names, _) => names.join(" or "),
    };
    match report.cpuid {
        Some(cpuid) => format!("{name} ({cpuid})"),
        None => format!("{name}, by its certificate: reports of version 2 do not say"),
    }
}

fn chip(report: &Report) -> String {
    match report.chip_id.is_zero() {
        true => "hidden by the platform".to_owned(),
        false => report.chip_id.to_string(),
    }
}

fn tcb(report: &Report, product: Option<Product>) -> Vec<Fact> {
    let words = |word: crate::tcb::TcbWord| match product {
        Some(product) => word.decode(product).to_string(),
        None => word.to_string(),
    };
    let reported = report.reported_tcb;
    let others = [
        ("running", report.current_tcb),
        ("committed", report.committed_tcb),
        ("at launch", report.launch_tcb),
    ];
    let same: Vec<&str> = others
        .iter()
        .filter(|(_, word)| *word == reported)
        .map(|(name, _)| *name)
        .collect();
    let mut text = words(reported);
    if !same.is_empty() {
        text.push_str(&format!(" (reported; the same {})", same.join(", ")));
    }
    let mut facts = vec![Fact { label: "TCB", text }];
    for (name, word) in others {
        if word != reported {
            facts.push(Fact {
                label: "",
                text: format!("{} {name}", words(word)),
            });
        }
    }
    let [running, committed] = [report.current_version, report.committed_version];
    let text = match running == committed {
        true => format!("{running}, committed"),
        false => format!("{running}, committed is {committed}"),
    };
    facts.push(Fact {
        label: "firmware",
        text,
    });
    facts
}

fn policy(report: &Report) -> String {
    let bits = report.policy;
    let word = |allowed: bool| if allowed { "allowed" } else { "forbidden" };
    format!(
        "{bits}: debugging {}, migration agent {}, SMT {}",
        word(bits.debug_allowed()),
        word(bits.migration_agent_allowed()),
        word(bits.smt_allowed())
    )
}
