//! Chooses, among the certificates at hand, the chain for a report.
//!
//! A choice is no trust: whatever chain comes out is judged by [`crate::appraise`]. The best one is
//! chosen, so that a directory with certificates of many chips does; where none fits the report, the
//! nearest is, so that the findings tell what is wrong with it.
//!
//! The certificates may be an attacker's, and each signature costs time. No link is verified twice,
//! and what does not hold by itself is not combined with others.

use std::collections::BTreeSet;

use crate::cert::{Certificate, Crl, Role};
use crate::chain::{Chain, signed};
use crate::formats::Bundle;
use crate::product::Product;
use crate::report::{Report, SigningKey};
use crate::roots;
use crate::source::Wanted;
use crate::time::UnixTime;

/// The best chain for `report` from `bundle` and the built-in authorities, of equals one that is
/// valid `at` that time; `None` where the bundle has no VCEK or VLEK at all.
#[must_use]
pub fn chain(report: &Report, bundle: &Bundle, at: UnixTime) -> Option<Chain> {
    let chain = best(&leaves(report, bundle), report, bundle, at)?;
    Some(match crl(&chain, bundle) {
        Some(crl) => chain.with_crl(crl.clone()),
        None => chain,
    })
}

/// As [`chain`], from what came with the report (`own`) and what the verifier has (`given`).
///
/// Where a revocation list is required, one that came with the report is no answer to that: whoever
/// is judged by it chose it, and may have kept an old one. It is looked at only where it is newer than
/// a signed and current one of `given`.
#[must_use]
pub fn chain_beside(
    report: &Report,
    own: &Bundle,
    given: &Bundle,
    require_crl: bool,
    at: UnixTime,
) -> Option<Chain> {
    let mut all = own.clone();
    all.extend(given.clone());
    if !require_crl {
        return chain(report, &all, at);
    }
    let own_crls = std::mem::replace(&mut all.crls, given.crls.clone());
    let chain = chain(report, &all, at)?;
    let answered = chain
        .crl()
        .is_some_and(|(crl, signed)| signed && crl.is_current_at(at));
    if answered {
        all.crls.extend(own_crls);
        if let Some(newest) = crl(&chain, &all) {
            let newest = newest.clone();
            return Some(chain.with_crl(newest));
        }
    }
    Some(chain)
}

/// As [`leaf_fits`], of the chain that is chosen from `bundle`.
#[cfg(feature = "testing")]
#[must_use]
pub fn has_fitting_leaf(report: &Report, bundle: &Bundle, at: UnixTime) -> bool {
    chain(report, bundle, at).is_some_and(|chain| leaf_fits(report, &chain, at))
}

/// Whether the chosen chain has a leaf for `report` that no source could better: its extensions are
/// those that the report needs, its issuer signed it, and it is valid `at` that time.
#[cfg(any(feature = "cli", feature = "testing"))]
pub(crate) fn leaf_fits(report: &Report, chain: &Chain, at: UnixTime) -> bool {
    let Some(wanted) = Wanted::of(report) else {
        return false;
    };
    let leaf = chain.leaf();
    // A masked report's chip is told by its key alone.
    let of_chip = wanted.fits(leaf)
        || report.chip_id.is_zero()
            && wanted.fits_but_for_chip(leaf)
            && chain.leaf_signed_report(report);
    of_chip && chain.leaf_is_signed() && leaf.is_valid_at(at)
}

/// The leaves that fit best, in the order given. Where none fits the report, the first one of the
/// right kind.
fn leaves<'a>(report: &Report, bundle: &'a Bundle) -> Vec<&'a Certificate> {
    let wanted = Wanted::of(report);
    let fits = |certificate: &Certificate| {
        wanted.is_some_and(|wanted| {
            wanted.fits(certificate)
                || wanted.chip_id.is_zero() && wanted.fits_but_for_chip(certificate)
        })
    };
    let wanted_kind = report.key_info.signing_key() == Some(SigningKey::Vcek);
    let of_kind = |certificate: &Certificate| {
        (certificate.role() == Role::Leaf(SigningKey::Vcek)) == wanted_kind
    };
    let is_leaf = |certificate: &&Certificate| {
        matches!(certificate.role(), Role::Leaf(_)) || certificate.endorsement().is_ok()
    };
    let all = distinct(bundle.certificates.iter().filter(is_leaf));
    let fitting: Vec<&Certificate> = all.iter().copied().filter(|leaf| fits(leaf)).collect();
    let mut best: Vec<&Certificate> = fitting
        .iter()
        .copied()
        .filter(|leaf| of_kind(leaf))
        .collect();
    if best.is_empty() {
        best = fitting;
    }
    if best.is_empty() {
        let first = all.iter().copied().find(|leaf| of_kind(leaf));
        return first.or(all.first().copied()).into_iter().collect();
    }
    if best.len() > 1 {
        let signers: Vec<&Certificate> = best
            .iter()
            .copied()
            .filter(|leaf| crate::chain::signed_report(leaf, report))
            .collect();
        if !signers.is_empty() {
            best = signers;
        }
    }
    best
}

/// The best chain over one of `leaves`: all signed, under AMD's root before others, and valid before
/// others; or the nearest to that.
fn best(leaves: &[&Certificate], report: &Report, bundle: &Bundle, at: UnixTime) -> Option<Chain> {
    let built_in: Vec<_> = Product::ALL
        .into_iter()
        .flat_map(|product| [SigningKey::Vcek, SigningKey::Vlek].map(|key| (product, key)))
        .filter_map(|(product, key)| roots::authorities(product, key))
        .collect();
    let given = |wanted: fn(Role) -> bool| {
        bundle
            .certificates
            .iter()
            .filter(move |certificate| wanted(certificate.role()))
    };
    let intermediates = distinct(
        built_in
            .iter()
            .map(|amd| &amd.intermediate)
            .chain(given(|role| matches!(role, Role::Ask(_) | Role::Asvk(_)))),
    );
    let named: Vec<(&Certificate, &Certificate)> = leaves
        .iter()
        .flat_map(|leaf| intermediates.iter().map(move |above| (*leaf, *above)))
        .filter(|(leaf, above)| leaf.is_issued_in_name_of(above))
        .collect();
    let signing: Vec<(&Certificate, &Certificate)> = named
        .iter()
        .copied()
        .filter(|(leaf, above)| signed(leaf, above))
        .collect();
    let in_use = distinct(signing.iter().map(|(_, above)| *above));
    let arks = distinct(
        built_in
            .iter()
            .map(|amd| &amd.ark)
            .chain(given(|role| matches!(role, Role::Ark(_)))),
    );
    let sound: Vec<&Certificate> = arks
        .iter()
        .copied()
        .filter(|ark| in_use.iter().any(|above| above.is_issued_in_name_of(ark)))
        .filter(|ark| ark.is_issued_in_name_of(ark) && signed(ark, ark))
        .collect();
    let links: Vec<(&Certificate, &Certificate)> = in_use
        .iter()
        .flat_map(|above| sound.iter().map(move |ark| (*above, *ark)))
        .filter(|(above, ark)| above.is_issued_in_name_of(ark) && signed(above, ark))
        .collect();
    let whole = signing.iter().flat_map(|&(leaf, above)| {
        let links = links.iter().filter(move |link| std::ptr::eq(link.0, above));
        links.map(move |&(_, ark)| [ark, above, leaf])
    });
    let rank = |chain: &[&Certificate; 3]| {
        let valid = chain.iter().all(|part| part.is_valid_at(at));
        (roots::product_of_root(chain[0]).is_some(), valid)
    };
    // Of equals the first one.
    let whole: Vec<[&Certificate; 3]> = whole.collect();
    if let Some(&[ark, above, leaf]) = whole.iter().rev().max_by_key(|chain| rank(chain)) {
        let [ark, above, leaf] = [ark, above, leaf].map(Certificate::clone);
        return Some(Chain::of_signed(ark, above, leaf));
    }
    // What was given last before what is built in: it was meant for this report.
    if let Some((leaf, above)) = signing.last().or(named.last()) {
        let mut named = arks.iter().rev();
        if let Some(ark) = named.find(|ark| above.is_issued_in_name_of(ark)) {
            return Some(Chain::new(
                (*ark).clone(),
                (*above).clone(),
                (*leaf).clone(),
            ));
        }
    }
    // The leaf names an issuer that nobody has.
    let leaf = *leaves.first()?;
    let product = report.product().unwrap_or(Product::Milan);
    let key = report.key_info.signing_key().unwrap_or(SigningKey::Vcek);
    Some(match roots::authorities(product, key) {
        Some(amd) => Chain::new(amd.ark.clone(), amd.intermediate.clone(), leaf.clone()),
        None => Chain::new(leaf.clone(), leaf.clone(), leaf.clone()),
    })
}

/// Each certificate once, where it comes first.
fn distinct<'a>(certificates: impl Iterator<Item = &'a Certificate>) -> Vec<&'a Certificate> {
    let mut seen = BTreeSet::new();
    certificates
        .filter(|certificate| seen.insert(certificate.der()))
        .collect()
}

/// The newest revocation list in the name of the chain's root; a signed one before others.
fn crl<'a>(chain: &Chain, bundle: &'a Bundle) -> Option<&'a Crl> {
    let mut seen = BTreeSet::new();
    let named = bundle
        .crls
        .iter()
        .filter(|crl| crl.is_issued_in_name_of(chain.ark()) && seen.insert(crl.der()));
    named.max_by_key(|crl| (chain.signs_crl(crl), crl.this_update()))
}

#[cfg(test)]
mod tests {
    use sev_attest_issuer::{CertSpec, LeafKey, RsaKey};

    use super::*;
    use crate::crypto::VERIFIED;

    /// RSA signatures that are looked at for so many ARKs and ASKs of the same names, none of them
    /// sound.
    fn cost(authorities: u8, leaf_signer: &RsaKey) -> usize {
        let report = include_bytes!("../tests/vectors/coco-milan-report.bin");
        let report = Report::parse(report).unwrap();
        let leaf = CertSpec::new("SEV-VCEK", "SEV-Milan", LeafKey::default().spki());
        let mut ders = vec![leaf.sign(leaf_signer)];
        for number in 1..=authorities {
            let mut ark = CertSpec::new("ARK-Milan", "ARK-Milan", RsaKey::ark().spki());
            ark.serial = vec![1, number];
            ders.push(ark.sign(&RsaKey::asvk()));
            let mut ask = CertSpec::new("SEV-Milan", "ARK-Milan", RsaKey::ask().spki());
            ask.serial = vec![2, number];
            ders.push(ask.sign(&RsaKey::asvk()));
        }
        let mut bundle = Bundle::default();
        for der in ders.iter().chain(&ders) {
            bundle.certificates.push(Certificate::parse(der).unwrap());
        }
        VERIFIED.with(|count| count.set(0));
        let chain = chain(&report, &bundle, UnixTime(1_780_000_000)).unwrap();
        assert!(!chain.ark_is_self_signed() && !chain.intermediate_is_signed());
        VERIFIED.with(std::cell::Cell::get)
    }

    #[test]
    fn forged_authorities_cost_no_more_than_their_number() {
        // One for each ASK, AMD's among them, and three for the chain that is chosen.
        assert_eq!(cost(30, &RsaKey::asvk()), 31 + 3);
        // ASKs that signed the leaf make each ARK worth a look, and AMD's each of them.
        assert_eq!(cost(30, &RsaKey::ask()), 31 + 31 + 30 + 3);
    }
}
