//! Every byte counts: each single-byte change of a real report, and of the signed part of each
//! certificate, is refused.

use sev_attest::appraise::{Outcome, appraise};
use sev_attest::cert::Certificate;
use sev_attest::chain::Chain;
use sev_attest::product::Product;
use sev_attest::report::{REPORT_LEN, Report, SigningKey};
use sev_attest::roots;

use crate::support::{REAL, anyone, at, data, real};

/// Runs `check` over all of `range`, on as many threads as there are cores.
fn everywhere(range: std::ops::Range<usize>, check: impl Fn(usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let (range, check) = (range.clone(), &check);
            scope.spawn(move || range.skip(first).step_by(threads).for_each(check));
        }
    });
}

/// Three values for each byte: one bit, all bits, and another value by place.
fn changes(byte: u8, place: usize) -> [u8; 3] {
    let by_place = u8::try_from(place % 255).unwrap() + 1;
    [
        byte ^ 1 << (place % 8),
        byte ^ 0xff,
        byte.wrapping_add(by_place),
    ]
}

#[test]
fn each_byte_of_real_reports() {
    for (name, vcek) in REAL {
        let (report, chain) = real(name, vcek);
        let mut policy = anyone();
        policy.guest_policy.debug = None;
        assert!(appraise(&report, Some(&chain), &policy, at()).is_genuine());
        everywhere(0..REPORT_LEN, |place| {
            for value in changes(report.as_bytes()[place], place) {
                let mut bytes = *report.as_bytes();
                bytes[place] = value;
                let Ok(changed) = Report::parse(&bytes) else {
                    continue;
                };
                let outcome = appraise(&changed, Some(&chain), &policy, at()).outcome;
                assert_eq!(
                    outcome,
                    Outcome::Refused,
                    "{name}: {place:#x} set to {value:#x}"
                );
                // The signature alone refuses it too.
                assert!(!chain.leaf_signed_report(&changed), "{name}: {place:#x}");
            }
        });
    }
}

/// The part of a certificate that its issuer signed, changed byte by byte: it is unreadable, or no
/// longer signed.
fn each_signed_byte(der: &[u8], is_signed: impl Fn(Certificate) -> bool + Sync) {
    let certificate = Certificate::parse(der).unwrap();
    assert!(is_signed(certificate.clone()));
    let signed = certificate.signed_bytes();
    let start = signed.as_ptr() as usize - certificate.der().as_ptr() as usize;
    everywhere(start..start + signed.len(), |place| {
        for value in changes(der[place], place) {
            let mut changed = der.to_vec();
            changed[place] = value;
            if let Ok(changed) = Certificate::parse(&changed) {
                assert!(!is_signed(changed), "byte {place:#x} set to {value:#x}");
            }
        }
    });
}

#[test]
fn each_signed_byte_of_real_vceks() {
    for (_, vcek) in REAL {
        let der = data(vcek);
        let leaf = Certificate::parse(&der).unwrap();
        let product = leaf.endorsement().unwrap().product;
        let amd = roots::authorities(product, SigningKey::Vcek).unwrap();
        each_signed_byte(&der, |leaf| {
            Chain::new(amd.ark.clone(), amd.intermediate.clone(), leaf).leaf_is_signed()
        });
    }
}

#[test]
fn each_signed_byte_of_built_in_authorities() {
    for product in Product::ALL {
        for key in [SigningKey::Vcek, SigningKey::Vlek] {
            let amd = roots::authorities(product, key).unwrap();
            each_signed_byte(amd.intermediate.der(), |intermediate| {
                Chain::new(amd.ark.clone(), intermediate.clone(), intermediate)
                    .intermediate_is_signed()
            });
        }
        let amd = roots::authorities(product, SigningKey::Vcek).unwrap();
        each_signed_byte(amd.ark.der(), |ark| {
            let chain = Chain::new(ark.clone(), ark.clone(), ark);
            chain.ark_is_self_signed() && chain.root() != sev_attest::chain::Root::Foreign
        });
    }
}
