//! Why an operation failed: a stable word for programs, a sentence for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    db::DbError, guest_net::GuestNetError, ids::IdError, images::ImageError, spec::SpecError,
    tasks::TaskError,
};

/// Stable words for why something was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; the same request never succeeds.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// There is no such instance, volume, image or path.
    NotFound,
    /// The path exists and does not take this method.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The name belongs to something else.
    NameTaken,
    /// Not possible in the present state.
    Conflict,
    /// The request is larger than the API takes.
    TooLarge,
    /// The body is not announced as JSON.
    UnsupportedMediaType,
    /// The path is only for connections that become a byte stream.
    UpgradeRequired,
    /// The agent failed, or what it depends on (QEMU, kernel, file system).
    Internal,
    /// What is stored no longer has the content it was stored with.
    Damaged,
    /// Where the image comes from does not deliver it.
    ImageSource,
    /// Too much at once; try again.
    Unavailable,
    /// It took too long.
    Timeout,
    /// The node has no room for it.
    NoCapacity,
}

impl ErrorCode {
    /// All of them, in the order of their HTTP status.
    pub const ALL: [Self; 16] = [
        Self::Invalid,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::NameTaken,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::UpgradeRequired,
        Self::Internal,
        Self::Damaged,
        Self::ImageSource,
        Self::Unavailable,
        Self::Timeout,
        Self::NoCapacity,
    ];
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl OpError {
    /// An error with this word and sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// For callers that can own nothing.
    pub(crate) fn nobody() -> Self {
        Self::new(ErrorCode::Forbidden, "this caller can own nothing")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }
}

impl From<SpecError> for OpError {
    fn from(e: SpecError) -> Self {
        Self::invalid(e.to_string())
    }
}

impl From<IdError> for OpError {
    fn from(e: IdError) -> Self {
        Self::invalid(e.to_string())
    }
}

impl From<DbError> for OpError {
    fn from(e: DbError) -> Self {
        let code = match &e {
            DbError::NotFound { .. } => ErrorCode::NotFound,
            DbError::NameTaken(_) => ErrorCode::NameTaken,
            DbError::VolumeInUse { .. } | DbError::Conflict(_) => ErrorCode::Conflict,
            DbError::Capacity(_) => ErrorCode::NoCapacity,
            _ => ErrorCode::Internal,
        };
        Self::new(code, e.to_string())
    }
}

impl From<TaskError> for OpError {
    fn from(e: TaskError) -> Self {
        match e {
            TaskError::Db(e) => e.into(),
            TaskError::Disk(e) => e.into(),
            TaskError::Refused(message) => Self::conflict(message),
            TaskError::Pending(message) => Self::new(ErrorCode::Timeout, message),
            TaskError::Gone => Self::new(ErrorCode::NotFound, e.to_string()),
            _ => Self::internal(e.to_string()),
        }
    }
}

impl From<GuestNetError> for OpError {
    fn from(e: GuestNetError) -> Self {
        TaskError::from(e).into()
    }
}

impl From<disk::Error> for OpError {
    fn from(e: disk::Error) -> Self {
        Self::new(disk_code(&e), e.to_string())
    }
}

fn disk_code(e: &disk::Error) -> ErrorCode {
    use disk::Error as E;
    match e {
        E::Refused { .. }
        | E::ImpossibleSize { .. }
        | E::SmallerThanBase { .. }
        | E::DigestMismatch { .. }
        | E::TooLarge { .. }
        | E::Url { .. } => ErrorCode::Invalid,
        E::Shrink { .. } | E::InUse { .. } | E::Exists { .. } => ErrorCode::Conflict,
        E::NotFound { .. } => ErrorCode::NotFound,
        E::NoSpace { .. } => ErrorCode::NoCapacity,
        E::Damaged { .. } => ErrorCode::Damaged,
        E::Status { .. }
        | E::Transfer { .. }
        | E::Stalled { .. }
        | E::Protocol { .. }
        | E::Changed { .. }
        | E::GaveUp { .. }
        | E::Sums { .. }
        | E::Interrupted { .. } => ErrorCode::ImageSource,
        _ => ErrorCode::Internal,
    }
}

impl From<ImageError> for OpError {
    fn from(e: ImageError) -> Self {
        let code = match &e {
            ImageError::Unknown { .. } => ErrorCode::NotFound,
            ImageError::Get { source, .. } => match disk_code(source) {
                // Nothing that the caller sent is wrong: the source's content is.
                ErrorCode::Invalid => ErrorCode::ImageSource,
                code => code,
            },
            ImageError::Store(source) => disk_code(source),
            ImageError::File { .. } => ErrorCode::Invalid,
            ImageError::Db(_) => ErrorCode::Internal,
            ImageError::Io(_) => ErrorCode::Internal,
        };
        match e {
            ImageError::Db(e) => e.into(),
            e => Self::new(code, e.to_string()),
        }
    }
}

impl From<std::io::Error> for OpError {
    fn from(e: std::io::Error) -> Self {
        Self::internal(e.to_string())
    }
}
