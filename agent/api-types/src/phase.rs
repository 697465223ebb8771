//! Where an instance is in its life, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an enum of words: one spelling, for JSON and for people.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $name {
            $($(#[$about])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let all = Self::ALL.iter().copied();
                let mut found = all.filter(|it| it.as_str() == word);
                found.next().ok_or_else(|| crate::UnknownWord(word.to_owned()))
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Where an instance is in its life.
    Phase {
        /// What the first start needs is being made.
        Preparing = "preparing",
        /// A QEMU is being started.
        Starting = "starting",
        /// QEMU runs and its monitor answers.
        Running = "running",
        /// It waits for its owner, and rests.
        AwaitingOwner = "awaiting-owner",
        /// QEMU is being stopped.
        Stopping = "stopping",
        /// No QEMU, disks kept.
        Stopped = "stopped",
        /// QEMU died; it will be started again.
        BackingOff = "backing-off",
        /// Could not be prepared.
        Failed = "failed",
        /// Everything of it is being removed.
        Deleting = "deleting",
    }
}

words! {
    /// A phase with its step, as events, logs and fault points name it too.
    Step {
        /// The base image is fetched unless it is in the store.
        PreparingImage = "preparing.image",
        /// The root overlay is created over the base image.
        PreparingRootDisk = "preparing.root-disk",
        /// The volumes that do not exist yet are created.
        PreparingVolumes = "preparing.volumes",
        /// The cloud-init seed is written.
        PreparingSeed = "preparing.seed",
        /// Network, then QEMU.
        StartingLaunch = "starting.launch",
        /// The monitor is connected and answers.
        StartingMonitor = "starting.monitor",
        /// QEMU runs.
        Running = "running",
        /// It waits for its owner.
        AwaitingOwner = "awaiting-owner",
        /// The guest is asked to shut down.
        StoppingPowerButton = "stopping.power-button",
        /// QEMU is asked to quit.
        StoppingQuit = "stopping.quit",
        /// QEMU is killed.
        StoppingKill = "stopping.kill",
        /// Network and run files are removed.
        StoppingCleanUp = "stopping.clean-up",
        /// No QEMU.
        Stopped = "stopped",
        /// It will be started again.
        BackingOff = "backing-off",
        /// It could not be prepared.
        Failed = "failed",
        /// Network and run files are removed.
        DeletingCleanUp = "deleting.clean-up",
        /// Disks and logs are removed.
        DeletingDisks = "deleting.disks",
        /// The record is removed.
        DeletingRecord = "deleting.record",
    }
}

impl Step {
    /// The phase that it is a step of.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::PreparingImage
            | Self::PreparingRootDisk
            | Self::PreparingVolumes
            | Self::PreparingSeed => Phase::Preparing,
            Self::StartingLaunch | Self::StartingMonitor => Phase::Starting,
            Self::Running => Phase::Running,
            Self::AwaitingOwner => Phase::AwaitingOwner,
            Self::StoppingPowerButton
            | Self::StoppingQuit
            | Self::StoppingKill
            | Self::StoppingCleanUp => Phase::Stopping,
            Self::Stopped => Phase::Stopped,
            Self::BackingOff => Phase::BackingOff,
            Self::Failed => Phase::Failed,
            Self::DeletingCleanUp | Self::DeletingDisks | Self::DeletingRecord => Phase::Deleting,
        }
    }
}

/// What the owner wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    /// It should run, also after a crash or a reboot of the host.
    Running,
    /// It should be stopped, its disks kept.
    Stopped,
    /// It should be gone, with its root disk.
    Deleted,
}

/// Why an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// Created without being started.
    NeverStarted,
    /// The operator or its owner asked for it.
    Requested,
    /// The guest powered itself off.
    GuestPoweredOff,
    /// Its owner did not come in time.
    OwnerDidNotCome,
}

/// Something that went wrong with an instance, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// A stable word for programs.
    pub code: FailureCode,
    /// A sentence for people.
    pub message: String,
}

/// Stable words for what went wrong with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The base image could not be had.
    Image,
    /// A disk could not be created or opened.
    Disk,
    /// The seed could not be written.
    Seed,
    /// Tap, addresses or firewall.
    Network,
    /// QEMU did not start, or its monitor did not answer.
    Launch,
    /// QEMU died while it ran.
    Crashed,
    /// Anything else.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_everywhere() {
        for phase in Phase::ALL {
            let json = serde_json::to_value(phase).unwrap();
            assert_eq!(json, phase.as_str());
            assert_eq!(phase.as_str().parse(), Ok(*phase));
        }
        for step in Step::ALL {
            assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
            let phase = step.as_str().split('.').next().unwrap();
            assert_eq!(step.phase().as_str(), phase, "{step}");
        }
        assert!("backing_off".parse::<Phase>().is_err());
    }
}
