//! Rules of the report itself, of its leaf certificate, and of the two together.

use super::{Finding, Findings, product_name};
use crate::cert::PublicKey;
use crate::chain::Chain;
use crate::policy::Policy;
use crate::product::Product;
use crate::report::{Report, SigningKey, Version};

/// Checks of the leaf that need nothing of its extensions, for where there is no leaf.
pub(super) const LEAF_CHECKS: [(&str, &str); 2] = [
    ("leaf.key", "key of the VCEK or VLEK"),
    ("leaf.extensions", "AMD's extensions of the certificate"),
];

/// Checks of the leaf's extensions, for where they can't be read.
pub(super) const EXTENSION_CHECKS: [(&str, &str); 9] = [
    ("leaf.kind", "kind of the certificate"),
    ("leaf.product", "product of the certificate"),
    ("leaf.tcb.fmc", "FMC of the certificate"),
    ("leaf.tcb.boot_loader", "boot loader of the certificate"),
    ("leaf.tcb.tee", "TEE of the certificate"),
    ("leaf.tcb.snp", "SNP firmware of the certificate"),
    ("leaf.tcb.microcode", "microcode of the certificate"),
    ("leaf.hwid", "chip of the certificate"),
    ("leaf.csp_id", "cloud provider of the certificate"),
];

/// The check of the report's signature.
pub(super) const SIGNATURE_CHECK: (&str, &str) = ("report.signature", "signature of the report");

pub(super) fn version_finding() -> Finding {
    Finding::new("report.version", "version of the report").expected("2 to 5")
}

pub(super) fn report(findings: &mut Findings, report: &Report, policy: &Policy) {
    findings.push(version_finding().ok(report.version.number().to_string()));
    let format = || {
        Finding::new("report.format", "form of the report").expected("as the specification says")
    };
    let violations = report.violations();
    if violations.is_empty() {
        findings.push(format().ok("as the specification says"));
    }
    for violation in violations {
        findings.push(format().failed(violation.to_string()));
    }
    unknown_bits(findings, report, policy);
    processor(findings, report);
    let finding = Finding::new("report.signing_key", "kind of the signing key");
    let found = report
        .key_info
        .signing_key()
        .map_or("none", SigningKey::name);
    match policy.signing_key {
        Some(expected) => findings.judge(
            finding.expected(expected.name()),
            found,
            report.key_info.signing_key() == Some(expected),
        ),
        None => findings.push(finding.found(found).skipped("either kind will do")),
    }
}

/// Bits that this program does not know may weaken what it knows: only on request are they no
/// fault.
fn unknown_bits(findings: &mut Findings, report: &Report, policy: &Policy) {
    for (id, what, bits) in [
        (
            "policy.unknown_bits",
            "unknown bits of the guest policy",
            report.policy.unknown_bits(),
        ),
        (
            "platform.unknown_bits",
            "unknown bits of the platform info",
            report.platform_info.unknown_bits(),
        ),
    ] {
        let finding = Finding::new(id, what);
        findings.push(match (bits, policy.allow_unknown_bits) {
            (0, _) => finding.expected("none").ok("none"),
            (bits, true) => finding
                .found(format!("{bits:#x}"))
                .skipped("unknown bits were allowed"),
            (bits, false) => finding.expected("none").failed(format!("{bits:#x}")),
        });
    }
}

/// From version 3 on the report names its processor; one that is not known is not guessed.
fn processor(findings: &mut Findings, report: &Report) {
    let finding = Finding::new("report.processor", "processor of the report");
    findings.push(match report.cpuid {
        None => finding.skipped("reports of version 2 do not say"),
        Some(cpuid) => {
            let finding = finding.expected("Milan, Genoa or Turin");
            match cpuid.member() {
                Some(name) => finding.ok(format!("{name}, {cpuid}")),
                None if cpuid.is_venice() => finding
                    .failed(format!("Venice, {cpuid}"))
                    .because("this program has neither Venice's keys nor its layout of TCBs"),
                None => finding
                    .failed(cpuid.to_string())
                    .because("unknown processor"),
            }
        }
    });
}

pub(super) fn leaf(findings: &mut Findings, report: &Report, chain: &Chain, policy: &Policy) {
    let finding = Finding::new("leaf.key", "key of the VCEK or VLEK").expected("ECDSA P-384");
    let found = match chain.leaf().key() {
        PublicKey::P384(_) if chain.leaf_key().is_none() => {
            "a point that is not on P-384".to_owned()
        }
        key => key.describe(),
    };
    findings.judge(finding, found, chain.leaf_key().is_some());
    let finding = Finding::new("leaf.extensions", "AMD's extensions of the certificate")
        .expected("complete and well-formed");
    let extensions = match chain.leaf().endorsement() {
        Ok(extensions) => extensions,
        Err(error) => {
            findings.push(finding.failed("unfit").because(error.to_string()));
            for (id, what) in EXTENSION_CHECKS {
                findings.push(Finding::new(id, what).skipped("the extensions are unfit"));
            }
            return;
        }
    };
    findings.push(finding.ok("complete and well-formed"));
    let kind = Finding::new("leaf.kind", "kind of the certificate").expected(
        report
            .key_info
            .signing_key()
            .map_or("none", SigningKey::name),
    );
    let same = report.key_info.signing_key() == Some(extensions.signing_key());
    findings.judge(kind, extensions.signing_key().name(), same);
    product(
        findings,
        report,
        extensions.product,
        &extensions.product_name,
    );
    tcb(findings, report, extensions.product, extensions.tcb);
    chip(findings, report, extensions.hwid.as_deref(), policy);
    provider(findings, extensions.csp_id.as_deref(), policy);
}

fn product(findings: &mut Findings, report: &Report, product: Product, name: &str) {
    let finding = Finding::new("leaf.product", "product of the certificate");
    match report.version {
        Version::V2 => {
            // The words' reserved bytes tell the layouts apart.
            let words = [
                report.current_tcb,
                report.reported_tcb,
                report.committed_tcb,
                report.launch_tcb,
            ];
            let fits = words.iter().all(|word| word.reserved_is_zero(product));
            let finding = finding.expected("a layout of TCBs that fits the report's");
            findings.judge(finding, name.to_owned(), fits);
        }
        Version::V3 | Version::V4 | Version::V5 => {
            let finding = finding.expected(product_name(report.product()));
            findings.judge(finding, name.to_owned(), report.product() == Some(product));
        }
    }
}

fn tcb(findings: &mut Findings, report: &Report, product: Product, leaf: crate::tcb::Tcb) {
    let reported = report.reported_tcb.decode(product);
    for (id, what, expected, found) in [
        (
            "leaf.tcb.fmc",
            "FMC of the certificate",
            reported.fmc,
            leaf.fmc,
        ),
        (
            "leaf.tcb.boot_loader",
            "boot loader of the certificate",
            Some(reported.boot_loader),
            Some(leaf.boot_loader),
        ),
        (
            "leaf.tcb.tee",
            "TEE of the certificate",
            Some(reported.tee),
            Some(leaf.tee),
        ),
        (
            "leaf.tcb.snp",
            "SNP firmware of the certificate",
            Some(reported.snp),
            Some(leaf.snp),
        ),
        (
            "leaf.tcb.microcode",
            "microcode of the certificate",
            Some(reported.microcode),
            Some(leaf.microcode),
        ),
    ] {
        let finding = Finding::new(id, what);
        match (expected, found) {
            (Some(expected), Some(found)) => {
                let finding = finding.expected(expected.to_string());
                findings.judge(finding, found.to_string(), expected == found);
            }
            // On either side: the layout is that of the certificate's product.
            _ => findings.push(finding.skipped(format!("{product} has none"))),
        }
    }
}

fn chip(findings: &mut Findings, report: &Report, hwid: Option<&[u8]>, policy: &Policy) {
    let finding = Finding::new("leaf.hwid", "chip of the certificate");
    let Some(hwid) = hwid else {
        findings.push(finding.found("none").skipped("a VLEK belongs to no chip"));
        return;
    };
    if report.chip_id.is_zero() {
        findings.push(if policy.allow_masked_chip_id {
            finding
                .found(hex::encode(hwid))
                .skipped("the platform hides the chip's id; accepted by request")
        } else {
            finding
                .expected("the report's chip id")
                .failed(hex::encode(hwid))
                .because("the platform hides the chip's id, and that was not allowed")
        });
        return;
    }
    let (id, rest) = report
        .chip_id
        .0
        .split_at(hwid.len().min(report.chip_id.0.len()));
    findings.push(if rest.iter().any(|byte| *byte != 0) {
        // The certificate's id is shorter than the report's, which should have zeros after it.
        finding
            .expected(hex::encode(report.chip_id.0))
            .failed(hex::encode(hwid))
            .because(format!(
                "bytes of the report's chip id after the first {} are not zero",
                hwid.len()
            ))
    } else if id == hwid {
        finding.expected(hex::encode(id)).ok(hex::encode(hwid))
    } else {
        finding
            .expected(hex::encode(id))
            .failed(hex::encode(hwid))
            .because("the certificate is of another chip")
    });
}

/// An expected provider is looked for whatever the kind of the certificate: a VCEK is none of his.
fn provider(findings: &mut Findings, csp_id: Option<&str>, policy: &Policy) {
    let finding = Finding::new("leaf.csp_id", "cloud provider of the certificate");
    let found = csp_id.unwrap_or("none").to_owned();
    let foreign = "a VCEK belongs to no provider";
    if policy.csp_id.is_empty() {
        let reason = match csp_id {
            Some(_) => "no provider was expected",
            None => foreign,
        };
        findings.push(finding.found(found).skipped(reason));
        return;
    }
    let finding = finding.expected(policy.csp_id.join(" or "));
    findings.push(match csp_id {
        None => finding.failed(found).because(foreign),
        Some(id) if policy.csp_id.iter().any(|expected| expected == id) => finding.ok(found),
        Some(_) => finding.failed(found),
    });
}

/// Every check of a chain, where there is none to look at.
pub(super) fn nothing_of_the_chain(findings: &mut Findings, why: &'static str) {
    let above = super::chain::CHECKS.into_iter().chain(LEAF_CHECKS);
    for (id, what) in above.chain(EXTENSION_CHECKS).chain([SIGNATURE_CHECK]) {
        findings.push(Finding::new(id, what).skipped(why));
    }
}

pub(super) fn signature(findings: &mut Findings, report: &Report, chain: &Chain) {
    let signed = chain.leaf_signed_report(report);
    let (id, what) = SIGNATURE_CHECK;
    let finding = Finding::new(id, what).expected("ECDSA P-384, SHA-384, by the VCEK or VLEK");
    findings.judge(finding, if signed { "valid" } else { "invalid" }, signed);
}
