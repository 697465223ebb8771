//! The right chain is found among many certificates, and the nearest where none is right.

use sev_attest::appraise::{Outcome, appraise};
use sev_attest::assemble;
use sev_attest::cert::{Certificate, Crl, PublicKey};
use sev_attest::chain::Root;
use sev_attest::formats::Bundle;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::report::{Report, SigningKey};
use sev_attest::source::Wanted;
use sev_attest::testing::has_fitting_leaf;
use sev_attest::time::UnixTime;
use sev_attest_issuer::certificate::{CertSpec, CrlSpec, ec_spki};
use sev_attest_issuer::{Issuer, LeafKey, RsaKey};

use crate::support::{Case, REAL, anyone, at, data, real, simulated_policy};

fn bundle(ders: &[&[u8]]) -> Bundle {
    let mut bundle = Bundle::default();
    for der in ders {
        bundle.certificates.push(Certificate::parse(der).unwrap());
    }
    bundle
}

/// All real VCEKs in one heap: each report finds its own.
#[test]
fn each_report_finds_its_certificate() {
    let ders: Vec<Vec<u8>> = REAL.iter().map(|(_, vcek)| data(vcek)).collect();
    let mut ders: Vec<&[u8]> = ders.iter().map(Vec::as_slice).collect();
    let invalid = data("coco-milan-vcek-invalid-legacy.der");
    ders.insert(0, &invalid);
    for (name, vcek) in REAL {
        let (report, _) = real(name, vcek);
        let bundle = bundle(&ders);
        assert!(has_fitting_leaf(&report, &bundle, at()));
        let chain = assemble::chain(&report, &bundle, at()).unwrap();
        assert_eq!(chain.leaf().der(), data(vcek), "{name}");
        assert!(matches!(chain.root(), Root::Amd(_)));
    }
}

#[test]
fn authorities_are_built_in_or_given() {
    let case = Case::new(Product::Genoa);
    let report = Report::parse(&case.bytes()).unwrap();
    let judge = |bundle: &Bundle, policy: &Policy| {
        let chain = assemble::chain(&report, bundle, at());
        appraise(&report, chain.as_ref(), policy, at())
    };
    let whole = bundle(&[
        &case.leaf.der,
        &case.issuer.ark,
        &case.issuer.ask,
        &case.issuer.asvk,
    ]);
    assert!(judge(&whole, &simulated_policy()).is_genuine());
    // Not by name: AMD's own are tried first, and don't fit.
    let refused = judge(&whole, &Policy::default());
    assert_eq!(
        refused.verdict(),
        "NOT GENUINE OR NOT AS EXPECTED: chain.root"
    );
    let alone = judge(&bundle(&[&case.leaf.der]), &simulated_policy());
    assert_eq!(
        alone.verdict(),
        "NOT GENUINE OR NOT AS EXPECTED: leaf.signature"
    );
    // A given root takes nothing from a real chain, even over a certificate with the same key.
    let (report, _) = real("az-genoa-report.bin", "az-genoa-vcek.der");
    let mut spec = case.spec.clone();
    spec.chip_id = report.chip_id.0;
    spec.reported_tcb = report.reported_tcb.decode(Product::Genoa);
    let mut forged = CertSpec::vcek(&spec, &case.leaf.key);
    let leaf = Certificate::parse(&data("az-genoa-vcek.der")).unwrap();
    let PublicKey::P384(point) = leaf.key() else {
        panic!("no key of P-384")
    };
    forged.spki = ec_spki("1.3.132.0.34", point);
    let forged = forged.sign(&RsaKey::ask());
    let mut mixed = bundle(&[&forged, &case.issuer.ark, &case.issuer.ask]);
    let chain = assemble::chain(&report, &mixed, at()).unwrap();
    assert!(chain.root() == Root::Foreign && chain.leaf_signed_report(&report));
    mixed.extend(bundle(&[&data("az-genoa-vcek.der")]));
    let chain = assemble::chain(&report, &mixed, at()).unwrap();
    assert_eq!(chain.root(), Root::Amd(Product::Genoa));
    assert!(appraise(&report, Some(&chain), &anyone(), at()).is_genuine());
}

/// A certificate that nobody renewed, or a forged one, does not hide the right one beside it.
#[test]
fn of_fitting_certificates_the_signed_and_valid_one_is_taken() {
    let case = Case::new(Product::Milan);
    let report = Report::parse(&case.bytes()).unwrap();
    let spec = CertSpec::vcek(&case.spec, &case.leaf.key);
    let mut expired = spec.clone();
    expired.not_after = "260101000000Z".to_owned();
    let mut early = spec.clone();
    early.not_before = "270101000000Z".to_owned();
    let [expired, early] = [expired, early].map(|spec| spec.sign(&RsaKey::ask()));
    let forged = spec.sign(&RsaKey::asvk());
    let of_another_key = CertSpec::vcek(&case.spec, &LeafKey::new(3)).sign(&RsaKey::ask());
    let above = [&case.issuer.ark[..], &case.issuer.ask];
    let bad = [&expired[..], &early, &forged, &of_another_key];
    let all = [&bad[..], &[&case.leaf.der], &above].concat();
    let chain = assemble::chain(&report, &bundle(&all), at()).unwrap();
    assert_eq!(chain.leaf().der(), case.leaf.der);
    assert!(has_fitting_leaf(&report, &bundle(&all), at()));
    for leaf in &bad[..3] {
        let alone = bundle(&[&[*leaf][..], &above].concat());
        assert!(!has_fitting_leaf(&report, &alone, at()));
        let chain = assemble::chain(&report, &alone, at()).unwrap();
        assert_eq!(chain.leaf().der(), *leaf);
    }
    let then = UnixTime::from_rfc3339("2025-06-01T00:00:00Z").unwrap();
    assert!(has_fitting_leaf(
        &report,
        &bundle(&[&expired, above[0], above[1]]),
        then
    ));
}

/// Which chip a masked report is of, only the keys can tell.
#[test]
fn a_masked_report_finds_its_certificate() {
    let mut case = Case::new(Product::Milan);
    let others = case.spec.clone();
    case.spec.chip_id = [0; 64];
    let report = Report::parse(&case.bytes()).unwrap();
    let vcek = |chip: u8, key: &LeafKey, microcode: u8| {
        let mut spec = others.clone();
        spec.chip_id[0] = chip;
        spec.reported_tcb.microcode = microcode;
        CertSpec::vcek(&spec, key).sign(&RsaKey::ask())
    };
    let microcode = others.reported_tcb.microcode;
    let right = vcek(1, &case.leaf.key, microcode);
    let all = [
        vcek(1, &case.leaf.key, microcode - 1),
        vcek(2, &LeafKey::new(2), microcode),
        vcek(3, &LeafKey::new(3), microcode),
        right.clone(),
        case.issuer.ark.clone(),
        case.issuer.ask.clone(),
    ];
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let chain = assemble::chain(&report, &bundle(&all), at()).unwrap();
    assert_eq!(chain.leaf().der(), right);
    assert!(has_fitting_leaf(&report, &bundle(&all), at()));
    assert!(!has_fitting_leaf(
        &report,
        &bundle(&[all[1], all[4], all[5]]),
        at()
    ));
}

#[test]
fn nothing_at_hand_is_undecided() {
    let case = Case::new(Product::Milan);
    let report = Report::parse(&case.bytes()).unwrap();
    assert!(assemble::chain(&report, &Bundle::default(), at()).is_none());
    // Authorities alone are no leaf.
    let above = bundle(&[&case.issuer.ark, &case.issuer.ask]);
    assert!(assemble::chain(&report, &above, at()).is_none());
}

#[test]
fn leaves_of_unknown_issuers_are_refused() {
    let mut case = Case::new(Product::Milan);
    let mut spec = CertSpec::vcek(&case.spec, &case.leaf.key);
    spec.issuer = "nobody".to_owned();
    case.leaf.der = spec.sign(&RsaKey::ask());
    let report = Report::parse(&case.bytes()).unwrap();
    let chain = assemble::chain(&report, &bundle(&[&case.leaf.der]), at()).unwrap();
    let appraisal = appraise(&report, Some(&chain), &simulated_policy(), at());
    assert_eq!(appraisal.outcome, Outcome::Refused);
}

#[test]
fn the_newest_signed_revocation_list_counts() {
    let case = Case::new(Product::Milan);
    let report = Report::parse(&case.bytes()).unwrap();
    let list = |product, this_update: &str, revoked: Vec<Vec<u8>>, key: &RsaKey| {
        let mut spec = CrlSpec::new(product);
        spec.this_update = this_update.to_owned();
        spec.revoked = revoked;
        Crl::parse(&spec.sign(key)).unwrap()
    };
    let mut all = bundle(&[&case.leaf.der, &case.issuer.ark, &case.issuer.ask]);
    let ark = RsaKey::ark();
    all.crls = vec![
        list(Product::Milan, "260101000000Z", vec![vec![9, 0, 1]], &ark),
        list(Product::Milan, "250201000000Z", vec![], &ark),
        // Newer, but forged, and of another product.
        list(Product::Milan, "260301000000Z", vec![], &RsaKey::ask()),
        list(Product::Genoa, "260401000000Z", vec![], &ark),
    ];
    let chain = assemble::chain(&report, &all, at()).unwrap();
    let appraisal = appraise(&report, Some(&chain), &simulated_policy(), at());
    assert_eq!(
        appraisal.verdict(),
        "NOT GENUINE OR NOT AS EXPECTED: chain.revocation"
    );
}

#[test]
fn what_a_source_is_asked_for() {
    let case = Case::new(Product::Turin);
    let report = Report::parse(&case.bytes()).unwrap();
    let wanted = Wanted::of(&report).unwrap();
    assert_eq!(wanted.products(), [Product::Turin]);
    assert_eq!(wanted.signing_key, SigningKey::Vcek);
    assert!(wanted.fits(&Certificate::parse(&case.leaf.der).unwrap()));
    let mut other = case.spec.clone();
    other.chip_id[0] ^= 1;
    let others = Issuer::new(Product::Turin).vcek(&other);
    assert!(!wanted.fits(&Certificate::parse(&others.der).unwrap()));
    // Version 2 does not say: the layout and the chip id's length leave what is possible.
    let (old, _) = real("virtee-milan-report.hex", "virtee-milan-vcek.der");
    let wanted = Wanted::of(&old).unwrap();
    assert_eq!(wanted.products(), [Product::Milan, Product::Genoa]);
    let spec = case.spec.clone().version(2);
    let report = Report::parse(&case.leaf.sign(spec.to_bytes())).unwrap();
    assert_eq!(Wanted::of(&report).unwrap().products(), [Product::Turin]);
}
