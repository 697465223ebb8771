//! Chooses, among the certificates at hand, the chain for a report.
//!
//! A choice is no trust: whatever chain comes out is judged by [`crate::appraise`]. The best one is
//! chosen, so that a directory with certificates of many chips does; where none fits the report, the
//! nearest is, so that the findings tell what is wrong with it.

use crate::cert::{Certificate, Crl, Role};
use crate::chain::Chain;
use crate::formats::Bundle;
use crate::product::Product;
use crate::report::{Report, SigningKey};
use crate::roots;
use crate::source::Wanted;

/// The best chain for `report` from `bundle` and the built-in authorities; `None` where the bundle
/// has no VCEK or VLEK at all.
#[must_use]
pub fn chain(report: &Report, bundle: &Bundle) -> Option<Chain> {
    let leaf = leaf(report, bundle)?;
    let chain = under_best_authorities(report, bundle, leaf);
    Some(match crl(&chain, bundle) {
        Some(crl) => chain.with_crl(crl.clone()),
        None => chain,
    })
}

/// Whether `bundle` has a leaf whose extensions are those that `report` needs.
#[must_use]
pub fn has_fitting_leaf(report: &Report, bundle: &Bundle) -> bool {
    Wanted::of(report).is_some_and(|wanted| {
        bundle
            .certificates
            .iter()
            .any(|certificate| wanted.fits(certificate))
    })
}

fn leaf<'a>(report: &Report, bundle: &'a Bundle) -> Option<&'a Certificate> {
    let wanted = Wanted::of(report);
    let rank = |certificate: &&Certificate| {
        let fits = wanted.is_some_and(|wanted| wanted.fits(certificate));
        let kind = certificate.role() == Role::Leaf(SigningKey::Vcek);
        let wanted_kind = report.key_info.signing_key() == Some(SigningKey::Vcek);
        (fits, kind == wanted_kind)
    };
    let is_leaf = |certificate: &&Certificate| {
        matches!(certificate.role(), Role::Leaf(_)) || certificate.endorsement().is_ok()
    };
    // Of equals the first one.
    bundle
        .certificates
        .iter()
        .filter(is_leaf)
        .rev()
        .max_by_key(rank)
}

fn under_best_authorities(report: &Report, bundle: &Bundle, leaf: &Certificate) -> Chain {
    let built_in = Product::ALL
        .into_iter()
        .flat_map(|product| [SigningKey::Vcek, SigningKey::Vlek].map(|key| (product, key)))
        .filter_map(|(product, key)| roots::authorities(product, key))
        .map(|authorities| (&authorities.ark, &authorities.intermediate));
    let given = bundle.certificates.iter().flat_map(|ark| {
        let intermediates = bundle.certificates.iter();
        intermediates
            .filter(|certificate| matches!(certificate.role(), Role::Ask(_) | Role::Asvk(_)))
            .filter(|certificate| certificate.is_issued_in_name_of(ark))
            .map(move |intermediate| (ark, intermediate))
    });
    let given = given.filter(|(ark, _)| matches!(ark.role(), Role::Ark(_)));
    let mut nearest = None;
    for (ark, intermediate) in built_in.chain(given) {
        if !leaf.is_issued_in_name_of(intermediate) {
            continue;
        }
        let chain = Chain::new(ark.clone(), intermediate.clone(), leaf.clone());
        if chain.leaf_is_signed() && chain.intermediate_is_signed() && chain.ark_is_self_signed() {
            return chain;
        }
        nearest = Some(chain);
    }
    nearest.unwrap_or_else(|| {
        // The leaf names an issuer that nobody has.
        let product = report.product().unwrap_or(Product::Milan);
        let key = report.key_info.signing_key().unwrap_or(SigningKey::Vcek);
        match roots::authorities(product, key) {
            Some(amd) => Chain::new(amd.ark.clone(), amd.intermediate.clone(), leaf.clone()),
            None => Chain::new(leaf.clone(), leaf.clone(), leaf.clone()),
        }
    })
}

/// The newest revocation list in the name of the chain's root; a signed one before others.
fn crl<'a>(chain: &Chain, bundle: &'a Bundle) -> Option<&'a Crl> {
    let named = bundle
        .crls
        .iter()
        .filter(|crl| crl.is_issued_in_name_of(chain.ark()));
    named.max_by_key(|crl| (chain.signs_crl(crl), crl.this_update()))
}
