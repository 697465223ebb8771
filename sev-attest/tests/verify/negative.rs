//! What must be refused, by name, each for exactly the checks that it breaks: a rule that is dropped
//! makes its cases fail.

use sev_attest::cert::Certificate;
use sev_attest::hex_bytes::HexBytes;
use sev_attest::product::Product;
use sev_attest::report::{FirmwareVersion, Report, ReportError, SigningKey};
use sev_attest_issuer::certificate::{CertSpec, CrlSpec, Extension, Scheme, amd, ec_spki};
use sev_attest_issuer::der::{SHA256, SHA384, ia5, integer, octets, pss};
use sev_attest_issuer::{LeafKey, ReportSpec, RsaKey, SIGNED_LEN};

use crate::support::Case;
use Product::{Genoa, Milan, Turin};

/// A case by name, what makes it bad, and the checks that must fail.
type Row = (&'static str, Case, &'static [&'static str]);

fn case(product: Product, bend: impl FnOnce(&mut Case)) -> Case {
    let mut case = Case::new(product);
    bend(&mut case);
    case
}

/// A report that is bent before it is signed, with a certificate that fits it.
fn report(product: Product, bend: impl FnOnce(&mut ReportSpec)) -> Case {
    let mut spec = ReportSpec::new(product);
    bend(&mut spec);
    Case::of(spec)
}

/// A report whose bytes are bent before they are signed.
fn bytes(product: Product, version: u32, bend: impl FnOnce(&mut [u8])) -> Case {
    case(product, |case| {
        case.spec.version = version;
        let mut report = case.spec.to_bytes();
        bend(&mut report);
        case.report = Some(case.leaf.sign(report).to_vec());
    })
}

/// A report whose bytes are bent after they were signed.
fn tampered(bend: impl FnOnce(&mut [u8])) -> Case {
    case(Milan, |case| {
        let mut report = case.bytes();
        bend(&mut report);
        case.report = Some(report);
    })
}

/// A VCEK that is bent before the ASK signs it.
fn vcek(product: Product, bend: impl FnOnce(&mut CertSpec)) -> Case {
    case(product, |case| {
        let mut spec = CertSpec::vcek(&case.spec, &case.leaf.key);
        bend(&mut spec);
        case.leaf.der = spec.sign(&RsaKey::ask());
    })
}

/// A VLEK that is bent before the ASVK signs it.
fn vlek(bend: impl FnOnce(&mut CertSpec)) -> Case {
    let mut case = Case::of(ReportSpec::new(Genoa).with_vlek());
    let mut spec = CertSpec::vlek(&case.spec, &case.leaf.key);
    bend(&mut spec);
    case.leaf.der = spec.sign(&RsaKey::asvk());
    case
}

/// An ASK that is bent before the ARK signs it.
fn ask(bend: impl FnOnce(&mut CertSpec)) -> Case {
    case(Milan, |case| {
        let mut spec = CertSpec::ask(Milan, &RsaKey::ask());
        bend(&mut spec);
        case.intermediate = Some(spec.sign(&RsaKey::ark()));
    })
}

/// An ARK that is bent before it signs itself.
fn ark(bend: impl FnOnce(&mut CertSpec)) -> Case {
    case(Milan, |case| {
        let mut spec = CertSpec::ark(Milan, &RsaKey::ark());
        bend(&mut spec);
        case.ark = Some(spec.sign(&RsaKey::ark()));
    })
}

/// A revocation list that is bent before this key signs it.
fn crl(key: &RsaKey, bend: impl FnOnce(&mut CrlSpec)) -> Case {
    case(Milan, |case| {
        let mut spec = CrlSpec::new(Milan);
        bend(&mut spec);
        case.crl = Some(spec.sign(key));
    })
}

fn guest_rows() -> Vec<Row> {
    vec![
        (
            "another measurement",
            case(Milan, |c| c.policy.measurement = vec![HexBytes([0x3f; 48])]),
            &["measurement"],
        ),
        (
            "none of several measurements",
            case(Milan, |c| {
                c.policy.measurement = vec![HexBytes([0; 48]), HexBytes([1; 48])];
            }),
            &["measurement"],
        ),
        (
            "wrong nonce",
            case(Milan, |c| c.policy.report_data = Some(HexBytes([0x5c; 64]))),
            &["report_data"],
        ),
        (
            "other host data",
            case(Milan, |c| c.policy.host_data = vec![HexBytes([0; 32])]),
            &["host_data"],
        ),
        (
            "other family id",
            case(Milan, |c| c.policy.family_id = Some(HexBytes([0; 16]))),
            &["family_id"],
        ),
        (
            "other image id",
            case(Milan, |c| c.policy.image_id = Some(HexBytes([0; 16]))),
            &["image_id"],
        ),
        (
            "ID block by another key",
            case(Milan, |c| c.policy.id_key_digest = vec![HexBytes([0; 48])]),
            &["id_key_digest"],
        ),
        (
            "ID key by another author",
            {
                let mut case = report(Milan, |r| {
                    r.key_info = 1;
                    r.author_key_digest = [0xaa; 48];
                });
                case.policy.author_key_digest = vec![HexBytes([0xab; 48])];
                case
            },
            &["author_key_digest"],
        ),
        (
            "author's digest without an author key",
            {
                let mut case = report(Milan, |r| r.author_key_digest = [0xaa; 48]);
                case.policy.author_key_digest = vec![HexBytes([0xaa; 48])];
                case
            },
            &["author_key_digest"],
        ),
        (
            "older guest SVN",
            case(Milan, |c| c.policy.min_guest_svn = Some(4)),
            &["guest_svn"],
        ),
        ("report of VMPL 1", report(Milan, |r| r.vmpl = 1), &["vmpl"]),
        (
            "report of the host",
            report(Milan, |r| r.vmpl = u32::MAX),
            &["vmpl"],
        ),
        (
            "VMPL 0 where 1 is expected",
            case(Milan, |c| c.policy.vmpl = vec![1]),
            &["vmpl"],
        ),
    ]
}

fn policy_rows() -> Vec<Row> {
    let allowed = |bit: u64| report(Milan, move |r| r.policy |= 1 << bit);
    let mut rows: Vec<Row> = vec![
        ("guest that may be debugged", allowed(19), &["policy.debug"]),
        (
            "guest with a migration agent",
            allowed(18),
            &["policy.migration_agent"],
        ),
        (
            "guest policy for an older ABI",
            case(Milan, |c| {
                c.policy.guest_policy.min_abi = Some("1.55".parse().unwrap())
            }),
            &["policy.abi"],
        ),
    ];
    // Reports have these bits at 0, except SMT.
    type Rule = fn(&mut Case, Option<bool>);
    let bits: [(&'static str, Rule, bool, &'static [&'static str]); 7] = [
        (
            "SMT",
            |c, v| c.policy.guest_policy.smt = v,
            false,
            &["policy.smt"],
        ),
        (
            "several sockets",
            |c, v| c.policy.guest_policy.single_socket = v,
            true,
            &["policy.single_socket"],
        ),
        (
            "CXL",
            |c, v| c.policy.guest_policy.cxl = v,
            true,
            &["policy.cxl"],
        ),
        (
            "AES-128",
            |c, v| c.policy.guest_policy.mem_aes_256_xts = v,
            true,
            &["policy.mem_aes_256_xts"],
        ),
        (
            "RAPL",
            |c, v| c.policy.guest_policy.rapl_disabled = v,
            true,
            &["policy.rapl_disabled"],
        ),
        (
            "no ciphertext hiding",
            |c, v| c.policy.guest_policy.ciphertext_hiding = v,
            true,
            &["policy.ciphertext_hiding"],
        ),
        (
            "page swap",
            |c, v| c.policy.guest_policy.page_swap_disabled = v,
            true,
            &["policy.page_swap_disabled"],
        ),
    ];
    for (name, rule, expected, checks) in bits {
        rows.push((
            name,
            {
                let mut case = report(Milan, |r| r.policy = 0x3_0000);
                rule(&mut case, Some(expected));
                case
            },
            checks,
        ));
    }
    rows
}

fn tcb_rows() -> Vec<Row> {
    let minimum = |text: &str| text.parse().unwrap();
    let reported =
        |product, text: &'static str| case(product, move |c| c.policy.tcb.reported = minimum(text));
    vec![
        (
            "older boot loader",
            reported(Milan, "boot_loader=5"),
            &["tcb.reported.boot_loader"],
        ),
        ("older TEE", reported(Milan, "tee=2"), &["tcb.reported.tee"]),
        (
            "older SNP firmware",
            reported(Genoa, "snp=25"),
            &["tcb.reported.snp"],
        ),
        (
            "older microcode",
            reported(Milan, "microcode=220"),
            &["tcb.reported.microcode"],
        ),
        ("older FMC", reported(Turin, "fmc=2"), &["tcb.reported.fmc"]),
        (
            "older boot loader of Turin",
            reported(Turin, "boot_loader=5"),
            &["tcb.reported.boot_loader"],
        ),
        (
            "FMC asked of Milan",
            reported(Milan, "fmc=0"),
            &["tcb.reported.fmc"],
        ),
        (
            "newer parts don't make up for an older one",
            reported(Milan, "boot_loader=0,tee=0,snp=25,microcode=0"),
            &["tcb.reported.snp"],
        ),
        (
            "older committed TCB",
            case(Milan, |c| c.policy.tcb.committed = minimum("snp=25")),
            &["tcb.committed.snp"],
        ),
        (
            "older TCB at launch",
            {
                let mut case = report(Milan, |r| r.launch_tcb.snp = 23);
                case.policy.tcb.launch = minimum("snp=24");
                case
            },
            &["tcb.launch.snp"],
        ),
        (
            "older running TCB",
            case(Milan, |c| c.policy.tcb.current = minimum("microcode=220")),
            &["tcb.current.microcode"],
        ),
        (
            "older running firmware",
            case(Milan, |c| {
                c.policy.firmware.min_current = Some("1.55.41".parse().unwrap())
            }),
            &["firmware.current"],
        ),
        (
            "older committed firmware",
            case(Milan, |c| {
                c.policy.firmware.min_committed = Some("1.56.0".parse().unwrap())
            }),
            &["firmware.committed"],
        ),
        (
            "provisional firmware by version",
            report(Milan, |r| r.current_version.build = 41),
            &["firmware.provisional"],
        ),
        (
            "provisional firmware by TCB",
            report(Turin, |r| r.current_tcb.snp = 25),
            &["firmware.provisional"],
        ),
        (
            "running TCB below the committed one",
            report(Milan, |r| r.committed_tcb.microcode = 220),
            &["tcb.order"],
        ),
        (
            "running TCB below the reported one",
            report(Milan, |r| r.reported_tcb.microcode = 220),
            &["tcb.order"],
        ),
        (
            "running firmware below the committed one",
            report(Milan, |r| {
                r.committed_version = FirmwareVersion {
                    major: 1,
                    minor: 56,
                    build: 0,
                };
            }),
            &["firmware.provisional", "tcb.order"],
        ),
    ]
}

fn platform_rows() -> Vec<Row> {
    vec![
        (
            "platform with SMT",
            case(Milan, |c| c.policy.platform.smt = Some(false)),
            &["platform.smt"],
        ),
        (
            "platform without TSME",
            case(Milan, |c| c.policy.platform.tsme = Some(true)),
            &["platform.tsme"],
        ),
        (
            "platform with ECC where none is expected",
            case(Milan, |c| c.policy.platform.ecc = Some(false)),
            &["platform.ecc"],
        ),
        (
            "platform with RAPL",
            case(Milan, |c| c.policy.platform.rapl_disabled = Some(true)),
            &["platform.rapl_disabled"],
        ),
        (
            "platform without ciphertext hiding",
            case(Milan, |c| c.policy.platform.ciphertext_hiding = Some(true)),
            &["platform.ciphertext_hiding"],
        ),
        (
            "platform without alias check",
            {
                let mut case = report(Milan, |r| r.platform_info = 0x05);
                case.policy.platform.alias_check_complete = Some(true);
                case
            },
            &["platform.alias_check_complete"],
        ),
        (
            "platform whose IOMMU is not write safe",
            case(Turin, |c| c.policy.platform.iommu_write_safe = Some(true)),
            &["platform.iommu_write_safe"],
        ),
        (
            "platform with trusted I/O",
            {
                let mut case = report(Turin, |r| r.platform_info |= 1 << 7);
                case.policy.platform.tio = Some(false);
                case
            },
            &["platform.tio"],
        ),
        (
            "other chip",
            case(Milan, |c| {
                c.policy.chip_id = vec![HexBytes([1; 64]), HexBytes([2; 64])]
            }),
            &["chip_id"],
        ),
        (
            "masked chip id",
            case(Milan, |c| {
                c.spec.chip_id = [0; 64];
            }),
            &["leaf.hwid", "chip_id"],
        ),
        (
            "masked chip id where a chip is expected",
            case(Milan, |c| {
                c.spec.chip_id = [0; 64];
                c.policy.allow_masked_chip_id = true;
                c.policy.chip_id = vec![HexBytes([1; 64])];
            }),
            &["chip_id"],
        ),
        (
            "VCEK where a VLEK is expected",
            case(Milan, |c| c.policy.signing_key = Some(SigningKey::Vlek)),
            &["report.signing_key"],
        ),
        (
            "VLEK where a VCEK is expected",
            {
                let mut case = vlek(|_| {});
                case.policy.signing_key = Some(SigningKey::Vcek);
                case
            },
            &["report.signing_key"],
        ),
        (
            "other cloud provider",
            {
                let mut case = vlek(|_| {});
                case.policy.csp_id = vec!["another".to_owned()];
                case
            },
            &["leaf.csp_id"],
        ),
        (
            "cloud provider expected, VCEK's report",
            case(Milan, |c| c.policy.csp_id = vec!["another".to_owned()]),
            &["leaf.csp_id"],
        ),
        (
            "other product",
            case(Genoa, |c| c.policy.product = vec![Milan, Turin]),
            &["product"],
        ),
        (
            "old certificate",
            case(Milan, |c| {
                c.policy.max_certificate_age = Some(std::time::Duration::from_secs(86_400 * 365));
            }),
            &["leaf.age"],
        ),
        (
            "mitigation missing at launch",
            case(Turin, |c| c.policy.mitigations.launch = Some(0x40)),
            &["mitigations.launch"],
        ),
        (
            "mitigation missing now",
            case(Turin, |c| c.policy.mitigations.current = Some(0x7f)),
            &["mitigations.current"],
        ),
        (
            "mitigations asked of a report without them",
            case(Milan, |c| c.policy.mitigations.current = Some(0)),
            &["mitigations.current"],
        ),
    ]
}

fn format_rows() -> Vec<Row> {
    let format: &'static [&'static str] = &["report.format"];
    let signature: &'static [&'static str] = &["report.format", "report.signature"];
    vec![
        (
            "reserved word after key info",
            bytes(Milan, 3, |b| b[0x4c] = 1),
            format,
        ),
        (
            "reserved byte after CPUID",
            bytes(Milan, 3, |b| b[0x18b] = 1),
            format,
        ),
        (
            "last reserved byte before the chip id",
            bytes(Milan, 3, |b| b[0x19f] = 1),
            format,
        ),
        (
            "CPUID in a report of version 2",
            bytes(Milan, 2, |b| b[0x188] = 0x19),
            format,
        ),
        (
            "reserved byte after the running version",
            bytes(Milan, 3, |b| b[0x1eb] = 1),
            format,
        ),
        (
            "reserved byte after the committed version",
            bytes(Milan, 3, |b| b[0x1ef] = 1),
            format,
        ),
        (
            "mitigations in a report of version 3",
            bytes(Milan, 3, |b| b[0x1f8] = 1),
            format,
        ),
        (
            "mitigations in a report of version 4",
            bytes(Milan, 4, |b| b[0x207] = 1),
            format,
        ),
        (
            "reserved byte after the mitigations",
            bytes(Turin, 5, |b| b[0x208] = 1),
            format,
        ),
        (
            "last reserved byte before the signature",
            bytes(Turin, 5, |b| b[0x29f] = 1),
            format,
        ),
        (
            "guest policy without bit 17",
            report(Milan, |r| r.policy = 0x1_0000),
            format,
        ),
        (
            "reserved bit of the guest policy",
            report(Milan, |r| r.policy |= 1 << 26),
            &["policy.unknown_bits"],
        ),
        (
            "reserved bit of the platform info",
            report(Milan, |r| r.platform_info |= 1 << 8),
            &["platform.unknown_bits"],
        ),
        (
            "signed by a VCEK that is masked",
            report(Milan, |r| r.key_info = 1 << 1),
            &["report.format"],
        ),
        (
            "reserved bit of the key info",
            report(Milan, |r| r.key_info = 1 << 5),
            format,
        ),
        (
            "reserved signing key",
            report(Milan, |r| r.key_info = 2 << 2),
            &["report.format", "leaf.kind"],
        ),
        (
            "unsigned report by its own word",
            report(Milan, |r| r.key_info = 7 << 2),
            &["report.format", "leaf.kind"],
        ),
        (
            "no signature algorithm",
            report(Milan, |r| r.signature_algorithm = 0),
            format,
        ),
        (
            "unknown signature algorithm",
            report(Milan, |r| r.signature_algorithm = 2),
            format,
        ),
        (
            "VMPL that does not exist",
            report(Milan, |r| r.vmpl = 4),
            &["report.format", "vmpl"],
        ),
        (
            "reserved byte in the running TCB",
            bytes(Milan, 3, |b| b[0x3a] = 1),
            format,
        ),
        (
            "reserved byte in the reported TCB",
            bytes(Genoa, 3, |b| b[0x185] = 1),
            format,
        ),
        (
            "reserved byte in the committed TCB",
            bytes(Turin, 5, |b| b[0x1e4] = 1),
            format,
        ),
        (
            "reserved byte in the TCB at launch",
            bytes(Turin, 5, |b| b[0x1f6] = 1),
            format,
        ),
        (
            "unknown processor",
            report(Turin, |r| r.cpuid.model = 0x50),
            &["report.processor"],
        ),
        (
            "r with more than 384 bits",
            tampered(|b| b[SIGNED_LEN + 48] = 1),
            signature,
        ),
        (
            "s with more than 384 bits",
            tampered(|b| b[SIGNED_LEN + 72 + 71] = 1),
            signature,
        ),
        (
            "bytes after r and s",
            tampered(|b| b[SIGNED_LEN + 144] = 1),
            signature,
        ),
        (
            "last byte after r and s",
            tampered(|b| b[0x49f] = 1),
            signature,
        ),
        (
            "r is zero",
            tampered(|b| b[SIGNED_LEN..SIGNED_LEN + 48].fill(0)),
            signature,
        ),
        (
            "s is zero",
            tampered(|b| b[SIGNED_LEN + 72..SIGNED_LEN + 120].fill(0)),
            signature,
        ),
        (
            "no signature at all",
            tampered(|b| b[SIGNED_LEN..].fill(0)),
            signature,
        ),
        (
            "r is too large",
            tampered(|b| b[SIGNED_LEN..SIGNED_LEN + 48].fill(0xff)),
            signature,
        ),
        (
            "s is too large",
            tampered(|b| b[SIGNED_LEN + 72..SIGNED_LEN + 120].fill(0xff)),
            signature,
        ),
    ]
}

fn signature_rows() -> Vec<Row> {
    let signature: &'static [&'static str] = &["report.signature"];
    vec![
        (
            "signed by another key",
            case(Milan, |c| {
                c.report = Some(LeafKey::new(8).sign_report(c.spec.to_bytes()).to_vec());
            }),
            signature,
        ),
        (
            "measurement changed after signing",
            tampered(|b| b[0x90] ^= 1),
            signature,
        ),
        (
            "report data changed after signing",
            tampered(|b| b[0x50] ^= 0x80),
            signature,
        ),
        (
            "r and s swapped",
            tampered(|b| {
                let (r, s) = b[SIGNED_LEN..SIGNED_LEN + 144].split_at_mut(72);
                r.swap_with_slice(s);
            }),
            signature,
        ),
        (
            "r and s big-endian",
            tampered(|b| {
                b[SIGNED_LEN..SIGNED_LEN + 48].reverse();
                b[SIGNED_LEN + 72..SIGNED_LEN + 120].reverse();
            }),
            signature,
        ),
        (
            "signature of another report",
            case(Milan, |c| {
                let mut other = c.spec.clone();
                other.measurement = [0; 48];
                let signed = c.leaf.sign(other.to_bytes());
                let mut report = c.spec.to_bytes();
                report[SIGNED_LEN..].copy_from_slice(&signed[SIGNED_LEN..]);
                c.report = Some(report.to_vec());
            }),
            signature,
        ),
    ]
}

fn chain_rows() -> Vec<Row> {
    vec![
        (
            "foreign ARK with AMD's name",
            case(Milan, |c| c.policy.allow_foreign_root = false),
            &["chain.root"],
        ),
        (
            "ARK of another product",
            case(Milan, |c| {
                c.ark = Some(CertSpec::ark(Genoa, &RsaKey::ark()).sign(&RsaKey::ark()));
            }),
            &["chain.names"],
        ),
        (
            "swapped ASK: another product's",
            case(Milan, |c| {
                c.intermediate = Some(CertSpec::ask(Genoa, &RsaKey::ask()).sign(&RsaKey::ark()));
            }),
            &["chain.names"],
        ),
        (
            "swapped ASK: the ASVK",
            case(Milan, |c| c.intermediate = Some(c.issuer.asvk.clone())),
            &["chain.names", "leaf.signature"],
        ),
        (
            "ASK by another ARK",
            case(Milan, |c| {
                let spec = CertSpec::ask(Milan, &RsaKey::ask());
                c.intermediate = Some(spec.sign(&RsaKey::asvk()));
            }),
            &["ask.signature"],
        ),
        (
            "ARK not signed by itself",
            case(Milan, |c| {
                c.ark = Some(CertSpec::ark(Milan, &RsaKey::ark()).sign(&RsaKey::ask()));
            }),
            &["ark.signature"],
        ),
        (
            "VCEK by another ASK",
            case(Milan, |c| {
                let spec = CertSpec::vcek(&c.spec, &c.leaf.key);
                c.leaf.der = spec.sign(&RsaKey::asvk());
            }),
            &["leaf.signature"],
        ),
        (
            "VCEK by the ARK",
            case(Milan, |c| {
                let mut spec = CertSpec::vcek(&c.spec, &c.leaf.key);
                spec.issuer = "ARK-Milan".to_owned();
                c.leaf.der = spec.sign(&RsaKey::ark());
            }),
            &["chain.names", "leaf.signature"],
        ),
        (
            "VCEK named otherwise",
            vcek(Milan, |s| s.subject = "VCEK".to_owned()),
            &["chain.names"],
        ),
        (
            "VCEK in the name of another issuer",
            vcek(Milan, |s| s.issuer = "SEV-Genoa".to_owned()),
            &["chain.names"],
        ),
        (
            "ASK in the name of another issuer",
            ask(|s| s.issuer = "ARK-Genoa".to_owned()),
            &["chain.names"],
        ),
        (
            "expired VCEK",
            vcek(Milan, |s| s.not_after = "260531235959Z".to_owned()),
            &["leaf.validity"],
        ),
        (
            "VCEK not yet valid",
            vcek(Milan, |s| s.not_before = "260601000001Z".to_owned()),
            &["leaf.validity"],
        ),
        (
            "expired VLEK",
            vlek(|s| s.not_after = "260101000000Z".to_owned()),
            &["leaf.validity"],
        ),
        (
            "expired ASK",
            ask(|s| s.not_after = "260101000000Z".to_owned()),
            &["ask.validity"],
        ),
        (
            "expired ARK",
            ark(|s| s.not_after = "260101000000Z".to_owned()),
            &["ark.validity"],
        ),
        (
            "ARK not yet valid",
            ark(|s| s.not_before = "270101000000Z".to_owned()),
            &["ark.validity"],
        ),
        (
            "RSA-2048 ASK",
            case(Milan, |c| {
                let short = RsaKey::short();
                c.intermediate = Some(CertSpec::ask(Milan, &short).sign(&RsaKey::ark()));
                c.leaf.der = CertSpec::vcek(&c.spec, &c.leaf.key).sign(&short);
            }),
            &["leaf.signature"],
        ),
        (
            "PSS with SHA-256",
            vcek(Milan, |s| {
                s.algorithm = pss(SHA256, 32);
                s.scheme = Scheme::PssSha256;
            }),
            &["leaf.signature"],
        ),
        (
            "PSS with SHA-256, said to be SHA-384",
            vcek(Milan, |s| s.scheme = Scheme::PssSha256),
            &["leaf.signature"],
        ),
        (
            "PSS parameters with another length of salt",
            vcek(Milan, |s| s.algorithm = pss(SHA384, 32)),
            &["leaf.signature"],
        ),
        (
            "PKCS #1 v1.5",
            vcek(Milan, |s| {
                s.algorithm = sev_attest_issuer::der::sequence(&[
                    &sev_attest_issuer::der::oid("1.2.840.113549.1.1.12"),
                    &[5, 0],
                ]);
                s.scheme = Scheme::Pkcs1Sha384;
            }),
            &["leaf.signature"],
        ),
        (
            "PKCS #1 v1.5, said to be PSS",
            ask(|s| s.scheme = Scheme::Pkcs1Sha384),
            &["ask.signature"],
        ),
    ]
}

fn constraint_rows() -> Vec<Row> {
    let without = |oid: &'static str| {
        move |spec: &mut CertSpec| spec.extensions.retain(|extension| extension.oid != oid)
    };
    let usage = |content: &'static [u8]| {
        move |spec: &mut CertSpec| {
            spec.extensions
                .retain(|extension| extension.oid != "2.5.29.15");
            spec.extensions.push(Extension::key_usage(content));
        }
    };
    let critical = |spec: &mut CertSpec| {
        spec.extensions
            .push(Extension::new("1.2.3.4", true, vec![5, 0]));
    };
    let critical_of_amd = |id: &'static str| {
        move |spec: &mut CertSpec| {
            let oid = format!("1.3.6.1.4.1.3704.1{id}");
            spec.extensions.push(Extension::new(&oid, true, vec![5, 0]));
        }
    };
    vec![
        (
            "VCEK with a critical extension of AMD's that is not known",
            vcek(Milan, critical_of_amd(".6")),
            &["leaf.constraints"],
        ),
        (
            "VCEK with a critical extension of another arc of AMD's",
            vcek(Milan, critical_of_amd("0.1")),
            &["leaf.constraints"],
        ),
        (
            "ASK without basic constraints",
            ask(without("2.5.29.19")),
            &["ask.constraints"],
        ),
        (
            "ARK without basic constraints",
            ark(without("2.5.29.19")),
            &["ark.constraints"],
        ),
        (
            "ASK that is no CA",
            ask(|s| {
                s.extensions
                    .retain(|extension| extension.oid != "2.5.29.19");
                s.extensions
                    .push(Extension::new("2.5.29.19", true, vec![0x30, 0]));
            }),
            &["ask.constraints"],
        ),
        (
            "ARK that allows no ASK below it",
            ark(|s| {
                s.extensions
                    .retain(|extension| extension.oid != "2.5.29.19");
                s.extensions.push(Extension::ca(Some(0)));
            }),
            &["ark.constraints"],
        ),
        (
            "ASK that may only sign data",
            ask(usage(&[7, 0x80])),
            &["ask.constraints"],
        ),
        (
            "ARK that may only sign revocation lists",
            ark(usage(&[1, 0x02])),
            &["ark.constraints"],
        ),
        (
            "VCEK that is a CA",
            vcek(Milan, |s| s.extensions.push(Extension::ca(None))),
            &["leaf.constraints"],
        ),
        (
            "VCEK that may sign certificates",
            vcek(Milan, |s| {
                s.extensions.push(Extension::key_usage(&[2, 0x84]))
            }),
            &["leaf.constraints"],
        ),
        (
            "VCEK that may not sign data",
            vcek(Milan, |s| {
                s.extensions.push(Extension::key_usage(&[5, 0x20]))
            }),
            &["leaf.constraints"],
        ),
        (
            "critical extension in a VCEK",
            vcek(Milan, critical),
            &["leaf.constraints"],
        ),
        (
            "critical extension in an ASK",
            ask(critical),
            &["ask.constraints"],
        ),
        (
            "critical extension in an ARK",
            ark(critical),
            &["ark.constraints"],
        ),
    ]
}

fn revocation_rows() -> Vec<Row> {
    let revocation: &'static [&'static str] = &["chain.revocation"];
    let ark = RsaKey::ark();
    vec![
        (
            "revoked ASK",
            crl(&ark, |s| s.revoked = vec![vec![1], vec![9, 0, 1]]),
            revocation,
        ),
        (
            "revoked ARK",
            crl(&ark, |s| s.revoked = vec![vec![9, 0, 0]]),
            revocation,
        ),
        (
            "revoked VLEK",
            {
                let mut case = vlek(|_| {});
                let mut list = CrlSpec::new(Genoa);
                list.revoked = vec![vec![0x51]];
                case.crl = Some(list.sign(&ark));
                case
            },
            revocation,
        ),
        (
            "forged revocation list",
            crl(&RsaKey::ask(), |_| {}),
            revocation,
        ),
        (
            "revocation list of another issuer",
            crl(&ark, |s| s.issuer = "ARK-Genoa".to_owned()),
            revocation,
        ),
        (
            "revocation list out of date",
            crl(&ark, |s| s.next_update = Some("260501000000Z".to_owned())),
            revocation,
        ),
        (
            "critical extension in a revocation list",
            crl(&ark, |s| {
                s.extensions
                    .push(Extension::new("2.5.29.28", true, vec![0x30, 0]));
            }),
            revocation,
        ),
        (
            "ARK that may not sign revocation lists",
            {
                let mut case = crl(&ark, |_| {});
                let mut spec = CertSpec::ark(Milan, &ark);
                spec.extensions = vec![Extension::ca(None), Extension::key_usage(&[2, 0x04])];
                case.ark = Some(spec.sign(&ark));
                case
            },
            revocation,
        ),
    ]
}

fn leaf_rows() -> Vec<Row> {
    let key: &'static [&'static str] = &["leaf.key", "report.signature"];
    let with_key = |spki: Vec<u8>| vcek(Milan, move |s| s.spki = spki);
    let point = LeafKey::default().point();
    let mut off_curve = point.clone();
    off_curve[96] ^= 1;
    let mut compressed = point[..49].to_vec();
    compressed[0] = 2 + (point[96] & 1);
    let p384 = "1.3.132.0.34";
    let p256_generator = hex::decode(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    )
    .unwrap();
    vec![
        ("RSA leaf", with_key(RsaKey::short().spki()), key),
        (
            "P-256 leaf",
            with_key(ec_spki("1.2.840.10045.3.1.7", &p256_generator)),
            key,
        ),
        (
            "P-256 point said to be on P-384",
            with_key(ec_spki(p384, &p256_generator)),
            key,
        ),
        (
            "P-384 point said to be on P-521",
            with_key(ec_spki("1.3.132.0.35", &point)),
            key,
        ),
        (
            "leaf key off the curve",
            with_key(ec_spki(p384, &off_curve)),
            key,
        ),
        (
            "compressed leaf key",
            with_key(ec_spki(p384, &compressed)),
            key,
        ),
        ("leaf key at infinity", with_key(ec_spki(p384, &[0])), key),
        (
            "another VCEK's key",
            with_key(LeafKey::new(8).spki()),
            &["report.signature"],
        ),
        (
            "VCEK of another chip",
            vcek(Milan, |s| s.amd_extension("4").value = vec![9; 64]),
            &["leaf.hwid"],
        ),
        (
            "VCEK of another Turin",
            vcek(Turin, |s| s.amd_extension("4").value = vec![9; 8]),
            &["leaf.hwid"],
        ),
        (
            "Turin's chip id longer than its VCEK's",
            case(Turin, |c| c.spec.chip_id[8] = 1),
            &["leaf.hwid"],
        ),
        (
            "VCEK of an older boot loader",
            vcek(Milan, |s| s.amd_extension("3.1").value = integer(&[3])),
            &["leaf.tcb.boot_loader"],
        ),
        (
            "VCEK of another TEE",
            vcek(Milan, |s| s.amd_extension("3.2").value = integer(&[2])),
            &["leaf.tcb.tee"],
        ),
        (
            "VCEK of another SNP firmware",
            vcek(Genoa, |s| s.amd_extension("3.3").value = integer(&[25])),
            &["leaf.tcb.snp"],
        ),
        (
            "VCEK of another microcode",
            vcek(Milan, |s| s.amd_extension("3.8").value = integer(&[218])),
            &["leaf.tcb.microcode"],
        ),
        (
            "VCEK of another FMC",
            vcek(Turin, |s| s.amd_extension("3.9").value = integer(&[2])),
            &["leaf.tcb.fmc"],
        ),
        (
            "VLEK of another TCB",
            vlek(|s| s.amd_extension("3.3").value = integer(&[23])),
            &["leaf.tcb.snp"],
        ),
        (
            "Milan leaf on a Genoa report",
            case(Genoa, |c| {
                let mut other = c.spec.clone();
                other.product = Milan;
                c.leaf.der = CertSpec::vcek(&other, &c.leaf.key).sign(&RsaKey::ask());
                let milan = sev_attest_issuer::Issuer::new(Milan);
                (c.ark, c.intermediate) = (Some(milan.ark), Some(milan.ask));
            }),
            &["leaf.product"],
        ),
        (
            "Genoa leaf on a Turin report",
            case(Turin, |c| {
                let mut other = ReportSpec::new(Genoa);
                // As the report's word reads in Genoa's layout, so that the product alone differs.
                other.reported_tcb = c.spec.reported_tcb.encode(Turin).decode(Genoa);
                c.leaf.der = CertSpec::vcek(&other, &c.leaf.key).sign(&RsaKey::ask());
                let genoa = sev_attest_issuer::Issuer::new(Genoa);
                (c.ark, c.intermediate) = (Some(genoa.ark), Some(genoa.ask));
            }),
            &["leaf.product", "leaf.hwid"],
        ),
        (
            "Turin's layout of TCBs in a report of version 2 under a Milan leaf",
            case(Milan, |c| {
                c.spec.version = 2;
                let mut report = c.spec.to_bytes();
                // The reported TCB is as the leaf says; the one at launch has Turin's bytes.
                report[0x1f2] = 1;
                c.report = Some(c.leaf.sign(report).to_vec());
            }),
            &["leaf.product"],
        ),
        (
            "VLEK passed as VCEK",
            {
                let mut case = vlek(|_| {});
                case.spec.key_info = 0;
                case
            },
            &["leaf.kind"],
        ),
        (
            "VCEK passed as VLEK",
            case(Milan, |c| c.spec.key_info = 1 << 2),
            &["leaf.kind"],
        ),
        (
            "VLEK with a VCEK's name",
            vlek(|s| s.subject = "SEV-VCEK".to_owned()),
            &["chain.names"],
        ),
    ]
}

fn extension_rows() -> Vec<Row> {
    let unfit: &'static [&'static str] = &["chain.names", "leaf.extensions"];
    let without = |product, id: &'static str| vcek(product, move |s| s.without_amd_extension(id));
    let with = |product, id: &'static str, value: Vec<u8>| {
        vcek(product, move |s| s.amd_extension(id).value = value)
    };
    let added = |product, id: &'static str, value: Vec<u8>| {
        vcek(product, move |s| {
            s.extensions.push(Extension::new(&amd(id), false, value))
        })
    };
    vec![
        ("VCEK without structure version", without(Milan, "1"), unfit),
        ("VCEK without product name", without(Milan, "2"), unfit),
        ("VCEK without boot loader", without(Milan, "3.1"), unfit),
        ("VCEK without TEE", without(Milan, "3.2"), unfit),
        ("VCEK without SNP firmware", without(Milan, "3.3"), unfit),
        ("VCEK without microcode", without(Milan, "3.8"), unfit),
        ("Turin's VCEK without FMC", without(Turin, "3.9"), unfit),
        ("VCEK without hardware id", without(Milan, "4"), unfit),
        (
            "VCEK with a CSP id too",
            added(Milan, "5", ia5("csp")),
            unfit,
        ),
        (
            "VLEK without CSP id",
            vlek(|s| s.without_amd_extension("5")),
            unfit,
        ),
        (
            "VLEK with an empty CSP id",
            vlek(|s| s.amd_extension("5").value = ia5("")),
            unfit,
        ),
        (
            "Milan's VCEK with FMC",
            added(Milan, "3.9", integer(&[1])),
            unfit,
        ),
        (
            "Milan's VCEK of Turin's structure",
            with(Milan, "1", integer(&[1])),
            unfit,
        ),
        (
            "Turin's VCEK of Milan's structure",
            with(Turin, "1", integer(&[0])),
            unfit,
        ),
        ("unknown product", with(Milan, "2", ia5("Venice")), unfit),
        (
            "product name in other case",
            with(Milan, "2", ia5("MILAN-B0")),
            unfit,
        ),
        (
            "product name with more after it",
            with(Milan, "2", ia5("Milan-B0 ")),
            unfit,
        ),
        (
            "product name of another type",
            with(Milan, "2", octets(b"Milan-B0")),
            unfit,
        ),
        (
            "hardware id of 63 bytes",
            with(Milan, "4", vec![0xa5; 63]),
            unfit,
        ),
        (
            "hardware id of 64 bytes for Turin",
            with(Turin, "4", vec![0xa5; 64]),
            unfit,
        ),
        (
            "component above 255",
            with(Milan, "3.3", integer(&[1, 0])),
            unfit,
        ),
        (
            "negative component",
            with(Milan, "3.3", vec![2, 1, 0xff]),
            unfit,
        ),
        (
            "component with more after it",
            with(Milan, "3.3", vec![2, 1, 24, 0]),
            unfit,
        ),
        (
            "component padded",
            with(Milan, "3.3", vec![2, 2, 0, 24]),
            unfit,
        ),
        (
            "component of another type",
            with(Milan, "3.3", octets(&[24])),
            unfit,
        ),
        (
            "reserved component not zero",
            with(Milan, "3.5", integer(&[1])),
            unfit,
        ),
    ]
}

#[test]
fn each_is_refused_for_what_it_breaks() {
    let groups: [fn() -> Vec<Row>; 10] = [
        guest_rows,
        policy_rows,
        tcb_rows,
        platform_rows,
        format_rows,
        signature_rows,
        chain_rows,
        constraint_rows,
        revocation_rows,
        leaf_rows,
    ];
    let rows: Vec<Row> = groups
        .iter()
        .flat_map(|rows| rows())
        .chain(extension_rows())
        .collect();
    assert!(rows.len() >= 60, "{} cases", rows.len());
    for (name, case, checks) in &rows {
        case.refused_for(name, checks);
    }
}

/// The same evidence unbent, so that each case above is refused for nothing else.
/// The same checks are listed with a chain, without one, and with a leaf that can't be read.
#[test]
fn every_check_is_listed() {
    use sev_attest::appraise::{Appraisal, appraise};
    let listed = |appraisal: &Appraisal| {
        let findings = appraisal.findings.iter();
        let mut listed: Vec<_> = findings
            .filter(|finding| finding.id != "chain")
            .map(|finding| (finding.id.to_string(), finding.what.to_string()))
            .collect();
        listed.sort_unstable();
        listed
    };
    for product in Product::ALL {
        for spec in [
            ReportSpec::new(product),
            ReportSpec::new(product).with_vlek(),
        ] {
            let mut case = Case::of(spec);
            let all = listed(&case.appraise());
            let report = Report::parse(&case.bytes()).unwrap();
            let without = appraise(&report, None, &case.policy, case.at);
            assert_eq!(listed(&without), all);
            assert_eq!(without.verdict(), "UNDECIDED: chain");
            let mut bare = CertSpec::vcek(&case.spec, &case.leaf.key);
            bare.extensions.clear();
            case.leaf.der = bare.sign(&RsaKey::ask());
            assert_eq!(listed(&case.appraise()), all);
            assert_eq!(all.iter().filter(|(id, _)| id == "leaf.csp_id").count(), 1);
        }
    }
}

#[test]
fn unbent_it_is_genuine() {
    for product in Product::ALL {
        for version in [2, 3, 4, 5] {
            let spec = ReportSpec::new(product).version(version);
            Case::of(spec.clone()).genuine(&format!("{product} {version}"));
            Case::of(spec.with_vlek()).genuine(&format!("{product} {version} VLEK"));
        }
    }
    // Bends that are allowed.
    report(Milan, |r| {
        r.current_tcb.microcode = 220;
    })
    .genuine("microcode newer than what is committed");
    let mut masked = case(Milan, |c| c.spec.chip_id = [0; 64]);
    masked.policy.allow_masked_chip_id = true;
    masked.genuine("masked chip id, allowed");
    let mut hidden = vlek(|_| {});
    hidden.spec.chip_id = [0; 64];
    hidden.genuine("VLEK without chip id");
    report(Milan, |r| r.key_info = 1 << 2 | 1 << 1).genuine("VLEK where the chip's key is masked");
    let mut provisional = report(Milan, |r| r.current_version.build = 41);
    provisional.policy.firmware.allow_provisional = true;
    provisional.genuine("provisional firmware, allowed");
    crl(&RsaKey::ark(), |s| s.revoked = vec![vec![1]]).genuine("revocation list of others");
    crl(&RsaKey::ark(), |s| s.revoked = vec![vec![0]])
        .genuine("the serial number that all VCEKs have");
    crl(&RsaKey::ark(), |s| s.next_update = None).genuine("revocation list without end");
    vcek(Milan, |s| {
        s.extensions.push(Extension::key_usage(&[7, 0x80]))
    })
    .genuine("VCEK that signs data");
    ask(|s| {
        s.extensions
            .push(Extension::new("1.2.3.4", false, vec![5, 0]))
    })
    .genuine("unknown extension that is not critical");
}

#[test]
fn a_missing_revocation_list_leaves_it_open() {
    let mut case = Case::new(Milan);
    case.policy.require_crl = true;
    let appraisal = case.appraise();
    assert_eq!(appraisal.outcome, sev_attest::appraise::Outcome::Undecided);
    assert_eq!(appraisal.verdict(), "UNDECIDED: chain.revocation");
    case.crl = Some(CrlSpec::new(Milan).sign(&RsaKey::ark()));
    case.genuine("with the list");
}

#[test]
fn a_foreign_root_colours_the_verdict() {
    let appraisal = Case::new(Genoa).appraise();
    assert!(appraisal.verdict().starts_with("FOREIGN ROOT, not AMD's"));
    assert_eq!(appraisal.to_json()["root"], "foreign");
}

#[test]
fn unreadable_reports() {
    let good = Case::new(Milan).bytes();
    let parse = |bytes: &[u8]| Report::parse(bytes).map(drop);
    assert_eq!(parse(&good), Ok(()));
    assert_eq!(
        parse(&good[..good.len() - 1]),
        Err(ReportError::Length(1183))
    );
    assert_eq!(parse(&[]), Err(ReportError::Length(0)));
    assert_eq!(
        parse(&[&good[..], &[0]].concat()),
        Err(ReportError::Length(1185))
    );
    for version in [0_u32, 1, 6, 7, 255, u32::MAX] {
        let mut bytes = good.clone();
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        assert_eq!(parse(&bytes), Err(ReportError::UnknownVersion(version)));
        let error = parse(&bytes).unwrap_err();
        let policy = sev_attest::policy::Policy::default();
        let appraisal = sev_attest::appraise::unreadable(error, &policy, crate::support::at());
        assert_eq!(
            appraisal.unwrap().verdict(),
            "NOT GENUINE OR NOT AS EXPECTED: report.version"
        );
    }
}

#[test]
fn unreadable_certificates() {
    let case = Case::new(Milan);
    let good = &case.leaf.der;
    let parse = |der: &[u8]| {
        Certificate::parse(der)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(parse(good), Ok(()));
    for (name, der, expected) in [
        ("truncated", good[..good.len() - 1].to_vec(), "malformed"),
        ("trailing bytes", [&good[..], &[0]].concat(), "malformed"),
        ("too long", vec![0x30; 20_000], "too long"),
        ("empty", vec![], "malformed"),
        (
            "two algorithms",
            {
                let mut spec = CertSpec::vcek(&case.spec, &case.leaf.key);
                spec.outer_algorithm = Some(pss(SHA256, 32));
                spec.sign(&RsaKey::ask())
            },
            "algorithms differ",
        ),
        (
            "X.509 v1",
            {
                let mut spec = CertSpec::vcek(&case.spec, &case.leaf.key);
                (spec.version, spec.extensions) = (0, Vec::new());
                spec.sign(&RsaKey::ask())
            },
            "v3",
        ),
        (
            "an extension twice",
            {
                let mut spec = CertSpec::vcek(&case.spec, &case.leaf.key);
                let twice = spec.amd_extension("3.3").clone();
                spec.extensions.push(twice);
                spec.sign(&RsaKey::ask())
            },
            "twice",
        ),
    ] {
        let error = parse(&der).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
}
