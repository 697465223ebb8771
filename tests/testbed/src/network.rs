//! A network of a test's own.

use std::{collections::BTreeSet, os::fd::OwnedFd, process::Command};

use net::{GuestIndex, GuestSpec, HostNet, HostSpec};
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread of its own in a network namespace of its own. What the
/// test starts is in that namespace too.
///
/// # Panics
/// Without root, and with the test.
pub fn alone<F>(test: F)
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

/// A tap with everything that the host does for a guest.
///
/// # Panics
/// Without root.
pub async fn tap() -> OwnedFd {
    let spec = HostSpec::new("crn_test", "2001:db8::/64".parse().unwrap());
    let net = HostNet::open(spec).await.unwrap();
    net.start(&[]).await.unwrap();
    let network = "2001:db8::3:abab:abab:aba0/124".parse().unwrap();
    let id = "ab".repeat(32);
    let guest = GuestSpec::new(GuestIndex(7), &id, network, None, BTreeSet::new());
    net.add_guest(&guest).await.unwrap()
}
