//! Views as the agent sends them, for tests.

use crn_api_types::{
    AttachedVolume, Desired, Event, EventKind, FileSystem, Firmware, ImageView, InstanceView,
    NodeStatus, Owner, Phase, Step, Totals, VolumeState, VolumeView, Warning, WarningKind,
};

pub(super) fn instance() -> InstanceView {
    InstanceView {
        id: "ab".repeat(32),
        owner: Owner::Operator,
        name: "my-web-server".into(),
        hostname: "my-web-server".into(),
        phase: Phase::Running,
        step: Step::Running,
        desired: Desired::Running,
        ready: true,
        vcpus: 2,
        memory_mib: 4096,
        disk_mib: 20_480,
        image: "debian:12".into(),
        image_digest: Some(format!("sha256:{}", "cd".repeat(32))),
        firmware: Firmware::Bios,
        watchdog: false,
        ipv6: "2001:db8:1:2:3:abab:abab:aba1".into(),
        ipv6_network: "2001:db8:1:2:3:abab:abab:aba0/124".into(),
        ipv4: None,
        mac: "52:54:00:12:34:56".into(),
        ports: vec!["22/tcp".into(), "80/tcp".into(), "443/tcp".into()],
        volumes: vec![AttachedVolume {
            name: "data".into(),
            mount: Some("/data".into()),
            size_mib: 10_240,
        }],
        pid: Some(4711),
        accel: Some("kvm".into()),
        machine: Some("pc-q35-10.0".into()),
        cpu_model: Some("host".into()),
        started_at: Some("2026-11-25T02:00:00Z".into()),
        uptime_seconds: Some(7260),
        restarts: 0,
        progress: None,
        stage_ends_at: None,
        paused: false,
        warnings: Vec::new(),
        failure: None,
        next_start_at: None,
        stop_reason: None,
        created_at: "2026-11-25T01:59:00Z".into(),
        changed_at: "2026-11-25T02:00:30Z".into(),
    }
}

/// As a guest or a caller could want a terminal to see it.
pub(super) fn hostile_instance() -> InstanceView {
    InstanceView {
        name: format!("{}\u{1b}[2J", "x".repeat(50)),
        phase: Phase::Failed,
        step: Step::Failed,
        warnings: vec![Warning {
            kind: WarningKind::Paused,
            message: "\u{202e}gninraw\r\nSTATE  ready".into(),
            since: "2026-11-25T02:10:00Z".into(),
        }],
        ..instance()
    }
}

pub(super) fn volume() -> VolumeView {
    VolumeView {
        name: "data".into(),
        id: "0123456789abcdef".into(),
        owner: Owner::Operator,
        size_mib: 10_240,
        state: VolumeState::Ready,
        file_system: FileSystem::Ext4,
        instance: Some("my-web-server".into()),
        mount: Some("/data".into()),
        created_at: "2026-11-25T01:59:00Z".into(),
    }
}

pub(super) fn image() -> ImageView {
    ImageView {
        name: "debian:12".into(),
        stored: true,
        digest: Some(format!("sha256:{}", "cd".repeat(32))),
        format: Some("qcow2".into()),
        virtual_size: Some(3 << 30),
        file_size: Some(348_651_520),
        source: "https://cloud.debian.org/images/x.qcow2".into(),
        boot_mark: None,
        retired: false,
        instances: 3,
        added_at: Some("2026-11-25T01:59:00Z".into()),
    }
}

pub(super) fn status() -> NodeStatus {
    NodeStatus {
        version: "0.1.0".into(),
        pid: 4242,
        uptime_seconds: 90_000,
        accel: "tcg".into(),
        accel_reason: "KVM is present but emulates every instruction (2 MIPS)".into(),
        prefix: "2001:db8:1:2::/64".into(),
        phases: [(Phase::Running, 2), (Phase::Stopped, 1)].into(),
        used: Totals {
            instances: 3,
            vcpus: 4,
            memory_mib: 6144,
            disk_mib: 51_200,
        },
        capacity: Totals {
            instances: 1024,
            vcpus: 8,
            memory_mib: 22_118,
            disk_mib: 500_000,
        },
        warnings: Vec::new(),
    }
}

pub(super) fn events() -> Vec<Event> {
    let event = |seq, instance: bool, kind, data| Event {
        seq,
        at: "2026-11-25T02:00:00.123456Z".into(),
        owner: Owner::Operator,
        instance: instance.then(|| "ab".repeat(32)),
        kind,
        data,
    };
    vec![
        event(
            1,
            false,
            EventKind::Image,
            serde_json::json!({"name": "debian:12"}),
        ),
        event(
            2,
            true,
            EventKind::Created,
            serde_json::json!({"name": "my-web-server"}),
        ),
        event(
            3,
            true,
            EventKind::Phase,
            serde_json::json!({"phase": "preparing", "step": "image"}),
        ),
        event(
            4,
            true,
            EventKind::Phase,
            serde_json::json!({"phase": "failed", "failure": {"message": "no \u{1b}[31mroute"}}),
        ),
        event(
            5,
            true,
            EventKind::CloudInitWarnings,
            serde_json::json!({"warnings": ["no key", "hostname"]}),
        ),
    ]
}
