//! A volume is nobody's when the kernel says so, not when its QEMU does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::{os::fd::OwnedFd, time::Duration};

use crn_api_types::VolumeState;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;
use testbed::{network, proc};
use tests::harness::bare::Host;
use tokio::time::sleep;

/// What a QEMU that its guest took over would give to an accomplice.
fn kept(pid: i32, volume: &str) -> OwnedFd {
    let open = proc::descriptors(pid);
    let number = open
        .iter()
        .find_map(|(number, target)| target.contains(volume).then_some(*number))
        .unwrap_or_else(|| panic!("{volume} is not among {open:#?}"));
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).unwrap()
}

#[test]
fn a_volume_is_free_when_no_process_has_it_open() {
    network::alone(async || {
        let (host, agent, view) = Host::with_guest().await;
        agent.create("other", json!({})).await.unwrap();
        agent.reach("other", "running").await;
        let volume = agent.create_volume("data").await;
        agent.attach("data", "web").await.unwrap();
        let descriptor = kept(view.pid.unwrap(), &volume.id);

        // The guest lets go of a disk only when it is reset.
        let _ = agent.detach("data").await;
        let mut console = host.console(&view);
        console.uptime();
        console.key('r');
        // QEMU has closed it, and says so; several comparisons pass.
        sleep(Duration::from_secs(15)).await;
        let found = agent.volume("data").await;
        assert_eq!(found.state, VolumeState::Detaching, "{}", agent.words());
        assert_eq!(found.instance.as_deref(), Some("web"));
        assert!(agent.attach("data", "other").await.is_err());

        // It survives the agent, and the end of its QEMU.
        agent.kill();
        let agent = host.start().await;
        agent.reach("web", "running").await;
        agent.ask("web", "stop", true).await.unwrap();
        agent.reach("web", "stopped").await;
        let found = agent.volume("data").await;
        assert_eq!(found.state, VolumeState::Detaching, "{}", agent.words());
        assert!(agent.attach("data", "other").await.is_err());
        // Its instance does without.
        agent.ask("web", "start", false).await.unwrap();
        let view = agent.reach("web", "running").await;
        let open = proc::descriptors(view.pid.unwrap());
        assert!(!open.values().any(|t| t.contains(&volume.id)), "{open:#?}");

        drop(descriptor);
        agent.freed("data").await;
        agent.attach("data", "other").await.unwrap();
        drop(kept(
            agent.reach("other", "running").await.pid.unwrap(),
            &volume.id,
        ));
    });
}

/// A volume that an honest QEMU was started with is closed by it like one that came later.
#[test]
fn a_volume_of_the_first_hour_is_closed_at_once() {
    network::alone(async || {
        let (host, agent) = Host::with_agent().await;
        let request = json!({ "volumes": [{ "name": "data", "size_mib": 64 }] });
        agent.create("web", request).await.unwrap();
        let view = agent.reach("web", "running").await;
        let volume = agent.volume("data").await;
        let _ = agent.detach("data").await;
        let mut console = host.console(&view);
        console.uptime();
        console.key('r');
        agent.freed("data").await;
        let open = proc::descriptors(view.pid.unwrap());
        assert!(!open.values().any(|t| t.contains(&volume.id)), "{open:#?}");
    });
}
