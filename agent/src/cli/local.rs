//! Commands that need no agent: they run one, or look at the host and the
//! configuration.

use std::{path::PathBuf, process::ExitCode};

use clap::CommandFactory as _;

use super::{
    Cli, Command,
    args::{ConfigCommand, Global},
    exit::{Failure, Status},
    out::Out,
};
use crate::{
    config::{self, Config, Sources},
    doctor,
};

/// Where the configuration is unless it is named.
const DEFAULT_FILE: &str = "/etc/crn-agent/config.toml";

/// What became of a command.
pub(super) enum Outcome {
    /// It was carried out.
    Done(ExitCode),
    /// It is for the agent.
    Remote(Command),
}

/// The configuration in force.
pub(super) fn load(global: &Global, set: &[String]) -> Result<Config, Failure> {
    let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
    let sources = Sources {
        file: global.config.clone().or_else(default),
        env: std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect(),
        set: set.to_vec(),
    };
    Ok(config::load(&sources)?)
}

/// Carries out a command that needs no agent.
pub(super) fn run(out: Out, global: &Global, command: Command) -> Result<Outcome, Failure> {
    let done = |()| Outcome::Done(ExitCode::SUCCESS);
    match command {
        Command::Serve(settings) => {
            let config = load(global, &settings.set)?;
            serve(config).map(done)
        }
        Command::Doctor(settings) => {
            let config = load(global, &settings.set)?;
            examine(out, &config).map(Outcome::Done)
        }
        Command::Config(ConfigCommand::Show(settings)) => {
            let config = load(global, &settings.set)?;
            if out.json {
                return out.value(&config).map(done);
            }
            let mut text = toml::to_string_pretty(&config)
                .map_err(|e| Failure::new(Status::Failed, e.to_string()))?;
            if config.network.prefix.is_none() {
                text.insert_str(
                    0,
                    "# Required, and not set: network.prefix, an IPv6 prefix.\n",
                );
            }
            out.text(&text).map(done)
        }
        Command::Config(ConfigCommand::Check(settings)) => {
            let config = load(global, &settings.set)?;
            if config.network.prefix.is_none() {
                let missing = crate::node::NodeError::NoPrefix.to_string();
                return Err(Failure::new(Status::Usage, missing));
            }
            crate::images::Catalogue::new(&config.images)
                .map_err(|e| Failure::new(Status::Usage, e.to_string()))?;
            if out.json {
                return out.value(&serde_json::json!({ "ok": true })).map(done);
            }
            out.text("the configuration can be used\n").map(done)
        }
        Command::Completion { shell } => out.bytes(completion(shell).as_bytes()).map(done),
        Command::Openapi => out.text(&crate::api::document_text()).map(done),
        command => Ok(Outcome::Remote(command)),
    }
}

/// The script that completes commands in a shell.
pub(super) fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "crn-agent", &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete's bash script writes a hyphen in two ways, and so finds no subcommand.
    script.replace("crn__subcmd__agent", "crn__agent")
}

fn serve(config: Config) -> Result<(), Failure> {
    // The agent waits more than it works: on a large host threads would only cost memory.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let result = runtime.block_on(crate::serve::run(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result.map_err(|e| Failure::new(Status::Failed, e.to_string()).or_try("crn-agent doctor"))
}

fn examine(out: Out, config: &Config) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let checks = runtime.block_on(doctor::examine(&config.into()));
    // A check that hangs is not waited for.
    runtime.shutdown_background();
    if out.json {
        out.value(&checks)?;
    } else {
        out.text(&doctor::render_table(&checks, out.width()))?;
    }
    Ok(ExitCode::from(doctor::exit_status(&checks)))
}
