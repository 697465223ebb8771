//! Certificates and revocation lists.

use super::{Entry, Section};
use crate::cert::{Certificate, Crl};
use crate::roots;

/// A certificate in words.
#[must_use]
pub fn certificate(certificate: &Certificate) -> Vec<Section> {
    let serial = hex::encode(certificate.serial());
    let constraints = match certificate.basic_constraints() {
        None => "none".to_owned(),
        Some((false, _)) => "no CA".to_owned(),
        Some((true, None)) => "CA".to_owned(),
        Some((true, Some(below))) => format!("CA, at most {below} more CAs below it"),
    };
    let algorithm = if certificate.is_pss_sha384() {
        "RSASSA-PSS with SHA-384"
    } else {
        "another algorithm than AMD's"
    };
    let root = roots::product_of_root(certificate).is_some();
    let mut entries = vec![
        Entry::text("role", "role", certificate.role().to_string()),
        Entry::text("subject", "subject", certificate.subject()),
        Entry::text("issuer", "issuer", certificate.issuer()),
        Entry::text("serial", "serial number", serial),
        Entry::text(
            "not_before",
            "valid from",
            certificate.not_before().to_string(),
        ),
        Entry::text("not_after", "valid to", certificate.not_after().to_string()),
        Entry::text("key", "key", certificate.key().describe()),
        Entry::text("signature_algorithm", "signed with", algorithm),
        Entry::text("basic_constraints", "basic constraints", constraints),
        Entry::bit(
            "built_in_root",
            "built-in root",
            root,
            ["no", "yes, by its key"],
        ),
    ];
    if let Some(extension) = certificate.unknown_critical_extension() {
        entries.push(Entry::text("unknown_critical", "not understood", extension));
    }
    let mut sections = vec![Section {
        key: "",
        title: format!("Certificate: {}", certificate.role()),
        entries,
    }];
    sections.extend(endorsement(certificate));
    sections
}

fn endorsement(certificate: &Certificate) -> Option<Section> {
    let extensions = certificate.endorsement().ok()?;
    let tcb = extensions.tcb;
    let number = |key, label, value: u8| Entry::new(key, label, value, value.to_string());
    let mut entries = vec![
        number(
            "struct_version",
            "structure version",
            extensions.struct_version,
        ),
        Entry::text(
            "product_name",
            "product name",
            extensions.product_name.clone(),
        ),
        Entry::text("product", "product", extensions.product.name()),
    ];
    if let Some(fmc) = tcb.fmc {
        entries.push(number("fmc", "FMC", fmc));
    }
    entries.extend([
        number("boot_loader", "boot loader", tcb.boot_loader),
        number("tee", "TEE", tcb.tee),
        number("snp", "SNP firmware", tcb.snp),
        number("microcode", "microcode", tcb.microcode),
    ]);
    if let Some(hwid) = &extensions.hwid {
        entries.push(Entry::hex("hwid", "chip", hwid));
    }
    if let Some(csp_id) = &extensions.csp_id {
        entries.push(Entry::text("csp_id", "cloud provider", csp_id.clone()));
    }
    Some(Section {
        key: "endorsement",
        title: "AMD's extensions".to_owned(),
        entries,
    })
}

/// A revocation list in words.
#[must_use]
pub fn crl(crl: &Crl) -> Vec<Section> {
    let next = crl.next_update().map(|time| time.to_string());
    let revoked: Vec<String> = crl.revoked().iter().map(hex::encode).collect();
    let words = if revoked.is_empty() {
        "none".to_owned()
    } else {
        revoked.join(", ")
    };
    vec![Section {
        key: "",
        title: "Certificate revocation list".to_owned(),
        entries: vec![
            Entry::text("issuer", "issuer", crl.issuer()),
            Entry::text("this_update", "made", crl.this_update().to_string()),
            Entry::new(
                "next_update",
                "next one by",
                next.clone(),
                next.unwrap_or_else(|| "not said".to_owned()),
            ),
            Entry::new("revoked", "revoked serial numbers", revoked, words),
        ],
    }]
}
