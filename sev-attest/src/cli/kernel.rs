//! What the commands inside a guest share: which interface of the kernel is asked, and what can go
//! wrong with it.

use std::path::Path;

use clap::ValueEnum;

use super::input::CliError;
use crate::endpoint::serve::ServeError;
use crate::guest::{self, ConfigfsTsm, DEVICE, GuestError, ReportProvider, SevGuest, Vmpl};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Via {
    /// configfs-tsm where it serves SEV-SNP, else the device
    Auto,
    /// /sys/kernel/config/tsm/report
    Configfs,
    /// /dev/sev-guest
    Device,
}

impl Via {
    /// The interface, where it is there.
    pub(super) fn provider(self) -> Result<Box<dyn ReportProvider + Send>, GuestError> {
        Ok(match self {
            Self::Auto => guest::detect()?,
            Self::Configfs => Box::new(ConfigfsTsm::default()),
            Self::Device => Box::new(SevGuest::open(Path::new(DEVICE))?),
        })
    }
}

/// Why there is no report or key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestCommandError {
    /// Wrong usage, or the output can't be written.
    #[error(transparent)]
    Cli(#[from] CliError),
    /// The kernel or the security processor refused.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The channel can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

pub(super) fn vmpl(text: &str) -> Result<Vmpl, String> {
    let level = text.parse().ok().and_then(Vmpl::new);
    level.ok_or_else(|| "a VMPL is 0, 1, 2 or 3".to_owned())
}
