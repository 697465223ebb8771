//! QEMU: the command line as a pure function ([`plan`]), its execution as an
//! unprivileged, confined process that outlives the agent ([`launch`],
//! [`launcher`], [`confine`]), and the process's identity ([`process`]). Files that
//! were read once: [`sealed`].

pub mod confine;
pub mod file_limit;
pub mod launch;
pub mod launcher;
pub mod names;
pub mod plan;
pub mod probe;
pub mod process;
pub mod sealed;
