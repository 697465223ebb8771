//! What a policy expects of a genuine report.

use std::borrow::Cow;
use std::fmt::Display;

use subtle::ConstantTimeEq as _;

use super::{Finding, Findings, product_name};
use crate::formats::Binding;
use crate::hex_bytes::HexBytes;
use crate::policy::{Policy, TcbMinimum};
use crate::product::Product;
use crate::report::{HOST_VMPL, Report, SigningKey};
use crate::tcb::TcbWord;

pub(super) fn check(
    findings: &mut Findings,
    report: &Report,
    binding: Option<&Binding>,
    policy: &Policy,
    product: Option<Product>,
) {
    guest(findings, report, binding, policy);
    id_block(findings, report, policy);
    guest_policy(findings, report, policy);
    vmpl(findings, report, policy);
    products(findings, policy, product);
    chip(findings, report, policy);
    firmware(findings, report, policy, product);
    tcbs(findings, report, policy, product);
    super::tcb_worth::check(findings, report, policy, product);
    platform(findings, report, policy);
    mitigations(findings, report, policy);
}

/// One of a list of byte strings, compared in constant time; an empty list expects nothing.
fn one_of<const N: usize>(
    findings: &mut Findings,
    (id, what): (&'static str, &'static str),
    expected: &[HexBytes<N>],
    found: &[u8; N],
    unasked: &'static str,
) {
    let finding = Finding::new(id, what);
    let text = hex::encode(found);
    if expected.is_empty() {
        findings.push(finding.found(text).skipped(unasked));
        return;
    }
    // All zero is what a report has where there is none.
    let listed: Vec<String> = expected
        .iter()
        .map(|pin| match pin.is_zero() {
            true => format!("none ({pin})"),
            false => pin.to_string(),
        })
        .collect();
    // Every entry is compared: which one it was does not show in the time it takes.
    let same = expected
        .iter()
        .fold(subtle::Choice::from(0), |same, expected| {
            same | expected.0.as_slice().ct_eq(found.as_slice())
        });
    findings.judge(finding.expected(listed.join(" or ")), text, same.into());
}

fn guest(findings: &mut Findings, report: &Report, binding: Option<&Binding>, policy: &Policy) {
    one_of(
        findings,
        ("measurement", "launch digest"),
        &policy.measurement,
        &report.measurement,
        "none was expected: the guest can be anyone's",
    );
    let report_data = ("report_data", "report data");
    let bound = policy.report_data.zip(binding).and_then(|(data, binding)| {
        let place = super::binding::answers(report, binding, &data.0)?;
        Some((data, place))
    });
    match bound {
        Some((data, place)) => findings.push(
            Finding::new(report_data.0, report_data.1)
                .expected(data.to_string())
                .ok(data.to_string())
                .because(place),
        ),
        None => one_of(
            findings,
            report_data,
            policy.report_data.as_slice(),
            &report.report_data,
            "none was expected: the report can be old, or another's",
        ),
    }
    one_of(
        findings,
        ("host_data", "host data"),
        &policy.host_data,
        &report.host_data,
        "none was expected",
    );
}

fn id_block(findings: &mut Findings, report: &Report, policy: &Policy) {
    let none = "none was expected";
    one_of(
        findings,
        ("family_id", "family id"),
        policy.family_id.as_slice(),
        &report.family_id,
        none,
    );
    one_of(
        findings,
        ("image_id", "image id"),
        policy.image_id.as_slice(),
        &report.image_id,
        none,
    );
    one_of(
        findings,
        ("id_key_digest", "key of the ID block"),
        &policy.id_key_digest,
        &report.id_key_digest,
        none,
    );
    let author = ("author_key_digest", "key of the ID key");
    let none_will_do = policy.author_key_digest.iter().any(HexBytes::is_zero);
    if !policy.author_key_digest.is_empty()
        && !report.key_info.author_key_enabled()
        && !none_will_do
    {
        let finding = Finding::new(author.0, author.1).expected("a key that signed the ID key");
        findings.push(
            finding
                .failed("none")
                .because("the launch had no author key"),
        );
    } else {
        one_of(
            findings,
            author,
            &policy.author_key_digest,
            &report.author_key_digest,
            none,
        );
    }
    minimum(
        findings,
        ("guest_svn", "guest SVN"),
        policy.min_guest_svn,
        report.guest_svn,
    );
}

/// A value with a minimum.
fn minimum<T: PartialOrd + Display>(
    findings: &mut Findings,
    (id, what): (&'static str, &'static str),
    minimum: Option<T>,
    found: T,
) {
    let finding = Finding::new(id, what);
    match minimum {
        None => findings.push(
            finding
                .found(found.to_string())
                .skipped("no minimum was asked for"),
        ),
        Some(minimum) => findings.judge(
            finding.expected(format!("at least {minimum}")),
            found.to_string(),
            found >= minimum,
        ),
    }
}

/// A bit that must have a value; `found` is `None` where the report's version does not have it.
fn bit(
    findings: &mut Findings,
    (id, what): (&'static str, &'static str),
    expected: Option<bool>,
    found: Option<bool>,
    [no, yes]: [&'static str; 2],
) {
    let word = |value: bool| if value { yes } else { no };
    let finding = Finding::new(id, what);
    const ABSENT: &str = "reports of this version do not have this bit";
    match (expected, found) {
        (None, Some(found)) => {
            findings.push(finding.found(word(found)).skipped("either will do"));
        }
        (None, None) => findings.push(finding.skipped(ABSENT)),
        (Some(expected), None) => findings.push(
            finding
                .expected(word(expected))
                .failed("not in this version")
                .because(ABSENT),
        ),
        (Some(expected), Some(found)) => {
            findings.judge(
                finding.expected(word(expected)),
                word(found),
                expected == found,
            );
        }
    }
}

fn guest_policy(findings: &mut Findings, report: &Report, policy: &Policy) {
    let rules = &policy.guest_policy;
    let bits = report.policy;
    let allowed = ["forbidden", "allowed"];
    let required = ["not required", "required"];
    for (id, what, expected, found, words) in [
        (
            "policy.debug",
            "debugging by the host",
            rules.debug,
            Some(bits.debug_allowed()),
            allowed,
        ),
        (
            "policy.migration_agent",
            "migration agent",
            rules.migration_agent,
            Some(bits.migration_agent_allowed()),
            allowed,
        ),
        (
            "policy.smt",
            "SMT",
            rules.smt,
            Some(bits.smt_allowed()),
            allowed,
        ),
        (
            "policy.single_socket",
            "one socket only",
            rules.single_socket,
            Some(bits.single_socket()),
            required,
        ),
        (
            "policy.cxl",
            "CXL",
            rules.cxl,
            Some(bits.cxl_allowed()),
            allowed,
        ),
        (
            "policy.mem_aes_256_xts",
            "memory encryption by AES-256-XTS",
            rules.mem_aes_256_xts,
            Some(bits.mem_aes_256_xts()),
            required,
        ),
        (
            "policy.rapl_disabled",
            "RAPL off",
            rules.rapl_disabled,
            Some(bits.rapl_disabled()),
            required,
        ),
        (
            "policy.ciphertext_hiding",
            "ciphertext hiding",
            rules.ciphertext_hiding,
            Some(bits.ciphertext_hiding()),
            required,
        ),
        (
            "policy.page_swap_disabled",
            "no page move and swap by the host",
            rules.page_swap_disabled,
            report.page_swap_disabled(),
            required,
        ),
    ] {
        bit(findings, (id, what), expected, found, words);
    }
    let (major, minor) = bits.abi_minimum();
    minimum(
        findings,
        ("policy.abi", "ABI version that the guest policy asks for"),
        rules.min_abi,
        crate::policy::AbiVersion { major, minor },
    );
}

fn vmpl(findings: &mut Findings, report: &Report, policy: &Policy) {
    let expected: Vec<String> = policy.vmpl.iter().map(ToString::to_string).collect();
    let finding =
        Finding::new("vmpl", "privilege level of the asker").expected(expected.join(" or "));
    let found: Cow<'static, str> = match report.vmpl {
        HOST_VMPL => Cow::Borrowed("the host"),
        vmpl => Cow::Owned(vmpl.to_string()),
    };
    let ok = report.vmpl != HOST_VMPL && policy.vmpl.contains(&report.vmpl);
    findings.judge(finding, found, ok);
}

fn products(findings: &mut Findings, policy: &Policy, product: Option<Product>) {
    let finding = Finding::new("product", "product");
    if policy.product.is_empty() {
        let finding = finding.found(product_name(product));
        findings.push(finding.skipped("any known one will do"));
        return;
    }
    let names: Vec<&str> = policy
        .product
        .iter()
        .map(|product| product.name())
        .collect();
    let finding = finding.expected(names.join(" or "));
    match product {
        None => findings.push(finding.required("neither report nor certificate tells it")),
        Some(found) => findings.judge(finding, found.name(), policy.product.contains(&found)),
    }
}

fn chip(findings: &mut Findings, report: &Report, policy: &Policy) {
    let id = ("chip_id", "chip");
    if report.chip_id.is_zero() {
        let finding = Finding::new(id.0, id.1);
        findings.push(if !policy.chip_id.is_empty() {
            finding
                .expected("a known chip")
                .failed("hidden by the platform")
        } else if report.key_info.signing_key() == Some(SigningKey::Vlek)
            || policy.allow_masked_chip_id
        {
            finding
                .found("hidden by the platform")
                .skipped("none was expected")
        } else {
            finding
                .expected("the chip's id")
                .failed("hidden by the platform")
                .because("a hidden chip id was not allowed")
        });
        return;
    }
    one_of(
        findings,
        id,
        &policy.chip_id,
        &report.chip_id.0,
        "none was expected",
    );
}

fn firmware(findings: &mut Findings, report: &Report, policy: &Policy, product: Option<Product>) {
    minimum(
        findings,
        ("firmware.current", "version of the running firmware"),
        policy.firmware.min_current,
        report.current_version,
    );
    minimum(
        findings,
        ("firmware.committed", "version of the committed firmware"),
        policy.firmware.min_committed,
        report.committed_version,
    );
    provisional(findings, report, policy, product);
    order(findings, report, product);
}

/// Running firmware that is not committed can be rolled back by the host. Microcode is left out: it
/// is loaded by the host's operating system at each start, ahead of what was last committed.
fn provisional(
    findings: &mut Findings,
    report: &Report,
    policy: &Policy,
    product: Option<Product>,
) {
    let finding = Finding::new("firmware.provisional", "running firmware is committed");
    let Some(product) = product else {
        findings.push(finding.required("the layout of the TCBs is not known"));
        return;
    };
    let without_microcode = |word: TcbWord| {
        let mut tcb = word.decode(product);
        tcb.microcode = 0;
        tcb
    };
    let same = report.current_version == report.committed_version
        && without_microcode(report.current_tcb) == without_microcode(report.committed_tcb);
    let found: Cow<'static, str> = if same {
        Cow::Borrowed("committed")
    } else {
        let mut parts = Vec::new();
        let [running, committed] = [report.current_version, report.committed_version];
        if running != committed {
            parts.push(format!("running {running}, committed {committed}"));
        }
        let [running, committed] =
            [report.current_tcb, report.committed_tcb].map(|word| word.decode(product));
        for (name, running, committed) in [
            ("FMC", running.fmc, committed.fmc),
            (
                "boot loader",
                Some(running.boot_loader),
                Some(committed.boot_loader),
            ),
            ("TEE", Some(running.tee), Some(committed.tee)),
            ("SNP firmware", Some(running.snp), Some(committed.snp)),
        ] {
            let both = running.zip(committed);
            if let Some((running, committed)) = both.filter(|(a, b)| a != b) {
                parts.push(format!("running {name} {running}, committed {committed}"));
            }
        }
        Cow::Owned(parts.join("; "))
    };
    if policy.firmware.allow_provisional {
        findings.push(
            finding
                .found(found)
                .skipped("provisional firmware was allowed"),
        );
    } else {
        let finding = finding.expected("committed");
        findings.push(if same {
            finding.ok(found)
        } else {
            finding
                .failed(found)
                .because("what is not committed can be rolled back by the host")
        });
    }
}

/// The firmware never reports more than it runs, nor runs less than is committed.
fn order(findings: &mut Findings, report: &Report, product: Option<Product>) {
    let finding = Finding::new("tcb.order", "order of the TCBs");
    let Some(product) = product else {
        findings.push(finding.required("the layout of the TCBs is not known"));
        return;
    };
    let current = report.current_tcb.decode(product);
    let fault = if !current.is_at_least(report.committed_tcb.decode(product)) {
        Some("the running TCB is older than the committed one")
    } else if !current.is_at_least(report.reported_tcb.decode(product)) {
        Some("the running TCB is older than the reported one")
    } else if report.current_version < report.committed_version {
        Some("the running firmware is older than the committed one")
    } else {
        None
    };
    let finding = finding.expected("running not below committed or reported");
    findings.push(match fault {
        None => finding.ok("in order"),
        Some(fault) => finding.failed("out of order").because(fault),
    });
}

fn tcbs(findings: &mut Findings, report: &Report, policy: &Policy, product: Option<Product>) {
    let rules = &policy.tcb;
    for (ids, whats, minimum, word) in [
        (
            &REPORTED,
            "reported TCB",
            &rules.reported,
            report.reported_tcb,
        ),
        (
            &COMMITTED,
            "committed TCB",
            &rules.committed,
            report.committed_tcb,
        ),
        (&LAUNCH, "TCB at launch", &rules.launch, report.launch_tcb),
        (&CURRENT, "running TCB", &rules.current, report.current_tcb),
    ] {
        tcb(findings, (ids, whats), minimum, word, product);
    }
}

/// Names of a TCB's checks: of the whole, and of each component as in [`TcbMinimum::compared`].
type TcbIds = [&'static str; 6];

const REPORTED: TcbIds = [
    "tcb.reported",
    "tcb.reported.fmc",
    "tcb.reported.boot_loader",
    "tcb.reported.tee",
    "tcb.reported.snp",
    "tcb.reported.microcode",
];
const COMMITTED: TcbIds = [
    "tcb.committed",
    "tcb.committed.fmc",
    "tcb.committed.boot_loader",
    "tcb.committed.tee",
    "tcb.committed.snp",
    "tcb.committed.microcode",
];
const LAUNCH: TcbIds = [
    "tcb.launch",
    "tcb.launch.fmc",
    "tcb.launch.boot_loader",
    "tcb.launch.tee",
    "tcb.launch.snp",
    "tcb.launch.microcode",
];
const CURRENT: TcbIds = [
    "tcb.current",
    "tcb.current.fmc",
    "tcb.current.boot_loader",
    "tcb.current.tee",
    "tcb.current.snp",
    "tcb.current.microcode",
];

fn tcb(
    findings: &mut Findings,
    (ids, what): (&TcbIds, &'static str),
    minimum: &TcbMinimum,
    word: TcbWord,
    product: Option<Product>,
) {
    let [whole, parts @ ..] = ids;
    let found = match product {
        Some(product) => word.decode(product).to_string(),
        None => word.to_string(),
    };
    if minimum.is_empty() {
        let finding = Finding::new(*whole, what).found(found);
        findings.push(finding.skipped("no minimum was asked for"));
        return;
    }
    let Some(product) = product else {
        let finding = Finding::new(*whole, what).found(found);
        findings.push(finding.required("the layout of the TCBs is not known"));
        return;
    };
    for (id, (name, minimum, value)) in parts.iter().zip(minimum.compared(word.decode(product))) {
        let finding = Finding::new(*id, what);
        let Some(minimum) = minimum else {
            let found = match value {
                Some(value) => format!("{name} {value}"),
                None => format!("no {name}"),
            };
            findings.push(finding.found(found).skipped("no minimum was asked for"));
            continue;
        };
        let finding = finding.expected(format!("{name} at least {minimum}"));
        match value {
            Some(value) => findings.judge(finding, value.to_string(), value >= minimum),
            None => findings.push(
                finding
                    .failed("none")
                    .because(format!("{product} has no such component")),
            ),
        }
    }
}

fn platform(findings: &mut Findings, report: &Report, policy: &Policy) {
    let rules = &policy.platform;
    let info = report.platform_info;
    let words = ["off", "on"];
    for (id, what, expected, found) in [
        ("platform.smt", "platform: SMT", rules.smt, Some(info.smt())),
        (
            "platform.tsme",
            "platform: TSME",
            rules.tsme,
            Some(info.tsme()),
        ),
        (
            "platform.ecc",
            "platform: ECC memory",
            rules.ecc,
            Some(info.ecc()),
        ),
        (
            "platform.rapl_disabled",
            "platform: RAPL disabled",
            rules.rapl_disabled,
            Some(info.rapl_disabled()),
        ),
        (
            "platform.ciphertext_hiding",
            "platform: ciphertext hiding",
            rules.ciphertext_hiding,
            Some(info.ciphertext_hiding()),
        ),
        (
            "platform.alias_check_complete",
            "platform: alias check complete",
            rules.alias_check_complete,
            report.alias_check_complete(),
        ),
        (
            "platform.iommu_write_safe",
            "platform: IOMMU write safe",
            rules.iommu_write_safe,
            report.iommu_write_safe(),
        ),
        (
            "platform.tio",
            "platform: trusted I/O",
            rules.tio,
            report.tio(),
        ),
    ] {
        bit(findings, (id, what), expected, found, words);
    }
}

fn mitigations(findings: &mut Findings, report: &Report, policy: &Policy) {
    for (id, what, expected, found) in [
        (
            "mitigations.launch",
            "mitigations at launch",
            policy.mitigations.launch,
            report.launch_mitigations,
        ),
        (
            "mitigations.current",
            "mitigations now",
            policy.mitigations.current,
            report.current_mitigations,
        ),
    ] {
        let finding = Finding::new(id, what);
        let text = found.map_or(Cow::Borrowed("none"), |vector| {
            Cow::Owned(format!("{vector:#x}"))
        });
        findings.push(match (expected, found) {
            (None, _) => finding.found(text).skipped("none were expected"),
            (Some(expected), found) => {
                let finding = finding.expected(format!("all of {expected:#x}"));
                match found {
                    Some(vector) if vector & expected == expected => finding.ok(text),
                    Some(_) => finding.failed(text),
                    None => finding
                        .failed(text)
                        .because("reports below version 5 have no mitigation vectors"),
                }
            }
        });
    }
}
