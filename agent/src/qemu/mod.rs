//! QEMU: the command line as a pure function ([`plan`]), its execution as an
//! unprivileged, sandboxed process that outlives the agent ([`launch`],
//! [`launcher`]), and the process's identity ([`process`]).

pub mod launch;
pub mod launcher;
pub mod plan;
pub mod process;
