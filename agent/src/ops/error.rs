//! Why an operation failed: a stable word for programs, a sentence for people.

use std::ops::Deref;

use crn_api_types::{ErrorCode, ErrorDetail, Subject};

use crate::{
    db::DbError, guest_net::GuestNetError, ids::IdError, images::ImageError, spec::SpecError,
    tasks::TaskError, volume::VolumeError,
};

/// A failed operation: what the API tells of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct OpError(pub ErrorDetail);

impl Deref for OpError {
    type Target = ErrorDetail;

    fn deref(&self) -> &ErrorDetail {
        &self.0
    }
}

impl OpError {
    /// An error with this word and sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorDetail::new(code, message))
    }

    /// Says what kind of thing it is about.
    pub(crate) fn about(mut self, subject: Subject) -> Self {
        self.0.about = Some(subject);
        self
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
            DbError::Capacity(_) | DbError::NoRoom(_) => ErrorCode::NoCapacity,
            _ => ErrorCode::Internal,
        };
        let mut error = Self::new(code, e.to_string());
        match e {
            DbError::NotFound { what, .. } => error.0.about = Some(what),
            DbError::NoRoom(no_room) => error.0.no_room = Some(no_room),
            _ => {}
        }
        error
    }
}

impl From<TaskError> for OpError {
    fn from(e: TaskError) -> Self {
        match e {
            TaskError::Db(e) => e.into(),
            TaskError::Disk(e) => e.into(),
            TaskError::Volume(e) => e.into(),
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

impl From<VolumeError> for OpError {
    fn from(e: VolumeError) -> Self {
        let message = e.to_string();
        match e {
            VolumeError::Db(e) => e.into(),
            VolumeError::Disk { source, .. } => Self::new(disk_code(&source), message),
            VolumeError::Open { .. } => Self::new(ErrorCode::Conflict, message),
            VolumeError::Io { .. } => Self::internal(message),
        }
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
            ImageError::File { .. } | ImageError::Name { .. } => ErrorCode::Invalid,
            ImageError::Imported { .. } => ErrorCode::Conflict,
            ImageError::Db(_) => ErrorCode::Internal,
            ImageError::Io(_) => ErrorCode::Internal,
        };
        match e {
            ImageError::Db(e) => e.into(),
            e => Self::new(code, e.to_string()).about(Subject::Image),
        }
    }
}

impl From<std::io::Error> for OpError {
    fn from(e: std::io::Error) -> Self {
        Self::internal(e.to_string())
    }
}
