//! `peer-aleph PRODUCT REPORT`: what aleph-sdk's verifier says of a report: exit status 0 when it
//! accepts, 1 when it refuses (the reason on standard output), 2 when it could not be asked.
//!
//! The verifier takes its VCEK and CRL from a cache below `XDG_CACHE_HOME`, or from AMD; the
//! caller fills that cache and sets the clock. No TCB floor and no platform policy is asked for:
//! those are the caller's in aleph-sdk as they are in ours.

use std::process::ExitCode;

use aleph_sdk::attest::platform::PlatformPolicy;
use aleph_sdk::attest::tcb::TcbFloorPolicy;
use aleph_sdk::attest::verify::{AmdProduct, verify_sev_snp_report};
use aleph_sdk::attest::{AttestationReport, TeeType};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, product, report] = args.as_slice() else {
        eprintln!("usage: peer-aleph PRODUCT REPORT");
        return ExitCode::from(2);
    };
    let (product, data) = match (product.parse::<AmdProduct>(), std::fs::read(report)) {
        (Ok(product), Ok(data)) => (product, data),
        (product, data) => {
            eprintln!("{:?} {:?}", product.err(), data.err());
            return ExitCode::from(2);
        }
    };
    let report = AttestationReport {
        tee_type: TeeType::SevSnp,
        data,
    };
    let policy = (&TcbFloorPolicy::UNRESTRICTED, &PlatformPolicy::NONE);
    match verify_sev_snp_report(&report, product, policy.0, policy.1).await {
        Ok(result) => {
            println!("{}", result.summary);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::from(1)
        }
    }
}
