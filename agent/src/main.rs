//! The program `crn-agent`.

fn main() -> std::process::ExitCode {
    crn_agent::cli::main(std::env::args_os())
}
