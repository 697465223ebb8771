//! Fault points: places where a test can have the agent killed.
//!
//! Compiled in only with the feature `fault-points`, which release builds refuse.
//! `CRN_FAULT_POINT=persisted:starting.launch` kills the process with SIGKILL
//! when that point is reached: after the phase is on disk and before its effect
//! (`persisted:`), or after the effect and before the next phase (`effected:`).

#[cfg(all(feature = "fault-points", not(debug_assertions)))]
compile_error!("the feature `fault-points` is for tests; it cannot be part of a release build");

/// All fault points by name. Phases in which an instance rests have no effect.
#[cfg(feature = "testing")]
#[must_use]
pub fn names() -> Vec<String> {
    let phases = crn_api_types::Step::ALL.iter().map(|step| step.as_str());
    // Nothing asks for the owner yet: no life of an instance leads there.
    let phases: Vec<_> = phases.filter(|p| *p != "awaiting-owner").collect();
    let persisted = phases.iter().map(|p| format!("persisted:{p}"));
    let steps = phases.iter().filter(|p| p.contains('.'));
    let effected = steps.map(|p| format!("effected:{p}"));
    // Between a launcher, its record and its word to become QEMU; between the record
    // of a volume, QEMU's file of it, and the guest's disk.
    let others = [
        "held:starting.launch",
        "recorded:starting.launch",
        "recorded:attach",
        "opened:attach",
        "begun:detach",
        "unplugged:detach",
    ];
    let others = others.map(str::to_owned);
    persisted.chain(effected).chain(others).collect()
}

/// Dies here if the environment says so. Nothing at all in an ordinary build.
#[inline]
pub fn point(kind: &str, at: &str) {
    #[cfg(feature = "fault-points")]
    {
        use std::sync::OnceLock;
        static ARMED: OnceLock<Option<String>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| std::env::var("CRN_FAULT_POINT").ok());
        if armed
            .as_deref()
            .and_then(|p| p.strip_prefix(kind)?.strip_prefix(':'))
            == Some(at)
        {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            loop {
                std::thread::park();
            }
        }
    }
    #[cfg(not(feature = "fault-points"))]
    let _ = (kind, at);
}
