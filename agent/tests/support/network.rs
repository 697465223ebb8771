//! A network of a test's own.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread of its own in a network namespace of its own. What the
/// test starts is in that namespace too.
pub(crate) fn alone<F>(test: F)
where
    F: AsyncFnOnce() + Send + 'static,
{
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of virtual machines need root");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("iproute2 is installed").success());
        // One thread: all that the runtime starts comes from here.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}
