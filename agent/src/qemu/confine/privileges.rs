//! Limits and rights that a process gives up for good.

use std::io;

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};

/// Each descriptor is memory of the kernel's; QEMU has some thirty and two for each volume.
const MOST_DESCRIPTORS: u64 = 1024;

/// Few descriptors. No core dump: a guest's memory is in it. No file longer than `largest` bytes, if
/// that is given.
///
/// # Errors
/// Those of setrlimit(2).
pub fn limit(largest: Option<u64>) -> io::Result<()> {
    let exactly = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    setrlimit(Resource::Core, exactly(0))?;
    setrlimit(Resource::Nofile, exactly(MOST_DESCRIPTORS))?;
    if let Some(largest) = largest {
        setrlimit(Resource::Fsize, exactly(largest))?;
    }
    Ok(())
}

/// No program that is executed later can have a capability, whatever its file says.
///
/// # Errors
/// Those of prctl(2), for a capability that the kernel has.
pub fn empty_bounding_set() -> io::Result<()> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) if bit > 0 => break,
            Err(e) => {
                let e = io::Error::from(e);
                return Err(io::Error::new(e.kind(), format!("capability {bit}: {e}")));
            }
        }
    }
    Ok(())
}

/// Gives up the score that keeps the agent from the kernel's out-of-memory killer.
///
/// # Errors
/// When the kernel refuses (without CAP_SYS_RESOURCE it may only be raised).
pub fn usual_oom_score() -> io::Result<()> {
    let file = "/proc/self/oom_score_adj";
    if std::fs::read_to_string(file)?.trim() == "0" {
        return Ok(());
    }
    std::fs::write(file, "0")
}
