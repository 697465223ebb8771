//! The transitions, and the one function that carries a phase along one.

use time::OffsetDateTime;

use super::{
    Awaited, DeleteStep, Failure, FailureCode, Phase, PrepareStep, RESTART, StartStep, StopReason,
    StopStage, Then,
};

/// A named way from one phase to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The step at hand is done.
    Done,
    /// Try the preparation again.
    Prepare,
    /// Start a stopped instance.
    Start,
    /// Stop it; with `force`, without asking the guest.
    Stop {
        /// Skip the power button.
        force: bool,
    },
    /// Stop it and start it again.
    Restart {
        /// Skip the power button.
        force: bool,
    },
    /// Remove it.
    Delete,
    /// The owner is needed before it can go on.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "confidential guests are the first to wait for their owner"
        )
    )]
    AwaitOwner {
        /// What for.
        what: Awaited,
        /// When it is stopped instead, if it is.
        until: Option<OffsetDateTime>,
    },
    /// The owner did what was waited for.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "confidential guests are the first to wait for their owner"
        )
    )]
    OwnerCame,
    /// The owner did not come in time.
    Expire,
    /// The stage of the stop ran out of time: try harder.
    Escalate,
    /// QEMU exited while it was being stopped.
    Exited,
    /// QEMU exited though nobody asked.
    Died {
        /// What was seen.
        failure: Failure,
    },
    /// The guest powered itself off; QEMU waits to be ended.
    PoweredOff,
    /// The step at hand failed for good.
    Failed {
        /// What went wrong.
        failure: Failure,
    },
    /// After an agent's start: the QEMU of this record runs.
    Found,
    /// After an agent's start: there is no QEMU of this record.
    Absent,
}

impl Transition {
    /// A word for events and logs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Delete => "delete",
            Self::AwaitOwner { .. } => "await-owner",
            Self::OwnerCame => "owner-came",
            Self::Expire => "expire",
            Self::Escalate => "escalate",
            Self::Exited => "exited",
            Self::Died { .. } => "died",
            Self::PoweredOff => "powered-off",
            Self::Failed { .. } => "failed",
            Self::Found => "found",
            Self::Absent => "absent",
        }
    }
}

/// A transition that the phase does not have. A defect of ours, never of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an instance in phase {phase} has no transition {transition}")]
pub struct Illegal {
    /// Where the instance is.
    pub phase: &'static str,
    /// What was tried.
    pub transition: &'static str,
}

/// What a transition may need to know besides the phase.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// The time.
    pub now: OffsetDateTime,
    /// Restarts in a row so far, since the last good run.
    pub restarts: u32,
    /// Whether the instance should run.
    pub wanted: bool,
    /// Whether the host booted since the instance was started.
    pub rebooted: bool,
}

impl Phase {
    /// Follows `transition`.
    ///
    /// # Errors
    /// [`Illegal`] when this phase has no such transition; nothing changes then.
    pub fn apply(&self, transition: &Transition, c: Circumstances) -> Result<Self, Illegal> {
        use Transition as T;
        let stop = |force: bool, then: Then| Self::Stopping {
            stage: if force {
                StopStage::Quit
            } else {
                StopStage::PowerButton
            },
            then,
        };
        let stay = |reason| Then::Stay { reason };
        let launch = Self::Starting {
            step: StartStep::Launch,
        };
        Ok(match (self, transition) {
            // Forward through the steps.
            (Self::Preparing { step }, T::Done) => match step {
                PrepareStep::Image => Self::Preparing {
                    step: PrepareStep::RootDisk,
                },
                PrepareStep::RootDisk => Self::Preparing {
                    step: PrepareStep::Volumes,
                },
                PrepareStep::Volumes => Self::Preparing {
                    step: PrepareStep::Seed,
                },
                PrepareStep::Seed if c.wanted => launch,
                PrepareStep::Seed => Self::Stopped {
                    reason: StopReason::NeverStarted,
                },
            },
            (
                Self::Starting {
                    step: StartStep::Launch,
                },
                T::Done,
            ) => Self::Starting {
                step: StartStep::Monitor,
            },
            (
                Self::Starting {
                    step: StartStep::Monitor,
                },
                T::Done,
            ) => Self::Running,
            (
                Self::Stopping {
                    stage: StopStage::CleanUp,
                    then,
                },
                T::Done,
            ) => match then {
                Then::Stay { reason } => Self::Stopped { reason: *reason },
                Then::Restart if c.wanted => launch,
                // Somebody has thought better of it.
                Then::Restart => Self::Stopped {
                    reason: StopReason::Requested,
                },
                Then::BackOff { failure } => Self::BackingOff {
                    attempt: c.restarts + 1,
                    until: c.now + RESTART.after(c.restarts + 1),
                    failure: failure.clone(),
                },
            },
            (
                Self::Deleting {
                    step: DeleteStep::CleanUp,
                },
                T::Done,
            ) => Self::Deleting {
                step: DeleteStep::Disks,
            },
            (
                Self::Deleting {
                    step: DeleteStep::Disks,
                },
                T::Done,
            ) => Self::Deleting {
                step: DeleteStep::Record,
            },

            // What is asked of it.
            (Self::Failed { .. }, T::Prepare) => Self::Preparing {
                step: PrepareStep::Image,
            },
            (Self::Stopped { .. } | Self::BackingOff { .. }, T::Start) => launch,
            (Self::Running | Self::Starting { .. }, T::Stop { force }) => {
                // A QEMU that has not come up has no guest to ask.
                let force = *force || !matches!(self, Self::Running);
                stop(force, stay(StopReason::Requested))
            }
            (Self::BackingOff { .. }, T::Stop { .. }) => Self::Stopped {
                reason: StopReason::Requested,
            },
            (Self::Running, T::Restart { force }) => stop(*force, Then::Restart),

            // The owner is waited for. Without a QEMU there is nothing to stop; with one,
            // there is no guest yet that could be asked.
            (
                Self::Starting {
                    step: StartStep::Launch,
                },
                T::AwaitOwner { what, until },
            ) if !what.has_qemu() => Self::AwaitingOwner {
                what: *what,
                since: c.now,
                until: *until,
            },
            (
                Self::Starting {
                    step: StartStep::Monitor,
                },
                T::AwaitOwner { what, until },
            ) if what.has_qemu() => Self::AwaitingOwner {
                what: *what,
                since: c.now,
                until: *until,
            },
            (Self::AwaitingOwner { what, .. }, T::OwnerCame) => match what.has_qemu() {
                true => Self::Running,
                false => launch,
            },
            (Self::AwaitingOwner { what, .. }, T::Stop { .. }) => match what.has_qemu() {
                true => stop(true, stay(StopReason::Requested)),
                false => Self::Stopped {
                    reason: StopReason::Requested,
                },
            },
            (Self::AwaitingOwner { what, .. }, T::Restart { .. }) => match what.has_qemu() {
                true => stop(true, Then::Restart),
                false => launch,
            },
            (Self::AwaitingOwner { what, .. }, T::Expire) => match what.has_qemu() {
                true => stop(true, stay(StopReason::OwnerDidNotCome)),
                false => Self::Stopped {
                    reason: StopReason::OwnerDidNotCome,
                },
            },
            (
                Self::Preparing { .. }
                | Self::Stopped { .. }
                | Self::Failed { .. }
                | Self::BackingOff { .. },
                T::Delete,
            ) => Self::Deleting {
                step: DeleteStep::CleanUp,
            },

            // A stop goes on.
            (Self::Stopping { stage, then }, T::Escalate) => Self::Stopping {
                stage: match stage {
                    StopStage::PowerButton => StopStage::Quit,
                    StopStage::Quit | StopStage::Kill => StopStage::Kill,
                    StopStage::CleanUp => StopStage::CleanUp,
                },
                then: then.clone(),
            },
            (Self::Stopping { then, .. }, T::Exited | T::Absent) => Self::Stopping {
                stage: StopStage::CleanUp,
                then: then.clone(),
            },

            // What happens to it.
            (Self::Running | Self::AwaitingOwner { .. }, T::PoweredOff) => {
                stop(true, stay(StopReason::GuestPoweredOff))
            }
            (
                Self::Running | Self::Starting { .. } | Self::AwaitingOwner { .. },
                T::Died { failure },
            ) => Self::Stopping {
                stage: StopStage::CleanUp,
                then: Then::BackOff {
                    failure: failure.clone(),
                },
            },
            (Self::Preparing { .. }, T::Failed { failure }) => Self::Failed {
                failure: failure.clone(),
            },
            (Self::Starting { .. }, T::Failed { failure }) => Self::Stopping {
                stage: StopStage::Kill,
                then: Then::BackOff {
                    failure: failure.clone(),
                },
            },

            // After an agent's start.
            (Self::Starting { .. }, T::Found) => Self::Starting {
                step: StartStep::Monitor,
            },
            (Self::Running | Self::AwaitingOwner { .. } | Self::Stopping { .. }, T::Found) => {
                self.clone()
            }
            (Self::Starting { .. }, T::Absent) => launch,
            (Self::Running | Self::AwaitingOwner { .. }, T::Absent) => Self::Stopping {
                stage: StopStage::CleanUp,
                then: if c.wanted && c.rebooted {
                    Then::Restart
                } else if c.wanted {
                    Then::BackOff {
                        failure: Failure {
                            code: FailureCode::Crashed,
                            message: "QEMU was gone when the agent came back".into(),
                        },
                    }
                } else {
                    stay(StopReason::Requested)
                },
            },
            (phase, transition) => {
                return Err(Illegal {
                    phase: phase.path(),
                    transition: transition.word(),
                });
            }
        })
    }
}
