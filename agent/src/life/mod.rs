//! The life of an instance: phases, and the named transitions between them.
//!
//! Pure: nothing here touches the world. [`Phase::apply`] is the only way from
//! one phase to another, [`decide`] says what an instance in a phase does next.
//! The diagram is in docs/lifecycle.md.
//!
//! Invariant: a phase is written to the database before the effect that it
//! names, and every effect can be repeated. Recovery is therefore the ordinary
//! path: take the phase from the database and go on.

mod transition;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::backoff::Backoff;

pub use crn_api_types::{Desired, Failure, FailureCode, StopReason};
pub use transition::{Circumstances, Transition};

/// Where an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// What the first start needs is being made.
    Preparing {
        /// The step at hand.
        step: PrepareStep,
    },
    /// A QEMU is being started.
    Starting {
        /// The step at hand.
        step: StartStep,
    },
    /// QEMU runs and its monitor answers.
    Running,
    /// It waits for its owner, for as long as the owner takes or until a set time. It
    /// rests, and is never destroyed for it.
    AwaitingOwner {
        /// What for.
        what: Awaited,
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// When it is stopped instead, if it is.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "time::serde::rfc3339::option"
        )]
        until: Option<OffsetDateTime>,
    },
    /// QEMU is being stopped.
    Stopping {
        /// How hard we try at the moment.
        stage: StopStage,
        /// What follows once QEMU is gone.
        then: Then,
    },
    /// No QEMU, disks kept.
    Stopped {
        /// Why it stopped.
        reason: StopReason,
    },
    /// QEMU died; it will be started again.
    BackingOff {
        /// How many restarts in a row have been needed, this one included.
        attempt: u32,
        /// When the next start is due.
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
        /// What was seen of the death.
        failure: Failure,
    },
    /// Could not be prepared; it stays so until started again or deleted.
    Failed {
        /// What went wrong.
        failure: Failure,
    },
    /// Everything of the instance is being removed.
    Deleting {
        /// The step at hand.
        step: DeleteStep,
    },
}

/// Steps before the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrepareStep {
    /// The base image is fetched unless it is in the store.
    Image,
    /// The root overlay is created over the base image.
    RootDisk,
    /// The volumes that do not exist yet are created.
    Volumes,
    /// The cloud-init seed is written.
    Seed,
}

/// Steps of each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartStep {
    /// Firewall elements, tap, addresses, routes; then QEMU is launched with the
    /// tap. One step: a tap lives as long as somebody holds its descriptor.
    Launch,
    /// The monitor is connected and answers.
    Monitor,
}

/// What an instance waits for its owner for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaited {
    /// The owner's launch session, without which there can be no QEMU.
    Session,
    /// A secret that is put into the paused guest's memory.
    Secret,
    /// The key of its disk, which the guest itself takes.
    Unlock,
}

impl Awaited {
    /// Whether a QEMU exists meanwhile.
    #[must_use]
    pub fn has_qemu(self) -> bool {
        match self {
            Self::Session => false,
            Self::Secret | Self::Unlock => true,
        }
    }
}

/// How a QEMU is asked to go; each stage has its own time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopStage {
    /// ACPI power button: the guest shuts itself down.
    PowerButton,
    /// QMP `quit`: QEMU flushes its disks and exits.
    Quit,
    /// SIGKILL.
    Kill,
    /// QEMU is gone: network and run files are removed.
    CleanUp,
}

/// What follows a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "kebab-case")]
pub enum Then {
    /// Stay stopped.
    Stay {
        /// The reason to remember.
        reason: StopReason,
    },
    /// Start again at once.
    Restart,
    /// Start again after a while: QEMU died by itself.
    BackOff {
        /// What was seen of the death.
        failure: Failure,
    },
}

/// Steps of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteStep {
    /// Network and run files.
    CleanUp,
    /// Root disk, seed, firmware variables, console log; volumes are detached and kept.
    Disks,
    /// The record itself.
    Record,
}

/// What an instance does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Carry out the effect that the phase names, then apply [`Transition::Done`].
    Work,
    /// Go to another phase first.
    Go(Transition),
    /// Nothing to do until something happens.
    Wait,
    /// The record is gone: the task ends.
    End,
}

/// What has been asked of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// The state to reach.
    pub desired: Desired,
    /// A restart was asked for and has not begun.
    pub restart: bool,
    /// Do not wait for the guest: skip the power button.
    pub force: bool,
}

/// Decides what an instance in `phase` does about `intent` at `now`. Pure.
#[must_use]
pub fn decide(phase: &Phase, intent: Intent, now: OffsetDateTime) -> Decision {
    use Decision::{End, Go, Wait, Work};
    use Desired::{Deleted, Running, Stopped};
    match (phase, intent.desired) {
        (
            Phase::Deleting {
                step: DeleteStep::Record,
            },
            _,
        ) => End,
        (Phase::Deleting { .. }, _) => Work,
        // The stages of a stop are not left before QEMU is gone, only escalated.
        (
            Phase::Stopping {
                stage: StopStage::PowerButton,
                ..
            },
            _,
        ) if intent.force => Go(Transition::Escalate),
        (Phase::Stopping { .. }, _) => Work,
        (
            Phase::Preparing { .. }
            | Phase::Stopped { .. }
            | Phase::Failed { .. }
            | Phase::BackingOff { .. },
            Deleted,
        ) => Go(Transition::Delete),
        (
            Phase::Running | Phase::Starting { .. } | Phase::AwaitingOwner { .. },
            Deleted | Stopped,
        ) => Go(Transition::Stop {
            force: intent.force,
        }),
        (Phase::AwaitingOwner { .. }, Running) if intent.restart => Go(Transition::Restart {
            force: intent.force,
        }),
        (
            Phase::AwaitingOwner {
                until: Some(until), ..
            },
            Running,
        ) if *until <= now => Go(Transition::Expire),
        (Phase::AwaitingOwner { .. }, Running) => Wait,
        (Phase::Preparing { .. }, _) => Work,
        (Phase::Starting { .. }, Running) => Work,
        (Phase::Running, Running) if intent.restart => Go(Transition::Restart {
            force: intent.force,
        }),
        (Phase::Running, Running) => Wait,
        (Phase::Stopped { .. }, Running) => Go(Transition::Start),
        (Phase::BackingOff { .. }, Running) if intent.restart => Go(Transition::Start),
        // Never longer than the pause was: the clock may have been wrong when it began.
        (Phase::BackingOff { until, attempt, .. }, Running)
            if *until <= now || *until - now > RESTART.after(*attempt) =>
        {
            Go(Transition::Start)
        }
        (Phase::BackingOff { .. }, Running) => Wait,
        (Phase::BackingOff { .. }, Stopped) => Go(Transition::Stop { force: true }),
        // A failed preparation is tried again when somebody asks.
        (Phase::Failed { .. }, Running) if intent.restart => Go(Transition::Prepare),
        (Phase::Failed { .. } | Phase::Stopped { .. }, _) => Wait,
    }
}

/// What a transition settles of the intent, so that it is not done twice. What
/// was asked for meanwhile stays: desired changes only if it is still `running`,
/// flags are only cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The restart has begun.
    pub restart: bool,
    /// There is nothing left to force.
    pub force: bool,
    /// It is to stay stopped until it is started again, though nobody asked for that:
    /// the guest powered itself off, or the owner did not come.
    pub guest_off: bool,
}

impl Settled {
    /// What `transition`, which led to `next`, settles.
    #[must_use]
    pub fn by(transition: &Transition, next: &Phase) -> Self {
        use Transition::{Expire, PoweredOff, Prepare, Restart, Start};
        Self {
            restart: matches!(transition, Start | Restart { .. } | Prepare),
            force: matches!(next, Phase::Stopped { .. } | Phase::Starting { .. }),
            guest_off: matches!(transition, PoweredOff | Expire),
        }
    }
}

/// Before a QEMU that failed is started again.
const RESTART: Backoff = Backoff::seconds(1, 300);

impl Phase {
    /// Whether a QEMU of the instance may exist. Where this is false one that is
    /// found is killed, and its run files are removed.
    #[must_use]
    pub fn may_have_qemu(&self) -> bool {
        match self {
            Self::Starting { .. } | Self::Running | Self::Stopping { .. } => true,
            Self::AwaitingOwner { what, .. } => what.has_qemu(),
            Self::Preparing { .. }
            | Self::Stopped { .. }
            | Self::BackingOff { .. }
            | Self::Failed { .. }
            | Self::Deleting { .. } => false,
        }
    }

    /// Whether the guest has its part of the host's network: from the moment before
    /// its tap is made until QEMU is gone. The clean-up takes it away.
    #[must_use]
    pub fn has_guest_net(&self) -> bool {
        match self {
            Self::Stopping { stage, .. } => *stage != StopStage::CleanUp,
            other => other.may_have_qemu(),
        }
    }

    /// The phase with its step, as fault points and logs name it: `starting.launch`.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            Self::Preparing {
                step: PrepareStep::Image,
            } => "preparing.image",
            Self::Preparing {
                step: PrepareStep::RootDisk,
            } => "preparing.root-disk",
            Self::Preparing {
                step: PrepareStep::Volumes,
            } => "preparing.volumes",
            Self::Preparing {
                step: PrepareStep::Seed,
            } => "preparing.seed",
            Self::Starting {
                step: StartStep::Launch,
            } => "starting.launch",
            Self::Starting {
                step: StartStep::Monitor,
            } => "starting.monitor",
            Self::Running => "running",
            Self::AwaitingOwner { .. } => "awaiting-owner",
            Self::Stopping {
                stage: StopStage::PowerButton,
                ..
            } => "stopping.power-button",
            Self::Stopping {
                stage: StopStage::Quit,
                ..
            } => "stopping.quit",
            Self::Stopping {
                stage: StopStage::Kill,
                ..
            } => "stopping.kill",
            Self::Stopping {
                stage: StopStage::CleanUp,
                ..
            } => "stopping.clean-up",
            Self::Stopped { .. } => "stopped",
            Self::BackingOff { .. } => "backing-off",
            Self::Failed { .. } => "failed",
            Self::Deleting {
                step: DeleteStep::CleanUp,
            } => "deleting.clean-up",
            Self::Deleting {
                step: DeleteStep::Disks,
            } => "deleting.disks",
            Self::Deleting {
                step: DeleteStep::Record,
            } => "deleting.record",
        }
    }
}

#[cfg(test)]
mod tests;
