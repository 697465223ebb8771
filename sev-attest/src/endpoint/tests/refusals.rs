//! No key for a guest that is not what was asked for, whichever version it speaks.

use std::sync::{Arc, Mutex};

use sev_attest::product::Product as SimulatedProduct;
use sev_attest_issuer::ReportSpec;

use super::guest::{Firmware, Guest, policy, refused_for, unlock};
use crate::advisories::Date;
use crate::hex_bytes::HexBytes;
use crate::policy::{Policy, RequireAdvisories};
use crate::product::Product;

type Bend = fn(&mut ReportSpec);
type Expect = fn(&mut Policy);

/// What is wrong with the guest, what is asked of it, and what fails.
const CASES: [(&str, Bend, Expect, &[&str]); 13] = [
    (
        "another measurement",
        |s| s.measurement[0] ^= 1,
        |_| {},
        &["measurement"],
    ),
    (
        "another instance",
        |s| s.host_data[31] ^= 1,
        |_| {},
        &["host_data"],
    ),
    (
        "debugging by the host",
        |s| s.policy |= 1 << 19,
        |_| {},
        &["policy.debug"],
    ),
    (
        "a migration agent",
        |s| s.policy |= 1 << 18,
        |_| {},
        &["policy.migration_agent"],
    ),
    ("VMPL 1", |s| s.vmpl = 1, |_| {}, &["vmpl"]),
    (
        "an older TCB",
        |_| {},
        |p| p.tcb.reported.snp = Some(25),
        &["tcb.reported.snp"],
    ),
    (
        "firmware that can be rolled back",
        |s| s.committed_version.build -= 1,
        |_| {},
        &["firmware.provisional"],
    ),
    (
        "another product",
        |_| {},
        |p| p.product = vec![Product::Turin],
        &["product"],
    ),
    (
        "another chip",
        |_| {},
        |p| p.chip_id = vec![HexBytes([7; 64])],
        &["chip_id"],
    ),
    (
        "older than the guest's version",
        |_| {},
        |p| p.min_guest_svn = Some(4),
        &["guest_svn"],
    ),
    (
        "a root that is not AMD's",
        |_| {},
        |p| p.allow_foreign_root = false,
        &["chain.root"],
    ),
    (
        "a report that is not the guest's own",
        |s| s.report_data = [0x5d; 64],
        |_| {},
        &["report_data"],
    ),
    (
        "unsigned bytes",
        |s| s.signature_algorithm = 2,
        |_| {},
        &["report.format"],
    ),
];

#[test]
fn no_key_for_what_was_not_asked_for() {
    for version in [2, 1] {
        for (name, bend, expect, checks) in CASES {
            let mut firmware = Firmware::sound();
            firmware.bend = Box::new(bend);
            let guest = Guest::speaking(version, firmware);
            let mut policy = policy();
            expect(&mut policy);
            let mut checks = checks.to_vec();
            // Version 2 says of other report data what it means, too.
            if version == 2 && checks == ["report_data"] {
                checks.insert(0, "channel.binding");
            }
            println!("version {version}: {name}");
            refused_for(unlock(&guest.target, &policy, true), &checks);
            assert!(guest.taken.all().is_empty(), "{name}");
        }
    }
}

#[test]
fn no_key_where_bulletins_are_not_fixed() {
    let guest = Guest::with(Firmware::of(ReportSpec::new(SimulatedProduct::Milan)));
    let mut policy = policy();
    policy.advisories.require = RequireAdvisories::Until("2026-11-26".parse::<Date>().unwrap());
    let refused = unlock(&guest.target, &policy, false);
    let Err(super::guest::Failed::Checks(checks)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        checks.iter().all(|check| check.starts_with("advisories.")),
        "{checks:?}"
    );
    assert!(!checks.is_empty());
    assert!(guest.taken.all().is_empty());
}

/// A report that was good once: for another nonce, and over another connection.
#[test]
fn no_key_for_a_report_that_was_made_before() {
    for version in [2, 1] {
        let mut firmware = Firmware::sound();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        firmware.bend = Box::new(move |spec| {
            let mut seen: std::sync::MutexGuard<'_, Vec<[u8; 64]>> = seen.lock().unwrap();
            seen.push(spec.report_data);
            // The first report after the certificate's own is given again and again.
            let first = usize::from(version == 1);
            spec.report_data = *seen.get(first).unwrap_or(&seen[0]);
        });
        let guest = Guest::speaking(version, firmware);
        assert!(unlock(&guest.target, &policy(), true).is_ok(), "{version}");
        let checks: &[&str] = match version {
            2 => &["channel.binding", "report_data"],
            _ => &["report_data"],
        };
        refused_for(unlock(&guest.target, &policy(), true), checks);
        assert_eq!(guest.taken.all().len(), 1);
        assert_eq!(
            asked.lock().unwrap().len(),
            if version == 2 { 2 } else { 3 }
        );
    }
}
