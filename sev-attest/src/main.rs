//! The `sev-attest` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sev_attest::cli::main()
}
