//! `conformance STAGE < input.json`: the verifier behind the contract of tinfoil's suite, for their
//! runner and ours. `conformance capabilities` says what it can do.

#![allow(
    clippy::print_stdout,
    reason = "the contract is JSON on standard output"
)]

use std::io::Read as _;
use std::process::ExitCode;

use tests::conformance::{Answer, capabilities, run};

fn main() -> ExitCode {
    let stage = std::env::args().nth(1).unwrap_or_default();
    if stage == "capabilities" {
        println!("{}", capabilities());
        return ExitCode::SUCCESS;
    }
    let mut input = Vec::new();
    let answer = match std::io::stdin().lock().read_to_end(&mut input) {
        Ok(_) => run(&stage, &input),
        Err(error) => Answer::Malformed(error.to_string()),
    };
    println!("{}", answer.to_json());
    ExitCode::from(answer.exit_status())
}
