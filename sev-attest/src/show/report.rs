//! Every field of a report.

use serde_json::Value;

use super::{Entry, Section};
use crate::product::Product;
use crate::report::{HOST_VMPL, Report, SigningKey, Version};
use crate::tcb::TcbWord;

/// A report's fields in words. The layout of the TCBs follows `product`; without, and where the
/// report doesn't tell it, they are shown as words.
#[must_use]
pub fn report(report: &Report, product: Option<Product>) -> Vec<Section> {
    let product = report.product().or(product);
    let mut sections = vec![
        head(report),
        guest(report),
        guest_policy(report),
        platform(report, product),
        platform_info(report),
    ];
    for (key, title, word) in [
        (
            "reported_tcb",
            "reported TCB, of the signing key",
            report.reported_tcb,
        ),
        ("committed_tcb", "committed TCB", report.committed_tcb),
        ("launch_tcb", "TCB at launch", report.launch_tcb),
        ("current_tcb", "running TCB", report.current_tcb),
    ] {
        sections.push(tcb(key, title, word, product));
    }
    sections.push(signature(report));
    sections
}

fn head(report: &Report) -> Section {
    let version = report.version.number();
    let words = match report.version {
        Version::V2 => format!("{version}"),
        Version::V3 => format!("{version}, with CPUID"),
        Version::V4 => format!("{version}, read as 3: it has no public specification"),
        Version::V5 => format!("{version}, with CPUID and mitigation vectors"),
    };
    let vmpl = match report.vmpl {
        HOST_VMPL => "the host, not the guest, asked for the report".to_owned(),
        vmpl => vmpl.to_string(),
    };
    let violations: Vec<String> = report
        .violations()
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut entries = vec![
        Entry::new("version", "version", version, words),
        Entry::new("vmpl", "VMPL", report.vmpl, vmpl),
        Entry::new(
            "violations",
            "against the specification",
            violations.clone(),
            if violations.is_empty() {
                "nothing".to_owned()
            } else {
                violations.join("; ")
            },
        ),
    ];
    entries.push(Entry::hex("report_id", "report id", &report.report_id));
    let no_agent = report.report_id_ma.iter().all(|byte| *byte == 0xff);
    let mut agent = Entry::hex(
        "report_id_ma",
        "migration agent's report id",
        &report.report_id_ma,
    );
    if no_agent {
        agent.words = "none (all ones)".to_owned();
    }
    entries.push(agent);
    Section {
        key: "",
        title: "Attestation report".to_owned(),
        entries,
    }
}

fn guest(report: &Report) -> Section {
    Section {
        key: "guest",
        title: "guest".to_owned(),
        entries: vec![
            Entry::hex("measurement", "measurement", &report.measurement),
            Entry::hex("report_data", "report data", &report.report_data),
            Entry::hex("host_data", "host data", &report.host_data),
            Entry::new(
                "guest_svn",
                "guest SVN",
                report.guest_svn,
                report.guest_svn.to_string(),
            ),
            Entry::hex("family_id", "family id", &report.family_id),
            Entry::hex("image_id", "image id", &report.image_id),
            Entry::hex("id_key_digest", "ID key digest", &report.id_key_digest),
            Entry::hex(
                "author_key_digest",
                "author key digest",
                &report.author_key_digest,
            ),
            Entry::bit(
                "author_key_enabled",
                "author key",
                report.key_info.author_key_enabled(),
                ["none", "signed the ID key"],
            ),
        ],
    }
}

fn guest_policy(report: &Report) -> Section {
    let policy = report.policy;
    let allowed = ["forbidden", "allowed"];
    let required = ["not required", "required"];
    let (major, minor) = policy.abi_minimum();
    let bit = Entry::bit;
    Section {
        key: "guest_policy",
        title: format!("guest policy {policy}"),
        entries: vec![
            Entry::text("value", "value", policy.to_string()),
            Entry::text("min_abi", "least ABI version", format!("{major}.{minor}")),
            bit(
                "debug",
                "debugging by the host",
                policy.debug_allowed(),
                allowed,
            ),
            bit(
                "migration_agent",
                "migration agent",
                policy.migration_agent_allowed(),
                allowed,
            ),
            bit("smt", "SMT", policy.smt_allowed(), allowed),
            bit(
                "single_socket",
                "one socket only",
                policy.single_socket(),
                required,
            ),
            bit("cxl", "CXL", policy.cxl_allowed(), allowed),
            bit(
                "mem_aes_256_xts",
                "AES-256-XTS",
                policy.mem_aes_256_xts(),
                required,
            ),
            bit(
                "rapl_disabled",
                "RAPL off",
                policy.rapl_disabled(),
                required,
            ),
            bit(
                "ciphertext_hiding",
                "ciphertext hiding",
                policy.ciphertext_hiding(),
                required,
            ),
            Entry::later_bit(
                "page_swap_disabled",
                "no page move and swap",
                report.page_swap_disabled(),
                required,
            ),
        ],
    }
}

fn platform(report: &Report, product: Option<Product>) -> Section {
    let cpuid = report.cpuid.map(|cpuid| cpuid.to_string());
    let name = product.map(Product::name);
    let chip = if report.chip_id.is_zero() {
        "hidden by the platform"
    } else {
        ""
    };
    let mut chip_id = Entry::hex("chip_id", "chip id", &report.chip_id.0);
    if !chip.is_empty() {
        chip_id.words = chip.to_owned();
    }
    let key = report
        .key_info
        .signing_key()
        .map_or("none", SigningKey::name);
    let mitigations = |key, label, vector: Option<u64>| {
        let text = vector.map(|vector| format!("{vector:#x}"));
        let words = text
            .clone()
            .unwrap_or_else(|| "not in this version".to_owned());
        Entry::new(key, label, text, words)
    };
    Section {
        key: "platform",
        title: "platform".to_owned(),
        entries: vec![
            Entry::new(
                "product",
                "product",
                name,
                name.unwrap_or("not told by the report"),
            ),
            Entry::new(
                "cpuid",
                "processor",
                cpuid.clone(),
                cpuid.unwrap_or_else(|| "not in this version".to_owned()),
            ),
            chip_id,
            Entry::text("signing_key", "signing key", key),
            Entry::bit(
                "mask_chip_key",
                "chip's key",
                report.key_info.mask_chip_key(),
                ["in use", "masked"],
            ),
            Entry::text(
                "current_version",
                "running firmware",
                report.current_version.to_string(),
            ),
            Entry::text(
                "committed_version",
                "committed firmware",
                report.committed_version.to_string(),
            ),
            mitigations(
                "launch_mitigations",
                "mitigations at launch",
                report.launch_mitigations,
            ),
            mitigations(
                "current_mitigations",
                "mitigations now",
                report.current_mitigations,
            ),
        ],
    }
}

fn platform_info(report: &Report) -> Section {
    let info = report.platform_info;
    let bit = |key, label, value| Entry::bit(key, label, value, ["off", "on"]);
    let later = |key, label, value| Entry::later_bit(key, label, value, ["off", "on"]);
    Section {
        key: "platform_info",
        title: format!("platform info {info}"),
        entries: vec![
            Entry::text("value", "value", info.to_string()),
            bit("smt", "SMT", info.smt()),
            bit("tsme", "TSME", info.tsme()),
            bit("ecc", "ECC memory", info.ecc()),
            bit("rapl_disabled", "RAPL disabled", info.rapl_disabled()),
            bit(
                "ciphertext_hiding",
                "ciphertext hiding",
                info.ciphertext_hiding(),
            ),
            later(
                "alias_check_complete",
                "alias check complete",
                report.alias_check_complete(),
            ),
            later(
                "iommu_write_safe",
                "IOMMU write safe",
                report.iommu_write_safe(),
            ),
            later("tio", "trusted I/O", report.tio()),
        ],
    }
}

fn tcb(key: &'static str, title: &str, word: TcbWord, product: Option<Product>) -> Section {
    let mut entries = vec![Entry::text("value", "value", word.to_string())];
    if let Some(product) = product {
        let tcb = word.decode(product);
        let number = |key, label, value: u8| Entry::new(key, label, value, value.to_string());
        if let Some(fmc) = tcb.fmc {
            entries.push(number("fmc", "FMC", fmc));
        }
        entries.extend([
            number("boot_loader", "boot loader", tcb.boot_loader),
            number("tee", "TEE", tcb.tee),
            number("snp", "SNP firmware", tcb.snp),
            number("microcode", "microcode", tcb.microcode),
        ]);
    }
    Section {
        key,
        title: title.to_owned(),
        entries,
    }
}

fn signature(report: &Report) -> Section {
    let algorithm = match report.signature_algorithm {
        1 => "ECDSA P-384 with SHA-384".to_owned(),
        other => format!("unknown algorithm {other}"),
    };
    let mut entries = vec![Entry::new(
        "algorithm",
        "algorithm",
        report.signature_algorithm,
        algorithm,
    )];
    match report.signature.fixed() {
        Ok(fixed) => {
            let (r, s) = fixed.split_at(48);
            entries.push(Entry::hex("r", "r", r));
            entries.push(Entry::hex("s", "s", s));
        }
        Err(error) => entries.push(Entry::new(
            "malformed",
            "malformed",
            Value::String(error.to_string()),
            error.to_string(),
        )),
    }
    Section {
        key: "signature",
        title: "signature (not verified here)".to_owned(),
        entries,
    }
}
