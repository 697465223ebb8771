//! What came with a report: whether its report data binds it.

use subtle::ConstantTimeEq as _;

use super::{Finding, Findings};
use crate::channel::ChannelBinding;
use crate::formats::Binding;
use crate::report::Report;

pub(super) fn check(findings: &mut Findings, report: &Report, binding: &Binding) {
    let data = hex::encode(report.report_data);
    findings.push(match binding {
        Binding::RuntimeClaims(claims) => {
            let finding = Finding::new("azure.claims", "runtime claims beside the report")
                .expected(hex::encode(claims.report_data()));
            if claims.report_data() == report.report_data {
                finding.ok(data)
            } else {
                finding
                    .failed(data)
                    .because("the report data is not the hash of the claims: they were altered")
            }
        }
        Binding::Channel(binding) => channel(report, binding),
        Binding::CertificateKey(key) => {
            let finding = Finding::new("certificate.key", "key of the certificate around it")
                .expected("bound by the report data");
            match key.bound_by(&report.report_data) {
                Some(scheme) => finding.ok(format!("bound, by {scheme}")),
                None if key.is_aleph() => finding
                    .failed("not bound")
                    .because("anyone can put this report in a certificate of his own"),
                None => finding.required(
                    "the report data binds the certificate's key in no way that is known: \
                     the report says nothing of this certificate",
                ),
            }
        }
    });
}

/// What the report says of the channel that it came by.
fn channel(report: &Report, binding: &ChannelBinding) -> Finding {
    let finding = Finding::new("channel.binding", "connection that the report came by")
        .expected("bound by the report data: version 2");
    let key_only = "version 1: the guest's key alone";
    match binding {
        ChannelBinding::Session(data) if *data == report.report_data => {
            finding.ok("bound by the report data: version 2")
        }
        ChannelBinding::Session(_) => finding.failed("another connection").because(
            "the report was made for another connection: it is an old one, or somebody stands \
             between and hands on another guest's",
        ),
        ChannelBinding::KeyOnly { allowed: true } => finding.found(key_only).skipped(
            "version 1 of the channel was allowed: whoever has a TLS key out of a guest like this \
             one can stand between unseen (CVE-2026-33697)",
        ),
        ChannelBinding::KeyOnly { allowed: false } => finding.failed(key_only).because(
            "whoever has a TLS key out of a guest like this one can stand between unseen \
             (CVE-2026-33697); --allow-v1 takes it",
        ),
    }
}

/// Whether the expected report data stands in what the report data binds, rather than in the report
/// data itself; and where.
pub(super) fn answers(
    report: &Report,
    binding: &Binding,
    expected: &[u8; 64],
) -> Option<&'static str> {
    match binding {
        Binding::RuntimeClaims(claims) => {
            let bound = claims.report_data() == report.report_data;
            let same = claims
                .user_data()
                .is_some_and(|data| bool::from(data.as_slice().ct_eq(expected.as_slice())));
            (bound && same).then_some("user-data of the runtime claims")
        }
        // The policy expects what the channel must have.
        Binding::Channel(_) => None,
        Binding::CertificateKey(key) => {
            let (nonce, zeros) = expected.split_at(32);
            let fresh = zeros.iter().all(|byte| *byte == 0)
                && key.bound_with_nonce(&report.report_data, nonce);
            fresh.then_some("hashed with the certificate's key")
        }
    }
}
