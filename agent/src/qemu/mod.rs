//! QEMU: the command line as a pure function ([`plan`]), its execution as an
//! unprivileged, confined process that outlives the agent ([`launch`],
//! [`launcher`], [`confine`]), and the process's identity ([`process`]). What confidential
//! guests are launched from: [`confidential`], [`sealed`].

/// Launched by tests alone, until instances can be asked to be so.
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "no instance is launched so yet")
)]
pub mod confidential;
pub mod confine;
pub mod file_limit;
pub mod launch;
pub mod launcher;
pub mod names;
pub mod plan;
pub mod probe;
pub mod process;
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "no instance is launched so yet")
)]
pub mod sealed;
