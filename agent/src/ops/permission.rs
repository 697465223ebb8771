//! Who may do what: decided here and nowhere else. Pure.
//!
//! A caller that may not know of a record learns nothing of it: the answer is that
//! of a record that does not exist.

use crn_api_types::{ErrorCode, Owner};

use super::{Caller, OpError};

/// Everything that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    ListInstances,
    ShowInstance,
    CreateInstance,
    StartInstance,
    StopInstance,
    RestartInstance,
    DeleteInstance,
    ShowPorts,
    ChangePorts,
    ReadConsoleLog,
    AttachConsole,
    ListVolumes,
    ShowVolume,
    CreateVolume,
    DeleteVolume,
    /// Needed of the volume and of the instance.
    AttachVolume,
    DetachVolume,
    ResizeVolume,
    /// Have the agent read a file of its host, or write one.
    ImportVolume,
    ExportVolume,
    ExportInstance,
    ListImages,
    /// Layer an instance over an image that only the operator put there: one that
    /// is not in the catalogue.
    UseOwnImage,
    PullImage,
    /// Have the agent read a file of its host.
    ImportImage,
    VerifyImage,
    RemoveImage,
    WatchEvents,
    ShowStatus,
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Records with an owner, and their history.
    Owned,
    /// What the node offers to everybody that is known to it.
    Offered,
    /// The node itself, and what all on it share.
    Node,
}

impl Operation {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 29] = [
        Self::ListInstances,
        Self::ShowInstance,
        Self::CreateInstance,
        Self::StartInstance,
        Self::StopInstance,
        Self::RestartInstance,
        Self::DeleteInstance,
        Self::ShowPorts,
        Self::ChangePorts,
        Self::ReadConsoleLog,
        Self::AttachConsole,
        Self::ListVolumes,
        Self::ShowVolume,
        Self::CreateVolume,
        Self::DeleteVolume,
        Self::AttachVolume,
        Self::DetachVolume,
        Self::ResizeVolume,
        Self::ImportVolume,
        Self::ExportVolume,
        Self::ExportInstance,
        Self::ListImages,
        Self::UseOwnImage,
        Self::PullImage,
        Self::ImportImage,
        Self::VerifyImage,
        Self::RemoveImage,
        Self::WatchEvents,
        Self::ShowStatus,
    ];

    /// It makes room or closes a door: it must work on a full disk.
    pub(super) fn must_work_when_full(self) -> bool {
        matches!(
            self,
            Self::StopInstance
                | Self::DeleteInstance
                | Self::ChangePorts
                | Self::DeleteVolume
                | Self::RemoveImage
        )
    }

    fn subject(self) -> Subject {
        match self {
            Self::ListInstances
            | Self::ShowInstance
            | Self::CreateInstance
            | Self::StartInstance
            | Self::StopInstance
            | Self::RestartInstance
            | Self::DeleteInstance
            | Self::ShowPorts
            | Self::ChangePorts
            | Self::ReadConsoleLog
            | Self::AttachConsole
            | Self::ListVolumes
            | Self::ShowVolume
            | Self::CreateVolume
            | Self::DeleteVolume
            | Self::AttachVolume
            | Self::DetachVolume
            | Self::ResizeVolume
            | Self::WatchEvents => Subject::Owned,
            Self::ListImages => Subject::Offered,
            Self::ImportVolume
            | Self::ExportVolume
            | Self::ExportInstance
            | Self::UseOwnImage
            | Self::PullImage
            | Self::ImportImage
            | Self::VerifyImage
            | Self::RemoveImage
            | Self::ShowStatus => Subject::Node,
        }
    }

    /// It makes the agent read or write a file of its host.
    fn needs_host_files(self) -> bool {
        matches!(
            self,
            Self::ImportImage | Self::ImportVolume | Self::ExportVolume | Self::ExportInstance
        )
    }

    /// The status page shows it.
    fn is_on_status_page(self) -> bool {
        matches!(
            self,
            Self::ListInstances | Self::WatchEvents | Self::ShowInstance | Self::ShowStatus
        )
    }
}

/// Why an operation is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It is somebody else's, and to be answered like something that does not exist.
    Unseen,
    /// Not for this caller.
    Forbidden(&'static str),
}

impl From<Denied> for OpError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unseen => Self::new(ErrorCode::NotFound, "there is no such thing"),
            Denied::Forbidden(why) => Self::new(ErrorCode::Forbidden, why),
        }
    }
}

/// Whether `caller` may do `operation`: with a record of `owner`, or at all, before it
/// is known which record that is.
pub(crate) fn permit(
    caller: &Caller,
    operation: Operation,
    owner: Option<&Owner>,
) -> Result<(), Denied> {
    use Denied::{Forbidden, Unseen};
    match caller {
        Caller::Operator { host_files: false } if operation.needs_host_files() => Err(Forbidden(
            "only root may have the agent read or write a file of its host",
        )),
        Caller::Operator { .. } => Ok(()),
        Caller::Observer if operation.is_on_status_page() => Ok(()),
        Caller::Observer => Err(Forbidden("the status page only shows")),
        Caller::Tenant(address) => match (operation.subject(), owner) {
            (Subject::Offered, _) | (Subject::Owned, None) => Ok(()),
            (Subject::Owned, Some(Owner::Tenant(owner))) if owner == address => Ok(()),
            (Subject::Owned, Some(_)) => Err(Unseen),
            (Subject::Node, _) => Err(Forbidden("only the node's operator may do this")),
        },
        Caller::Nobody => Err(Forbidden("nobody may do this without saying who asks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(byte: u8) -> crn_api_types::Address {
        crn_api_types::Address::ethereum([byte; 20])
    }

    /// A line for each operation. The letters are the answers to: the operator with
    /// and without the host's files, the status page, a tenant before a record is
    /// known, with its own, another tenant's and the operator's, and nobody.
    /// `y`: yes, `u`: as if it did not exist, `-`: forbidden.
    const TABLE: &str = "
        ListInstances   yyy yyuu -
        ShowInstance    yyy yyuu -
        CreateInstance  yy- yyuu -
        StartInstance   yy- yyuu -
        StopInstance    yy- yyuu -
        RestartInstance yy- yyuu -
        DeleteInstance  yy- yyuu -
        ShowPorts       yy- yyuu -
        ChangePorts     yy- yyuu -
        ReadConsoleLog  yy- yyuu -
        AttachConsole   yy- yyuu -
        ListVolumes     yy- yyuu -
        ShowVolume      yy- yyuu -
        CreateVolume    yy- yyuu -
        DeleteVolume    yy- yyuu -
        AttachVolume    yy- yyuu -
        DetachVolume    yy- yyuu -
        ResizeVolume    yy- yyuu -
        ImportVolume    y-- ---- -
        ExportVolume    y-- ---- -
        ExportInstance  y-- ---- -
        ListImages      yy- yyyy -
        UseOwnImage     yy- ---- -
        PullImage       yy- ---- -
        ImportImage     y-- ---- -
        VerifyImage     yy- ---- -
        RemoveImage     yy- ---- -
        WatchEvents     yyy yyuu -
        ShowStatus      yyy ---- -
    ";

    #[test]
    fn every_operation_and_every_caller() {
        let rows: Vec<_> = TABLE.split_whitespace().collect();
        let rows: Vec<_> = rows.chunks(4).collect();
        assert_eq!(rows.len(), Operation::ALL.len());
        let (own, others) = (Owner::Tenant(tenant(1)), Owner::Tenant(tenant(2)));
        let asks = Caller::Tenant(tenant(1));
        for (operation, row) in Operation::ALL.into_iter().zip(rows) {
            let letter =
                |caller: &Caller, owner: Option<&Owner>| match permit(caller, operation, owner) {
                    Ok(()) => 'y',
                    Err(Denied::Unseen) => 'u',
                    Err(Denied::Forbidden(_)) => '-',
                };
            let mut got = vec![format!("{operation:?}")];
            // Whose it is makes no difference to these.
            for owner in [None, Some(&own), Some(&others), Some(&Owner::Operator)] {
                let of = |caller| letter(&caller, owner);
                let node: String = [
                    of(Caller::Operator { host_files: true }),
                    of(Caller::Operator { host_files: false }),
                    of(Caller::Observer),
                ]
                .iter()
                .collect();
                assert_eq!(
                    (node.as_str(), of(Caller::Nobody)),
                    (row[1], '-'),
                    "{row:?}"
                );
            }
            got.push(row[1].to_owned());
            got.push(
                [None, Some(&own), Some(&others), Some(&Owner::Operator)]
                    .into_iter()
                    .map(|owner| letter(&asks, owner))
                    .collect(),
            );
            got.push("-".to_owned());
            assert_eq!(got, row);
        }
    }
}
