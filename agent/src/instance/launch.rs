//! From a record to everything that its QEMU's command line depends on. Pure.

use std::path::PathBuf;

use disk::ByteSize;

use crate::{
    db::{Hardware, InstanceRow, VolumeRow},
    node::Node,
    paths::InstanceFile,
    qemu::{
        file_limit,
        plan::{Boot, DiskFormat, Launch, Open, Protection, VolumeDisk},
    },
};

/// What is launched for an instance with these volumes, on a link with this MTU (bytes).
pub(super) fn launch(
    node: &Node,
    row: &InstanceRow,
    hardware: Hardware,
    base: (PathBuf, DiskFormat),
    volumes: &[VolumeRow],
    cgroup_procs: Option<PathBuf>,
    mtu: u32,
) -> Launch {
    let file = |f| node.paths.instance_file(&row.id, f);
    let hex = row.id.as_str();
    let part = |r: std::ops::Range<usize>| hex.get(r).unwrap_or_default();
    Launch {
        binary: node.config.qemu.binary.clone(),
        marker: format!("crn:{}:{}", node.paths.node_mark(), row.id),
        uuid: [0..8, 8..12, 12..16, 16..20, 20..32].map(part).join("-"),
        vcpus: row.spec.vcpus,
        memory_mib: row.spec.memory.0.into(),
        machine: hardware.machine,
        protection: Protection::None(Open {
            accel: node.accel,
            cpu: hardware.cpu,
            nested: node.config.qemu.nested_virtualization,
            boot: Boot::new(
                row.spec.firmware,
                &node.config.qemu.uefi_code,
                &file(InstanceFile::UefiVars),
            ),
            seed: Some(file(InstanceFile::Seed)),
        }),
        root: file(InstanceFile::Root),
        base,
        watchdog: row.spec.watchdog,
        volumes: volumes
            .iter()
            .map(|v| VolumeDisk {
                id: v.id.clone(),
                path: node.volumes.path(&v.id),
            })
            .collect(),
        mac: node.net.guest(row).mac.to_string(),
        mtu,
        run_dir: node.paths.run(&row.id),
        console_log: Some(file(InstanceFile::ConsoleLog)),
        uid: node.uid(row),
        isolate_network: node.config.qemu.isolate_network,
        cgroup_procs,
        largest_file: node.limits_files.then(|| longest_file(row, volumes)),
        confinement: node.confinement.clone(),
    }
}

/// How long the longest file of an instance with these volumes may get, bytes. Pure.
pub(super) fn longest_file(row: &InstanceRow, volumes: &[VolumeRow]) -> u64 {
    let sizes = volumes.iter().map(|v| v.mib);
    let largest = sizes.fold(row.spec.disk.0.into(), u64::max);
    file_limit::longest(ByteSize::from_bytes(largest.saturating_mul(1 << 20)))
}
