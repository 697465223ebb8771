//! What changes under a running guest: volumes come, grow and go; its tap is removed by somebody.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use std::{thread, time::Duration};

use serde_json::Value;
use tests::harness::{
    Agent, BOOT_PATIENCE, Guest, Host, Key, PATIENCE, Uplink, images, run, wait_for,
};

fn told(guest: &Guest<'_>, script: &str) -> String {
    guest.run(script).unwrap().trim().to_owned()
}

/// The size of the disk with this serial number as the guest sees it, or nothing.
fn disk(guest: &Guest<'_>, serial: &str) -> String {
    let device = format!("/dev/disk/by-id/virtio-{serial}");
    told(
        guest,
        &format!("test ! -e {device} || blockdev --getsize64 {device}"),
    )
}

fn wait_disk(guest: &Guest<'_>, serial: &str, size: &str) {
    wait_for(&format!("a disk of {size:?} bytes"), PATIENCE, || {
        let seen = disk(guest, serial);
        if seen == size {
            Ok(Some(()))
        } else {
            Err(format!("{seen:?} bytes").into())
        }
    })
    .unwrap();
}

#[test]
fn a_running_guest_keeps_running() {
    let host = Host::new(Uplink::Routed).unwrap();
    let image = images::debian(|line| println!("{line}")).unwrap();
    let key = Key::new(host.dir()).unwrap();
    let mut agent = Agent::start(&host, &[]).unwrap();
    agent
        .cli(&["image", "import", "debian:12", image.to_str().unwrap()])
        .unwrap();
    let created = agent
        .cli(&[
            "instance",
            "create",
            "--name=live",
            "--cpu=2",
            "--memory=1",
            "--disk=6",
            "--image=debian:12",
            "--ssh-key",
            key.public(),
            "--wait",
            "--timeout=900",
        ])
        .unwrap();
    let guest = host.internet().ssh(&key, created["ipv6"].as_str().unwrap());
    guest.wait(BOOT_PATIENCE).unwrap();
    // Its last steps start the SSH server anew.
    told(&guest, "cloud-init status --wait || true");
    let boot = guest.boot_id().unwrap();
    let qemu = agent.show("live").unwrap()["pid"].clone();
    let same = |agent: &Agent<'_>| {
        assert_eq!(guest.boot_id().unwrap(), boot);
        assert_eq!(agent.show("live").unwrap()["pid"], qemu);
    };

    volumes(&mut agent, &guest);
    same(&agent);
    tap(&host, &agent, &guest);
    same(&agent);

    mounted_at_the_next_start(&agent, &guest);

    agent
        .cli(&["instance", "delete", "live", "--force", "--wait"])
        .unwrap();
    assert_eq!(
        agent.cli(&["volume", "show", "extra"]).unwrap()["instance"],
        Value::Null
    );
    for volume in ["extra", "blank"] {
        agent.cli(&["volume", "delete", volume]).unwrap();
    }
}

/// A volume is plugged in, filled, grown, unplugged and plugged in again.
fn volumes(agent: &mut Agent<'_>, guest: &Guest<'_>) {
    let volume = agent
        .cli(&["volume", "create", "extra", "--size=1"])
        .unwrap();
    let serial = volume["id"].as_str().unwrap().to_owned();
    let device = format!("/dev/disk/by-id/virtio-{serial}");
    assert_eq!(disk(guest, &serial), "");
    agent.cli(&["volume", "attach", "extra", "live"]).unwrap();
    wait_disk(guest, &serial, "1073741824");
    told(
        guest,
        &format!("mkfs.ext4 -q {device} && mount {device} /mnt && echo kept >/mnt/file"),
    );

    // The agent dies and comes back: what was plugged in meanwhile is still known.
    agent.kill().unwrap();
    agent.restart().unwrap();
    agent.cli(&["volume", "resize", "extra", "2"]).unwrap();
    wait_disk(guest, &serial, "2147483648");
    told(guest, &format!("resize2fs {device} 2>&1"));
    let size: u64 = told(guest, "df --output=size -B1 /mnt | tail -1")
        .parse()
        .unwrap();
    assert!(size > 1900 << 20, "{size}");

    told(guest, "umount /mnt && sync");
    agent.cli(&["volume", "detach", "extra"]).unwrap();
    wait_disk(guest, &serial, "");
    agent.cli(&["volume", "attach", "extra", "live"]).unwrap();
    wait_disk(guest, &serial, "2147483648");
    assert_eq!(
        told(guest, &format!("mount {device} /mnt && cat /mnt/file")),
        "kept"
    );
    told(guest, "umount /mnt");
}

/// Volumes with a mount point that came after the first boot: one has a file system, one has none.
fn mounted_at_the_next_start(agent: &Agent<'_>, guest: &Guest<'_>) {
    agent
        .cli(&["volume", "create", "blank", "--size=1"])
        .unwrap();
    for volume in ["extra", "blank"] {
        let mount = format!("--mount=/srv/{volume}");
        agent
            .cli(&["volume", "attach", volume, "live", &mount])
            .unwrap();
    }
    for restarts in 1..=2 {
        agent
            .cli(&["instance", "restart", "live", "--wait", "--timeout=900"])
            .unwrap();
        guest.wait(BOOT_PATIENCE).unwrap();
        assert_eq!(told(guest, "cat /srv/extra/file"), "kept");
        let lines = told(guest, "grep -c /srv/ /etc/fstab");
        assert_eq!(lines, "2", "after {restarts}");
        let kept = told(guest, "ls /srv/blank; touch /srv/blank/kept");
        assert_eq!(kept.contains("kept"), restarts == 2, "{kept}");
        assert_eq!(told(guest, "findmnt -no FSTYPE /srv/blank"), "ext4");
    }
}

/// The tap is removed: the guest's connections go on over a new one.
fn tap(host: &Host, agent: &Agent<'_>, guest: &Guest<'_>) {
    let mut session = guest.session().unwrap();
    session.alive().unwrap();
    let host_ip = |words: &[&str]| run(host.namespace().net_command("ip").args(words));
    let links = host_ip(&["-o", "link"]).unwrap();
    assert!(links.contains(" vmtap0:"), "{links}");
    host_ip(&["link", "delete", "vmtap0"]).unwrap();
    wait_for("the tap", PATIENCE, || {
        Ok(host_ip(&["link", "show", "vmtap0"]).ok())
    })
    .unwrap();
    session.alive().unwrap();
    // Segmentation and checksums as the guest's driver agreed on them.
    let sum = told(guest, "head -c 30000000 /dev/zero | sha256sum");
    let bulk = run(guest
        .ssh("head -c 30000000 /dev/zero")
        .stdout(std::process::Stdio::piped()));
    assert_eq!(bulk.unwrap().len(), 30_000_000);
    assert_eq!(sum.len(), 64 + 3);
    thread::sleep(Duration::from_secs(1));
    session.alive().unwrap();
    let events = agent.cli_text(&["events", "--instance=live"]).unwrap();
    assert!(events.contains("tap-repaired"), "{events}");
}
