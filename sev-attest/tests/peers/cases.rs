//! Evidence that tells verifiers apart.

use std::path::Path;

use sev_attest::product::Product;
use sev_attest::testing::pem;
use sev_attest_issuer::certificate::CertSpec;
use sev_attest_issuer::{CrlSpec, Issuer, Leaf, LeafKey, ReportSpec, RsaKey};

/// The time of all judgements.
pub(crate) const AT: &str = "2026-08-18T00:00:00Z";

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) product: &'static str,
    pub(crate) allow_foreign_root: bool,
    pub(crate) vlek: bool,
    /// A revocation list of the root, where one is at hand.
    pub(crate) crl: Option<Vec<u8>>,
    pub(crate) report: Vec<u8>,
    pub(crate) leaf: Vec<u8>,
    pub(crate) intermediate: Vec<u8>,
    pub(crate) ark: Vec<u8>,
}

fn vector(name: &str) -> Vec<u8> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    std::fs::read(vectors.join(name)).unwrap()
}

/// Real evidence, bent.
fn real(
    name: &'static str,
    product: &'static str,
    [report, vcek]: [&str; 2],
    bend: impl Fn(&mut Vec<u8>),
) -> Case {
    let vlek = vcek.contains("vlek");
    let chain = match (product, vlek) {
        ("milan", false) => include_str!("../../src/roots/amd-milan-ask-ark.pem"),
        ("milan", true) => include_str!("../../src/roots/amd-milan-asvk-ark.pem"),
        _ => include_str!("../../src/roots/amd-genoa-ask-ark.pem"),
    };
    let crl = include_bytes!("../fetch/data/crl_milan.der");
    let mut chain = pem::blocks(chain.as_bytes()).unwrap().into_iter();
    let mut report = vector(report);
    bend(&mut report);
    Case {
        name,
        product,
        allow_foreign_root: false,
        vlek,
        crl: (product == "milan").then(|| crl.to_vec()),
        report,
        leaf: vector(vcek),
        intermediate: chain.next().unwrap().der,
        ark: chain.next().unwrap().der,
    }
}

/// Simulated evidence of Genoa, bent before it is signed.
fn simulated(
    name: &'static str,
    bend_report: impl Fn(&mut ReportSpec),
    bend_leaf: impl Fn(&mut CertSpec),
    bend_bytes: impl Fn(&mut [u8]),
) -> Case {
    let issuer = Issuer::new(Product::Genoa);
    let mut spec = ReportSpec::new(Product::Genoa);
    let key = LeafKey::new(7);
    let mut certificate = CertSpec::vcek(&spec, &key);
    bend_leaf(&mut certificate);
    bend_report(&mut spec);
    let leaf = Leaf {
        der: certificate.sign(&RsaKey::ask()),
        key,
        vlek: false,
    };
    let mut bytes = spec.to_bytes();
    bend_bytes(&mut bytes);
    Case {
        name,
        product: "genoa",
        allow_foreign_root: true,
        vlek: false,
        crl: Some(CrlSpec::new(Product::Genoa).sign(&RsaKey::ark())),
        report: leaf.sign(bytes).to_vec(),
        leaf: leaf.der,
        intermediate: issuer.ask,
        ark: issuer.ark,
    }
}

/// Simulated evidence of each product and version, as it should be.
fn sound() -> impl Iterator<Item = Case> {
    [
        ("simulated Milan, version 2", Product::Milan, 2),
        ("simulated Milan, version 3", Product::Milan, 3),
        ("simulated Milan, version 4", Product::Milan, 4),
        ("simulated Milan, version 5", Product::Milan, 5),
        ("simulated Genoa, version 2", Product::Genoa, 2),
        ("simulated Genoa, version 5", Product::Genoa, 5),
        ("simulated Turin, version 3", Product::Turin, 3),
        ("simulated Turin, version 5", Product::Turin, 5),
    ]
    .into_iter()
    .map(|(name, product, version)| {
        let issuer = Issuer::new(product);
        let spec = ReportSpec::new(product).version(version);
        let leaf = issuer.vcek(&spec);
        Case {
            name,
            product: match product {
                Product::Milan => "milan",
                Product::Genoa => "genoa",
                Product::Turin => "turin",
            },
            allow_foreign_root: true,
            vlek: false,
            crl: Some(CrlSpec::new(product).sign(&RsaKey::ark())),
            report: leaf.sign(spec.to_bytes()).to_vec(),
            leaf: leaf.der,
            intermediate: issuer.ask,
            ark: issuer.ark,
        }
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let milan = ["az-milan-v3-report.bin", "az-milan-v3-vcek.der"];
    let milan2 = ["coco-milan-report.bin", "coco-milan-vcek.der"];
    let genoa = ["az-genoa-report.bin", "az-genoa-vcek.der"];
    let report = |name, bend: fn(&mut ReportSpec)| simulated(name, bend, |_| {}, |_| {});
    let leaf = |name, bend: fn(&mut CertSpec)| simulated(name, |_| {}, bend, |_| {});
    let bytes = |name, bend: fn(&mut [u8])| simulated(name, |_| {}, |_| {}, bend);
    let mut cases = vec![
        real("real Milan, version 3", "milan", milan, |_| {}),
        real("real Milan, version 2", "milan", milan2, |_| {}),
        real("real Genoa", "genoa", genoa, |_| {}),
        real("real, a signed byte changed", "milan", milan, |r| {
            r[0x90] ^= 1
        }),
        real("real, the signature changed", "milan", milan, |r| {
            r[0x2a0] ^= 1
        }),
        real("real, bytes after the report", "milan", milan, |r| {
            r.extend([1, 2, 3])
        }),
        real("real, cut short", "milan", milan, |r| r.truncate(1183)),
        real(
            "real, unsigned bytes after the signature",
            "milan",
            milan,
            |r| r[0x400] = 1,
        ),
        real("real, r longer than P-384", "milan", milan, |r| {
            r[0x2a0 + 60] = 1
        }),
        real("real, s longer than P-384", "milan", milan, |r| {
            r[0x2a0 + 72 + 60] = 1
        }),
        real(
            "real, VCEK of another chip",
            "milan",
            [milan[0], milan2[1]],
            |_| {},
        ),
        real(
            "real, VCEK of no chain",
            "milan",
            [milan2[0], "coco-milan-vcek-invalid-new.der"],
            |_| {},
        ),
        real(
            "real, VLEK that has expired",
            "milan",
            ["coco-milan-vlek-report.bin", "coco-milan-vlek.der"],
            |_| {},
        ),
        real(
            "real, guest that the host may debug",
            "milan",
            ["gsg-milan-debug-report.bin", "gsg-milan-debug-vcek.der"],
            |_| {},
        ),
        report("simulated, root accepted by hand", |_| {}),
        report("debugging by the host allowed", |r| r.policy |= 1 << 19),
        report("migration agent allowed", |r| r.policy |= 1 << 18),
        report("policy bit 17 clear", |r| r.policy &= !(1 << 17)),
        report("asked at VMPL 3", |r| r.vmpl = 3),
        report("unknown version 6", |r| r.version = 6),
        report("another signature algorithm", |r| r.signature_algorithm = 2),
        report("signed by no key, by its own word", |r| r.key_info = 7 << 2),
        report("signed by a VLEK, by its own word", |r| r.key_info = 1 << 2),
        report("masked chip id", |r| r.chip_id = [0; 64]),
        report("another chip than the VCEK's", |r| r.chip_id[0] ^= 1),
        report("older TCB than the VCEK's", |r| r.reported_tcb.snp -= 1),
        report("firmware not committed", |r| r.current_version.build += 1),
        report("processor of another generation", |r| r.cpuid.model = 0x01),
        bytes("reserved byte set", |r| r[0x1f8 + 40] = 1),
        leaf("VCEK expired", |c| c.not_after = "251231235959Z".to_owned()),
        leaf("VCEK not valid yet", |c| {
            c.not_before = "270101000000Z".to_owned()
        }),
        leaf("VCEK without its chip id", |c| c.without_amd_extension("4")),
        leaf("VCEK without its SNP version", |c| {
            c.without_amd_extension("3.3")
        }),
        leaf("VCEK of another product", |c| {
            c.amd_extension("2").value = b"\x16\x05Milan".to_vec();
        }),
        leaf("VCEK named otherwise", |c| {
            c.subject = "SEV-VCEK-2".to_owned()
        }),
        leaf("VCEK that is an authority", |c| {
            c.extensions.push(sev_attest_issuer::Extension::ca(None));
        }),
    ];
    let mut foreign = report("simulated, root not AMD's", |_| {});
    foreign.allow_foreign_root = false;
    cases.push(foreign);
    cases.extend(sound());
    let mut vlek = report("simulated VLEK, root accepted by hand", |_| {});
    let issuer = Issuer::new(Product::Genoa);
    let spec = ReportSpec::new(Product::Genoa).with_vlek();
    let leaf = issuer.vlek(&spec);
    vlek.report = leaf.sign(spec.to_bytes()).to_vec();
    (vlek.leaf, vlek.intermediate, vlek.vlek) = (leaf.der, issuer.asvk, true);
    cases.push(vlek);
    // the chain skips the ASK
    let mut skipped = report("VCEK signed by the root itself", |_| {});
    let spec = ReportSpec::new(Product::Genoa);
    let key = LeafKey::new(7);
    skipped.leaf = CertSpec::vcek(&spec, &key).sign(&RsaKey::ark());
    cases.push(skipped);
    let mut expired = report("ASK expired", |_| {});
    let mut ask = CertSpec::ask(Product::Genoa, &RsaKey::ask());
    ask.not_after = "251231235959Z".to_owned();
    expired.intermediate = ask.sign(&RsaKey::ark());
    cases.push(expired);
    let mut revoked = report("ASK revoked", |_| {});
    let mut crl = CrlSpec::new(Product::Genoa);
    crl.revoked = vec![CertSpec::ask(Product::Genoa, &RsaKey::ask()).serial];
    revoked.crl = Some(crl.sign(&RsaKey::ark()));
    cases.push(revoked);
    cases
}
