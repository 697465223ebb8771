//! The guest agent's commands by name (QEMU, qga/qapi-schema.json). Everything else goes through
//! [`Qga::execute`] with the types in [`qapi::qga`].
//!
//! What is returned is the guest's word: names, addresses and numbers in it prove nothing. Errors
//! are those of [`Qga::execute`] unless more is said.

use std::time::{Duration, SystemTime};

use qapi::qga;

use super::Qga;
use crate::error::Error;

/// How long a guest may take to refuse a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What a guest that shuts down does in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Power off.
    PowerDown,
    /// Stop without powering off.
    Halt,
    /// Start again.
    Reboot,
}

impl From<ShutdownMode> for qga::GuestShutdownMode {
    fn from(mode: ShutdownMode) -> Self {
        match mode {
            ShutdownMode::PowerDown => Self::Powerdown,
            ShutdownMode::Halt => Self::Halt,
            ShutdownMode::Reboot => Self::Reboot,
        }
    }
}

impl Qga {
    /// Whether the agent answers (`guest-ping`).
    pub async fn ping(&self) -> Result<(), Error> {
        self.execute(qga::guest_ping {}).await.map(drop)
    }

    /// The agent's version and commands (`guest-info`).
    pub async fn info(&self) -> Result<qga::GuestAgentInfo, Error> {
        self.execute(qga::guest_info {}).await
    }

    /// The operating system (`guest-get-osinfo`).
    pub async fn os_info(&self) -> Result<qga::GuestOSInfo, Error> {
        self.execute(qga::guest_get_osinfo {}).await
    }

    /// The host name (`guest-get-host-name`).
    pub async fn host_name(&self) -> Result<String, Error> {
        Ok(self.execute(qga::guest_get_host_name {}).await?.host_name)
    }

    /// Interfaces with their addresses (`guest-network-get-interfaces`).
    pub async fn network_interfaces(&self) -> Result<Vec<qga::GuestNetworkInterface>, Error> {
        self.execute(qga::guest_network_get_interfaces {}).await
    }

    /// Mounted file systems (`guest-get-fsinfo`).
    pub async fn filesystems(&self) -> Result<Vec<qga::GuestFilesystemInfo>, Error> {
        self.execute(qga::guest_get_fsinfo {}).await
    }

    /// Freezes all file systems that can be; returns how many (`guest-fsfreeze-freeze`). After any
    /// error but [`Error::Refused`] the guest may be frozen, or freeze later: thaw it.
    pub async fn fsfreeze_freeze(&self) -> Result<i64, Error> {
        self.execute(qga::guest_fsfreeze_freeze {}).await
    }

    /// Thaws all file systems; returns how many were frozen (`guest-fsfreeze-thaw`).
    pub async fn fsfreeze_thaw(&self) -> Result<i64, Error> {
        self.execute(qga::guest_fsfreeze_thaw {}).await
    }

    /// Whether file systems are frozen (`guest-fsfreeze-status`).
    pub async fn fsfreeze_status(&self) -> Result<qga::GuestFsfreezeStatus, Error> {
        self.execute(qga::guest_fsfreeze_status {}).await
    }

    /// Discards unused blocks of all mounted file systems, in extents of at least `minimum` bytes
    /// (`guest-fstrim`).
    pub async fn fstrim(
        &self,
        minimum: Option<u64>,
    ) -> Result<Vec<qga::GuestFilesystemTrimResult>, Error> {
        let minimum = minimum.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(self.execute(qga::guest_fstrim { minimum }).await?.paths)
    }

    /// Tells the guest to shut down (`guest-shutdown`). The agent answers only to refuse, so this
    /// returns two seconds after the command was sent. Whether the guest obeys shows in
    /// [`Event::Shutdown`](crate::Event::Shutdown).
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<(), Error> {
        let command = qga::guest_shutdown {
            mode: Some(mode.into()),
        };
        self.execute_unanswered(command, SHUTDOWN_GRACE).await
    }

    /// Sets the guest's clock, or with `None` makes it read its hardware clock
    /// (`guest-set-time`).
    ///
    /// # Errors
    /// [`Error::Encode`] for a time that 64 bits of nanoseconds since 1970 cannot hold.
    pub async fn set_time(&self, time: Option<SystemTime>) -> Result<(), Error> {
        let nanos = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_nanos()).ok()
        };
        let time = match time {
            None => None,
            Some(time) => Some(nanos(time).ok_or_else(|| Error::Encode {
                command: "guest-set-time".into(),
                detail: "the time is out of range".into(),
            })?),
        };
        self.execute(qga::guest_set_time { time }).await.map(drop)
    }

    /// Sets a user's password (`guest-set-user-password`). `crypted` says that it is a hash as in
    /// crypt(5).
    pub async fn set_user_password(
        &self,
        user: &str,
        password: &str,
        crypted: bool,
    ) -> Result<(), Error> {
        let command = qga::guest_set_user_password {
            username: user.to_owned(),
            password: password.as_bytes().to_vec(),
            crypted,
        };
        self.execute(command).await.map(drop)
    }

    /// A user's SSH keys (`guest-ssh-get-authorized-keys`).
    pub async fn ssh_authorized_keys(&self, user: &str) -> Result<Vec<String>, Error> {
        let command = qga::guest_ssh_get_authorized_keys {
            username: user.to_owned(),
        };
        Ok(self.execute(command).await?.keys)
    }

    /// Adds to a user's SSH keys, or replaces them (`guest-ssh-add-authorized-keys`).
    pub async fn ssh_add_authorized_keys(
        &self,
        user: &str,
        keys: &[String],
        replace: bool,
    ) -> Result<(), Error> {
        let command = qga::guest_ssh_add_authorized_keys {
            username: user.to_owned(),
            keys: keys.to_vec(),
            reset: Some(replace),
        };
        self.execute(command).await.map(drop)
    }

    /// Removes from a user's SSH keys (`guest-ssh-remove-authorized-keys`).
    pub async fn ssh_remove_authorized_keys(
        &self,
        user: &str,
        keys: &[String],
    ) -> Result<(), Error> {
        let command = qga::guest_ssh_remove_authorized_keys {
            username: user.to_owned(),
            keys: keys.to_vec(),
        };
        self.execute(command).await.map(drop)
    }
}
