//! What QEMU reports, and the enumerations that reports and replies share.
//!
//! Names follow QEMU's schema (qapi/run-state.json, qapi/block-core.json, qapi/qdev.json). A value
//! that this client does not know is kept as text, so a newer QEMU's event is never lost.

use std::fmt;

use qapi::Event as _;
use qapi::qmp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::message::{RawEvent, printable};

/// An enumeration of QEMU's schema with room for names this client does not know.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A name this client does not know, shortened to 64 bytes.
            Other(String),
        }

        impl $name {
            /// The name in QEMU's schema.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    _ => Self::Other(printable(text, 64)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(d).map(|text| Self::from(&*text))
            }
        }
    };
}

open_enum! {
    /// Why QEMU shuts down (`ShutdownCause`).
    ShutdownReason {
        /// Not requested, or not known.
        None = "none",
        /// An error on the host forced it.
        HostError = "host-error",
        /// `quit` on a monitor.
        HostQuit = "host-qmp-quit",
        /// `system_reset` on a monitor, with `-no-reboot`.
        HostReset = "host-qmp-system-reset",
        /// A signal to QEMU.
        HostSignal = "host-signal",
        /// A user of QEMU's own interface.
        HostUi = "host-ui",
        /// The guest powered off, by ACPI or another way.
        GuestShutdown = "guest-shutdown",
        /// The guest reset itself, with `-no-reboot`.
        GuestReset = "guest-reset",
        /// The guest panicked.
        GuestPanic = "guest-panic",
        /// A part of the machine was reset.
        SubsystemReset = "subsystem-reset",
        /// A snapshot is being loaded.
        SnapshotLoad = "snapshot-load",
    }
}

/// Why the machine was reset: the same set of causes.
pub type ResetReason = ShutdownReason;

open_enum! {
    /// What the machine is doing (`RunState`).
    RunState {
        /// Paused by a debugger.
        Debug = "debug",
        /// Waiting for an incoming migration.
        InMigrate = "inmigrate",
        /// Stopped by an internal error.
        InternalError = "internal-error",
        /// Stopped by an I/O error of a disk with `werror=stop`.
        IoError = "io-error",
        /// Paused by `stop`.
        Paused = "paused",
        /// Paused after a migration.
        PostMigrate = "postmigrate",
        /// Not started yet (`-S`).
        Prelaunch = "prelaunch",
        /// Finishing a migration.
        FinishMigrate = "finish-migrate",
        /// Restoring from a snapshot.
        RestoreVm = "restore-vm",
        /// Running.
        Running = "running",
        /// Saving a snapshot.
        SaveVm = "save-vm",
        /// The guest is off and QEMU kept (`-no-shutdown`).
        Shutdown = "shutdown",
        /// The guest sleeps (ACPI S3).
        Suspended = "suspended",
        /// Stopped by a watchdog.
        Watchdog = "watchdog",
        /// The guest panicked.
        GuestPanicked = "guest-panicked",
        /// COLO replication.
        Colo = "colo",
    }
}

/// Something that QEMU reported. [`Events::next_with_time`](crate::Events::next_with_time) adds
/// the peer's time to it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The machine has shut down or is about to.
    Shutdown {
        /// Whether the guest asked for it.
        guest: bool,
        /// Why.
        reason: ShutdownReason,
    },
    /// The machine was reset.
    Reset {
        /// Whether the guest asked for it.
        guest: bool,
        /// Why.
        reason: ResetReason,
    },
    /// The ACPI power button was pressed by `system_powerdown`.
    PowerDown,
    /// The machine was paused.
    Stop,
    /// The machine runs again.
    Resume,
    /// The guest went to sleep.
    Suspend,
    /// The guest woke.
    Wakeup,
    /// The guest's watchdog ran out.
    Watchdog {
        /// What QEMU does about it.
        action: String,
    },
    /// The guest's kernel panicked.
    GuestPanicked {
        /// What QEMU does about it: `pause`, `poweroff` or `run`.
        action: String,
        /// What the guest reported, if anything.
        info: Option<Value>,
    },
    /// The guest's kernel crashed and handles it itself.
    GuestCrashLoaded {
        /// What QEMU does about it.
        action: String,
    },
    /// The host's memory failed under the guest.
    MemoryFailure {
        /// Whose memory: `hypervisor` or `guest`.
        recipient: String,
        /// What QEMU does about it: `ignore`, `inject`, `fatal` or `reset`.
        action: String,
    },
    /// A disk's backing failed.
    BlockIoError {
        /// The id of the drive, often empty.
        device: String,
        /// The node, if it has a name.
        node: Option<String>,
        /// `read` or `write`.
        operation: String,
        /// What QEMU does about it: `ignore`, `report` or `stop`.
        action: String,
        /// The host's error.
        reason: String,
        /// Whether the host's file system was full.
        nospace: bool,
    },
    /// An image turned out to be corrupt.
    BlockImageCorrupted {
        /// The id of the drive, often empty.
        device: String,
        /// The node, if it has a name.
        node: Option<String>,
        /// What is wrong with it.
        msg: String,
        /// Whether the image can no longer be used.
        fatal: bool,
    },
    /// A device is gone.
    DeviceDeleted {
        /// Its id; none for the parts of a device.
        device: Option<String>,
        /// Its place in QEMU's object tree.
        path: String,
    },
    /// The guest refused to release a device.
    DeviceUnplugGuestError {
        /// Its id.
        device: Option<String>,
        /// Its place in QEMU's object tree.
        path: String,
    },
    /// The guest's balloon changed size.
    BalloonChange {
        /// The guest's memory now, in bytes.
        actual: u64,
    },
    /// The guest opened or closed a virtio-serial port, for instance that of its agent.
    PortChange {
        /// The port's id.
        id: String,
        /// Whether it is open.
        open: bool,
    },
    /// A job changed its state.
    JobStatusChange {
        /// The job.
        id: String,
        /// Its state: `created`, `running`, `concluded`, …
        status: String,
    },
    /// Events were lost because they were not taken in time. State learnt from events must be
    /// asked for anew. Made by this client, not by QEMU.
    Lagged {
        /// How many were lost just before the next event.
        missed: u64,
    },
    /// An event that this client does not know, or one whose data has an unexpected form.
    Other {
        /// Its name.
        name: String,
        /// Its data; `Null` if it has none, or if it is nested too deeply.
        data: Value,
    },
}

#[derive(Deserialize)]
struct Cause {
    guest: bool,
    // QEMU before 4.0 sent none.
    reason: Option<ShutdownReason>,
}

#[derive(Deserialize)]
struct Action {
    action: String,
    info: Option<Value>,
}

#[derive(Deserialize)]
struct MemoryFailure {
    recipient: String,
    action: String,
}

#[derive(Deserialize)]
struct IoError {
    #[serde(default)]
    device: String,
    #[serde(rename = "node-name")]
    node: Option<String>,
    operation: String,
    action: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    nospace: bool,
}

#[derive(Deserialize)]
struct Corrupted {
    #[serde(default)]
    device: String,
    #[serde(rename = "node-name")]
    node: Option<String>,
    #[serde(default)]
    msg: String,
    fatal: bool,
}

#[derive(Deserialize)]
struct Device {
    device: Option<String>,
    path: String,
}

#[derive(Deserialize)]
struct Balloon {
    actual: u64,
}

#[derive(Deserialize)]
struct Port {
    id: String,
    open: bool,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    status: String,
}

impl Event {
    /// Reads an event's data. Never fails: what does not fit becomes [`Event::Other`].
    #[must_use]
    pub fn from_raw(raw: &RawEvent) -> Self {
        Self::known(&raw.name, raw.data.as_deref()).unwrap_or_else(|| Self::Other {
            name: raw.name.clone(),
            data: raw
                .data
                .as_deref()
                .and_then(|data| serde_json::from_str(data.get()).ok())
                .unwrap_or_default(),
        })
    }

    fn known(name: &str, data: Option<&RawValue>) -> Option<Self> {
        Some(match name {
            qmp::SHUTDOWN::NAME => {
                let Cause { guest, reason } = read(data)?;
                Self::Shutdown {
                    guest,
                    reason: reason.unwrap_or(ShutdownReason::None),
                }
            }
            qmp::RESET::NAME => {
                let Cause { guest, reason } = read(data)?;
                Self::Reset {
                    guest,
                    reason: reason.unwrap_or(ShutdownReason::None),
                }
            }
            qmp::POWERDOWN::NAME => Self::PowerDown,
            qmp::STOP::NAME => Self::Stop,
            qmp::RESUME::NAME => Self::Resume,
            qmp::SUSPEND::NAME => Self::Suspend,
            qmp::WAKEUP::NAME => Self::Wakeup,
            qmp::WATCHDOG::NAME => {
                let Action { action, .. } = read(data)?;
                Self::Watchdog { action }
            }
            qmp::GUEST_PANICKED::NAME => {
                let Action { action, info } = read(data)?;
                Self::GuestPanicked { action, info }
            }
            qmp::GUEST_CRASHLOADED::NAME => {
                let Action { action, .. } = read(data)?;
                Self::GuestCrashLoaded { action }
            }
            qmp::MEMORY_FAILURE::NAME => {
                let MemoryFailure { recipient, action } = read(data)?;
                Self::MemoryFailure { recipient, action }
            }
            qmp::BLOCK_IO_ERROR::NAME => {
                let IoError {
                    device,
                    node,
                    operation,
                    action,
                    reason,
                    nospace,
                } = read(data)?;
                Self::BlockIoError {
                    device,
                    node,
                    operation,
                    action,
                    reason,
                    nospace,
                }
            }
            qmp::BLOCK_IMAGE_CORRUPTED::NAME => {
                let Corrupted {
                    device,
                    node,
                    msg,
                    fatal,
                } = read(data)?;
                Self::BlockImageCorrupted {
                    device,
                    node,
                    msg,
                    fatal,
                }
            }
            qmp::DEVICE_DELETED::NAME => {
                let Device { device, path } = read(data)?;
                Self::DeviceDeleted { device, path }
            }
            qmp::DEVICE_UNPLUG_GUEST_ERROR::NAME => {
                let Device { device, path } = read(data)?;
                Self::DeviceUnplugGuestError { device, path }
            }
            qmp::BALLOON_CHANGE::NAME => {
                let Balloon { actual } = read(data)?;
                Self::BalloonChange { actual }
            }
            qmp::VSERPORT_CHANGE::NAME => {
                let Port { id, open } = read(data)?;
                Self::PortChange { id, open }
            }
            qmp::JOB_STATUS_CHANGE::NAME => {
                let Job { id, status } = read(data)?;
                Self::JobStatusChange { id, status }
            }
            _ => return None,
        })
    }
}

fn read<T: DeserializeOwned>(data: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(data?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, parse};
    use serde_json::json;

    fn event(line: Value) -> Event {
        match parse(line.to_string().as_bytes()).unwrap() {
            Message::Event(raw) => Event::from_raw(&raw),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_become_types() {
        let ts = json!({"seconds": 1, "microseconds": 2});
        let table = [
            (
                json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}),
                Event::Shutdown {
                    guest: true,
                    reason: ShutdownReason::GuestShutdown,
                },
            ),
            (
                json!({"event": "SHUTDOWN", "data": {"guest": false, "reason": "moon"}}),
                Event::Shutdown {
                    guest: false,
                    reason: ShutdownReason::Other("moon".into()),
                },
            ),
            (
                json!({"event": "RESET", "data": {"guest": false, "reason": "host-qmp-system-reset"}}),
                Event::Reset {
                    guest: false,
                    reason: ShutdownReason::HostReset,
                },
            ),
            (json!({"event": "POWERDOWN"}), Event::PowerDown),
            (
                json!({"event": "GUEST_PANICKED", "data": {"action": "pause"}}),
                Event::GuestPanicked {
                    action: "pause".into(),
                    info: None,
                },
            ),
            (
                json!({"event": "BLOCK_IO_ERROR", "data": {"device": "", "node-name": "root",
                    "operation": "write", "action": "stop", "nospace": true,
                    "reason": "No space left on device", "qom-path": "/x"}}),
                Event::BlockIoError {
                    device: String::new(),
                    node: Some("root".into()),
                    operation: "write".into(),
                    action: "stop".into(),
                    reason: "No space left on device".into(),
                    nospace: true,
                },
            ),
            (
                json!({"event": "DEVICE_DELETED", "data": {"device": "v1", "path": "/m/p/v1"}}),
                Event::DeviceDeleted {
                    device: Some("v1".into()),
                    path: "/m/p/v1".into(),
                },
            ),
            (
                json!({"event": "BALLOON_CHANGE", "data": {"actual": 1073741824}}),
                Event::BalloonChange { actual: 1 << 30 },
            ),
            (
                json!({"event": "BALLOON_CHANGE", "data": {"actual": "much"}}),
                Event::Other {
                    name: "BALLOON_CHANGE".into(),
                    data: json!({"actual": "much"}),
                },
            ),
            (
                json!({"event": "SHUTDOWN"}),
                Event::Other {
                    name: "SHUTDOWN".into(),
                    data: Value::Null,
                },
            ),
            (
                json!({"event": "NEW_IN_11", "data": {"a": [1]}}),
                Event::Other {
                    name: "NEW_IN_11".into(),
                    data: json!({"a": [1]}),
                },
            ),
        ];
        for (mut line, want) in table {
            line["timestamp"] = ts.clone();
            assert_eq!(event(line), want);
        }
    }
}
