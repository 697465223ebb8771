//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use super::ServeError;
use crate::config::{Log, LogFormat};

/// Starts logging. A second start in one process keeps the first.
pub(super) fn start(log: &Log) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| ServeError::LogLevel(e.to_string()))?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Who started before us logs on.
    let _ = match log.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
