//! From records and what tasks know to what the API shows.

use crn_api_types::{
    AttachedVolume, InstanceView, Phase as Word, ProgressView, Step, VolumeView, Warning,
};
use time::OffsetDateTime;

use crate::{
    db::{InstanceRow, VolumeRow, rfc3339},
    life::{DeleteStep, Phase, PrepareStep, StartStep, StopStage, Then},
    node::Node,
    tasks::Status,
};

/// The phase with its step, in a word.
pub(super) fn step(phase: &Phase) -> Step {
    match phase {
        Phase::Preparing { step } => match step {
            PrepareStep::Image => Step::PreparingImage,
            PrepareStep::RootDisk => Step::PreparingRootDisk,
            PrepareStep::Volumes => Step::PreparingVolumes,
            PrepareStep::Seed => Step::PreparingSeed,
        },
        Phase::Starting { step } => match step {
            StartStep::Launch => Step::StartingLaunch,
            StartStep::Monitor => Step::StartingMonitor,
        },
        Phase::Running => Step::Running,
        Phase::AwaitingOwner { .. } => Step::AwaitingOwner,
        Phase::Stopping { stage, .. } => match stage {
            StopStage::PowerButton => Step::StoppingPowerButton,
            StopStage::Quit => Step::StoppingQuit,
            StopStage::Kill => Step::StoppingKill,
            StopStage::CleanUp => Step::StoppingCleanUp,
        },
        Phase::Stopped { .. } => Step::Stopped,
        Phase::BackingOff { .. } => Step::BackingOff,
        Phase::Failed { .. } => Step::Failed,
        Phase::Deleting { step } => match step {
            DeleteStep::CleanUp => Step::DeletingCleanUp,
            DeleteStep::Disks => Step::DeletingDisks,
            DeleteStep::Record => Step::DeletingRecord,
        },
    }
}

/// The phase in a word.
pub(super) fn word(phase: &Phase) -> Word {
    step(phase).phase()
}

fn seconds_since(at: OffsetDateTime) -> Option<u64> {
    u64::try_from((OffsetDateTime::now_utc() - at).whole_seconds()).ok()
}

/// From what is recorded, what the task knows, and the instance's volumes.
pub(super) fn instance(
    node: &Node,
    row: &InstanceRow,
    live: Option<&Status>,
    volumes: &[VolumeRow],
) -> InstanceView {
    // The task is ahead of a record that was read before.
    let phase = live.map_or(&row.phase, |s| &s.phase);
    let process = row.process.as_ref().filter(|_| phase.may_have_qemu());
    let failure = match phase {
        Phase::Failed { failure } | Phase::BackingOff { failure, .. } => Some(failure.clone()),
        Phase::Stopping {
            then: Then::BackOff { failure },
            ..
        } => Some(failure.clone()),
        _ => None,
    };
    let next_start_at = match phase {
        Phase::BackingOff { until, .. } => Some(rfc3339(*until)),
        _ => None,
    };
    let stop_reason = match phase {
        Phase::Stopped { reason } => Some(*reason),
        _ => None,
    };
    let guest = node.net.guest(row);
    InstanceView {
        id: row.id.to_string(),
        owner: row.owner.clone(),
        name: row.name.to_string(),
        hostname: row.spec.hostname.clone(),
        phase: word(phase),
        step: step(phase),
        desired: row.intent.desired,
        ready: live.is_some_and(|s| s.ready),
        vcpus: row.spec.vcpus,
        memory_mib: row.spec.memory.0.into(),
        disk_mib: row.spec.disk.0.into(),
        image: row.spec.image.to_string(),
        image_digest: row.image.as_ref().map(|d| format!("sha256:{d}")),
        firmware: row.spec.firmware,
        watchdog: row.spec.watchdog,
        ipv6: row.network.guest().to_string(),
        ipv6_network: row.network.to_string(),
        ipv4: guest.ipv4.as_ref().map(|v4| v4.guest.to_string()),
        mac: guest.mac.to_string(),
        ports: row.spec.ports.iter().map(ToString::to_string).collect(),
        volumes: volumes
            .iter()
            .map(|v| AttachedVolume {
                name: v.name.to_string(),
                mount: v.mount.clone(),
                size_mib: v.mib,
            })
            .collect(),
        pid: live.and_then(|s| s.pid),
        accel: process.map(|p| p.accel.clone()),
        machine: row.hardware.as_ref().map(|h| h.machine.clone()),
        cpu_model: row.hardware.as_ref().map(|h| h.cpu.clone()),
        started_at: process.map(|p| rfc3339(p.launched_at)),
        uptime_seconds: process.and_then(|p| seconds_since(p.launched_at)),
        restarts: row.restarts,
        progress: live
            .and_then(|s| s.progress)
            .map(|(done, total)| ProgressView { done, total }),
        stage_ends_at: live.and_then(|s| s.stage_ends_at.clone()),
        paused: live.is_some_and(|s| s.paused),
        warnings: live.map_or_else(Vec::new, |s| {
            let warnings = s.warnings.iter();
            warnings
                .map(|(kind, warned)| Warning {
                    kind: *kind,
                    message: warned.message.clone(),
                    since: rfc3339(warned.since),
                })
                .collect()
        }),
        failure,
        next_start_at,
        stop_reason,
        created_at: rfc3339(row.created_at),
        changed_at: rfc3339(row.changed_at),
    }
}

impl From<VolumeRow> for VolumeView {
    fn from(row: VolumeRow) -> Self {
        Self {
            name: row.name.to_string(),
            id: row.id,
            owner: row.owner,
            size_mib: row.mib,
            state: row.state,
            file_system: row.file_system,
            instance: row.instance_name.map(Into::into),
            mount: row.mount,
            created_at: rfc3339(row.created_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault points, logs and the API call a step the same.
    #[test]
    fn steps_are_spelled_as_paths_are() {
        assert_eq!(step(&Phase::Running).as_str(), Phase::Running.path());
    }
}
