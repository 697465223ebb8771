//! Rules of the chain, from the root to the leaf.

use super::{Finding, Findings};
use crate::cert::{Certificate, Role};
use crate::chain::{Chain, Root};
use crate::policy::Policy;
use crate::time::UnixTime;

/// All checks of this module, for where there is nothing to check.
pub(super) const CHECKS: [(&str, &str); 13] = [
    ("chain.root", "root key"),
    ("chain.names", "names and kinds of the certificates"),
    ("ark.signature", "signature of the ARK by itself"),
    ("ask.signature", "signature of the ASK or ASVK by the ARK"),
    (
        "leaf.signature",
        "signature of the VCEK or VLEK by the ASK or ASVK",
    ),
    ("ark.constraints", "ARK may sign"),
    ("ask.constraints", "ASK or ASVK may sign"),
    ("leaf.constraints", "VCEK or VLEK signs reports only"),
    ("ark.validity", "validity of the ARK"),
    ("ask.validity", "validity of the ASK or ASVK"),
    ("leaf.validity", "validity of the VCEK or VLEK"),
    ("leaf.age", "age of the VCEK or VLEK"),
    ("chain.revocation", "revocation list"),
];

pub(super) fn check(findings: &mut Findings, chain: &Chain, policy: &Policy, at: UnixTime) {
    root(findings, chain, policy);
    names(findings, chain);
    signatures(findings, chain);
    constraints(findings, chain);
    validity(findings, chain, at);
    age(findings, chain, policy, at);
    revocation(findings, chain, policy, at);
}

fn root(findings: &mut Findings, chain: &Chain, policy: &Policy) {
    let finding = Finding::new("chain.root", "root key").expected("AMD's, built in");
    let name = chain.ark().role().to_string();
    findings.push(match chain.root() {
        Root::Amd(product) if Some(product) == chain.product() => finding.ok(name),
        Root::Amd(_) => finding
            .failed(name)
            .because("the root is another product's"),
        Root::Foreign if policy.allow_foreign_root => finding
            .ok("FOREIGN, accepted by request")
            .because("the root is not AMD's"),
        Root::Foreign => finding
            .failed("foreign")
            .because("the root's key is none of AMD's, whatever its name"),
    });
}

fn names(findings: &mut Findings, chain: &Chain) {
    let [ark, intermediate, leaf] = chain.certificates().map(Certificate::role);
    let finding = Finding::new("chain.names", "names and kinds of the certificates")
        .expected("one product's, in order");
    let found = format!("{leaf} under {intermediate} under {ark}");
    findings.judge(finding, found, chain.roles_fit());
}

fn signatures(findings: &mut Findings, chain: &Chain) {
    for (id, what, signed) in [
        (
            "ark.signature",
            "signature of the ARK by itself",
            chain.ark_is_self_signed(),
        ),
        (
            "ask.signature",
            "signature of the ASK or ASVK by the ARK",
            chain.intermediate_is_signed(),
        ),
        (
            "leaf.signature",
            "signature of the VCEK or VLEK by the ASK or ASVK",
            chain.leaf_is_signed(),
        ),
    ] {
        let finding = Finding::new(id, what).expected("RSA-4096, RSASSA-PSS, SHA-384");
        findings.judge(finding, if signed { "valid" } else { "invalid" }, signed);
    }
}

/// What forbids a certificate its place in the chain.
fn unfit(certificate: &Certificate, authority: bool) -> Option<&'static str> {
    if certificate.unknown_critical_extension().is_some() {
        return Some("it has a critical extension that is not understood");
    }
    let ca = certificate.basic_constraints().is_some_and(|(ca, _)| ca);
    match (authority, ca) {
        (true, false) => return Some("it is no CA by its basic constraints"),
        (false, true) => return Some("it is a CA by its basic constraints"),
        _ => {}
    }
    let usage_fits = if authority {
        certificate.may_sign_certificates() != Some(false)
    } else {
        certificate.may_sign_certificates() != Some(true)
            && certificate.may_sign_data() != Some(false)
    };
    (!usage_fits).then_some("its key usage does not allow it")
}

fn constraints(findings: &mut Findings, chain: &Chain) {
    let [ark, intermediate, leaf] = chain.certificates();
    // One more certificate than allowed may not stand below: the ASK's is the leaf alone.
    let ark_path = match ark.basic_constraints() {
        Some((_, Some(0))) => Some("its path length allows no ASK below it"),
        _ => None,
    };
    for (id, what, expected, fault) in [
        (
            "ark.constraints",
            "ARK may sign",
            "CA",
            unfit(ark, true).or(ark_path),
        ),
        (
            "ask.constraints",
            "ASK or ASVK may sign",
            "CA",
            unfit(intermediate, true),
        ),
        (
            "leaf.constraints",
            "VCEK or VLEK signs reports only",
            "no CA",
            unfit(leaf, false),
        ),
    ] {
        let finding = Finding::new(id, what).expected(expected);
        findings.push(match fault {
            None => finding.ok(expected),
            Some(fault) => finding.failed("unfit").because(fault),
        });
    }
}

fn validity(findings: &mut Findings, chain: &Chain, at: UnixTime) {
    let [ark, intermediate, leaf] = chain.certificates();
    for (id, what, certificate) in [
        ("ark.validity", "validity of the ARK", ark),
        ("ask.validity", "validity of the ASK or ASVK", intermediate),
        ("leaf.validity", "validity of the VCEK or VLEK", leaf),
    ] {
        let found = format!(
            "{} to {}",
            certificate.not_before(),
            certificate.not_after()
        );
        let finding = Finding::new(id, what).expected(format!("includes {at}"));
        findings.push(if certificate.is_valid_at(at) {
            finding.ok(found)
        } else if at < certificate.not_before() {
            finding.failed(found).because("not yet valid")
        } else {
            finding.failed(found).because("expired")
        });
    }
}

fn age(findings: &mut Findings, chain: &Chain, policy: &Policy, at: UnixTime) {
    let finding = Finding::new("leaf.age", "age of the VCEK or VLEK");
    let days = |seconds: u64| format!("{} days", seconds / 86_400);
    let age = at.since(chain.leaf().not_before());
    findings.push(match policy.max_certificate_age {
        None => finding
            .found(days(age.as_secs()))
            .skipped("no greatest age was asked for"),
        Some(max) => {
            let finding = finding.expected(format!("at most {}", days(max.as_secs())));
            if age <= max {
                finding.ok(days(age.as_secs()))
            } else {
                // Of the same number of days it is older by hours.
                let whole = days(age.as_secs());
                let same = whole == days(max.as_secs());
                finding.failed(if same {
                    format!("more than {whole}")
                } else {
                    whole
                })
            }
        }
    });
}

fn revocation(findings: &mut Findings, chain: &Chain, policy: &Policy, at: UnixTime) {
    let finding = Finding::new("chain.revocation", "revocation list")
        .expected("current, signed by the ARK, without these certificates");
    let Some((crl, signed)) = chain.crl() else {
        findings.push(if policy.require_crl {
            finding.required("a revocation list is required, and none could be had")
        } else {
            finding.skipped("no revocation list of this chain's ARK was given")
        });
        return;
    };
    let [ark, intermediate, leaf] = chain.certificates();
    let listed = [ark, intermediate, leaf].into_iter().find(|certificate| {
        // The serial number 0 is shared by all VCEKs and so names none.
        let named = certificate.serial().iter().any(|byte| *byte != 0);
        named && crl.lists(certificate)
    });
    let found = format!("of {}, {} entries", crl.this_update(), crl.revoked().len());
    let fault = if !crl.is_issued_in_name_of(ark) {
        let issuer = crl.issuer();
        Some(format!("it is of {issuer} and says nothing of this chain"))
    } else if !signed {
        Some("its signature is not the ARK's".to_owned())
    } else if ark.may_sign_crls() == Some(false) {
        Some("the ARK may not sign revocation lists".to_owned())
    } else if let Some(extension) = crl.critical_extension() {
        Some(format!(
            "its critical extension {extension} is not understood"
        ))
    } else if let Some(certificate) = listed {
        Some(match certificate.role() {
            Role::Other => "a certificate is revoked".to_owned(),
            role => format!("the {role} is revoked"),
        })
    } else if !crl.is_current_at(at) && policy.require_crl {
        // The service may just be behind: nothing speaks against the certificates.
        let finding = finding.found(found);
        findings.push(finding.required("the list is out of date, and no newer one could be had"));
        return;
    } else {
        (!crl.is_current_at(at)).then(|| "it is out of date".to_owned())
    };
    findings.push(match fault {
        None => finding.ok(found),
        Some(fault) => finding.failed(found).because(fault),
    });
}
