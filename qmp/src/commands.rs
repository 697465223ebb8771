//! The monitor's commands that an agent needs, by name. Everything else goes through
//! [`Qmp::execute`] (types in [`qapi::qmp`]) or [`Qmp::execute_as`].
//!
//! Each is documented in QEMU's QMP reference (qapi/*.json) under the command it names. Errors are
//! those of [`Qmp::execute`] unless more is said.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use qapi::qmp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::client::{Qmp, deadline};
use crate::connection::Unplugged;
use crate::error::{ClosedReason, Error};
use crate::event::RunState;

impl Qmp {
    /// What the machine is doing (`query-status`).
    pub async fn status(&self) -> Result<RunState, Error> {
        // Not the enum of `qapi`, so that a state of a newer QEMU is an answer, not an error.
        #[derive(Deserialize)]
        struct Status {
            status: String,
        }
        let reply: Status = self.execute_as("query-status", Value::Null).await?;
        Ok(RunState::from(reply.status.as_str()))
    }

    /// Presses the ACPI power button (`system_powerdown`). Whether the guest obeys shows in
    /// [`Event::Shutdown`](crate::Event::Shutdown).
    pub async fn power_down(&self) -> Result<(), Error> {
        self.execute(qmp::system_powerdown {}).await.map(drop)
    }

    /// Ends QEMU, which flushes its disks (`quit`). A connection that ends after the command was
    /// given counts as the answer.
    pub async fn quit(&self) -> Result<(), Error> {
        if self.closed_reason().is_some() {
            return Err(self.closed_error("quit"));
        }
        match self.execute(qmp::quit {}).await {
            Err(Error::Closed {
                reason: ClosedReason::PeerClosed,
                ..
            }) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Starts or resumes the machine (`cont`).
    pub async fn cont(&self) -> Result<(), Error> {
        self.execute(qmp::cont {}).await.map(drop)
    }

    /// Pauses the machine (`stop`).
    pub async fn stop(&self) -> Result<(), Error> {
        self.execute(qmp::stop {}).await.map(drop)
    }

    /// Resets the machine (`system_reset`).
    pub async fn system_reset(&self) -> Result<(), Error> {
        self.execute(qmp::system_reset {}).await.map(drop)
    }

    /// Gives QEMU a copy of `fd` in set `set`, which is made if need be (`add-fd`). Block nodes
    /// then name it as `/dev/fdset/<set>`; QEMU chooses the descriptor in the set whose access
    /// mode fits. `opaque` is shown by `query-fdsets`. Returns the descriptor's number in QEMU.
    pub async fn add_fd(&self, fd: BorrowedFd<'_>, set: u32, opaque: &str) -> Result<i64, Error> {
        let command = qmp::add_fd {
            fdset_id: Some(set.into()),
            opaque: Some(opaque.to_owned()),
        };
        let info = self.execute_with_fd(command, fd).await?;
        if info.fdset_id != i64::from(set) {
            return Err(unexpected("add-fd", "another set than asked for"));
        }
        Ok(info.fd)
    }

    /// Removes a set of descriptors (`remove-fd`). QEMU closes those that no block node uses, and
    /// the others when they are no longer used.
    pub async fn remove_fd(&self, set: u32) -> Result<(), Error> {
        self.execute(qmp::remove_fd {
            fdset_id: set.into(),
            fd: None,
        })
        .await
        .map(drop)
    }

    /// The sets of descriptors (`query-fdsets`).
    pub async fn fd_sets(&self) -> Result<Vec<qmp::FdsetInfo>, Error> {
        self.execute(qmp::query_fdsets {}).await
    }

    /// Changes the size of a block node, in bytes; the guest sees it at once (`block_resize`).
    pub async fn block_resize(&self, node: &str, bytes: u64) -> Result<(), Error> {
        let size = i64::try_from(bytes).map_err(|_| Error::Encode {
            command: "block_resize".into(),
            detail: format!("{bytes} bytes are more than QEMU can count"),
        })?;
        let node_name = Some(node.to_owned());
        self.execute(qmp::block_resize {
            device: None,
            node_name,
            size,
        })
        .await
        .map(drop)
    }

    /// The block nodes without their children (`query-named-block-nodes` with `flat`).
    pub async fn query_named_block_nodes(&self) -> Result<Vec<qmp::BlockDeviceInfo>, Error> {
        self.execute(qmp::query_named_block_nodes { flat: Some(true) })
            .await
    }

    /// Adds a block node (`blockdev-add`): an object with `driver`, `node-name`, ….
    pub async fn blockdev_add(&self, node: Value) -> Result<(), Error> {
        let done: Result<IgnoredAny, _> = self.execute_as("blockdev-add", node).await;
        done.map(drop)
    }

    /// Removes a block node that no device uses (`blockdev-del`).
    pub async fn blockdev_del(&self, node: &str) -> Result<(), Error> {
        self.execute(qmp::blockdev_del {
            node_name: node.to_owned(),
        })
        .await
        .map(drop)
    }

    /// Plugs a device (`device_add`): an object with `driver`, `id`, `bus`, ….
    pub async fn device_add(&self, device: Value) -> Result<(), Error> {
        let done: Result<IgnoredAny, _> = self.execute_as("device_add", device).await;
        done.map(drop)
    }

    /// Unplugs a device and waits until it is gone (`device_del`, then `DEVICE_DELETED`). Many
    /// devices go only when the guest releases them. A request that is already pending in QEMU is
    /// waited for as well.
    ///
    /// # Errors
    /// [`Error::Refused`] with class `DeviceNotFound` if there is no such device,
    /// [`Error::UnplugRefused`], [`Error::UnplugTimeout`], [`Error::Closed`].
    pub async fn device_del(&self, id: &str, limit: Duration) -> Result<(), Error> {
        let deadline = deadline(limit);
        let Some(unplug) = self.shared.expect_unplug(id) else {
            return Err(self.closed_error("device_del"));
        };
        let late = || Error::UnplugTimeout {
            device: id.to_owned(),
            limit,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match self
            .execute_within(qmp::device_del { id: id.to_owned() }, left)
            .await
        {
            Ok(_) => {}
            // QEMU refuses a second request with the generic class; only its description tells.
            Err(Error::Refused {
                class: qapi::ErrorClass::GenericError,
                desc,
                ..
            }) if desc.contains("already in the process of unplug") => {}
            Err(Error::Timeout { .. }) => return Err(late()),
            Err(error) => return Err(error),
        }
        match timeout_at(deadline, unplug.outcome()).await {
            Ok(Some(Unplugged::Deleted)) => Ok(()),
            Ok(Some(Unplugged::Refused)) => Err(Error::UnplugRefused {
                device: id.to_owned(),
            }),
            Ok(None) => Err(self.closed_error("device_del")),
            Err(_) => Err(late()),
        }
    }
}

fn unexpected(command: &str, detail: &str) -> Error {
    Error::UnexpectedReply {
        command: command.to_owned(),
        detail: detail.to_owned(),
    }
}
