//! Why something was refused or failed: a stable word for programs, a sentence for
//! people, and what a program may want to know besides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an operation was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; the same request never succeeds.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// There is no such instance, volume, image or path.
    NotFound,
    /// The name belongs to something else.
    NameTaken,
    /// Not possible in the present state.
    Conflict,
    /// The agent failed, or what it depends on (QEMU, kernel, file system).
    Internal,
    /// What is stored no longer has the content it was stored with.
    Damaged,
    /// Where the image comes from does not deliver it.
    ImageSource,
    /// It took too long.
    Timeout,
    /// The node has no room for it.
    NoCapacity,
}

impl ErrorCode {
    /// All of them, in the order of their HTTP status.
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::Forbidden,
        Self::NotFound,
        Self::NameTaken,
        Self::Conflict,
        Self::Internal,
        Self::Damaged,
        Self::ImageSource,
        Self::Timeout,
        Self::NoCapacity,
    ];
}

/// Why a request did not become an operation: HTTP's own refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransportCode {
    /// The path exists and does not take this method.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The request is larger than the API takes.
    TooLarge,
    /// The body is not announced as JSON.
    UnsupportedMediaType,
    /// The path is only for connections that become a byte stream.
    UpgradeRequired,
    /// Too many connections; try again.
    Unavailable,
}

impl TransportCode {
    /// All of them, in the order of their HTTP status.
    pub const ALL: [Self; 6] = [
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::UpgradeRequired,
        Self::Unavailable,
    ];
}

/// The word of an error, wherever it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Code {
    /// An operation's.
    Operation(ErrorCode),
    /// HTTP's.
    Transport(TransportCode),
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        Self::Operation(code)
    }
}

impl From<TransportCode> for Code {
    fn from(code: TransportCode) -> Self {
        Self::Transport(code)
    }
}

impl PartialEq<ErrorCode> for Code {
    fn eq(&self, code: &ErrorCode) -> bool {
        *self == Self::Operation(*code)
    }
}

impl PartialEq<TransportCode> for Code {
    fn eq(&self, code: &TransportCode) -> bool {
        *self == Self::Transport(*code)
    }
}

/// The kind of thing that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// An instance.
    Instance,
    /// A volume.
    Volume,
    /// An image.
    Image,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Volume => "volume",
            Self::Image => "image",
        })
    }
}

/// What a node gives to its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Instances.
    Instances,
    /// Virtual CPUs.
    Vcpus,
    /// Memory, MiB.
    MemoryMib,
    /// Root disks and volumes, MiB.
    DiskMib,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instances => "instances",
            Self::Vcpus => "vCPUs",
            Self::MemoryMib => "MiB of memory",
            Self::DiskMib => "MiB of disk",
        })
    }
}

/// What a node lacks for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("this node has no room for {asked} more {resource}: {used} of {total} are taken")]
pub struct NoRoom {
    /// Of what.
    pub resource: Resource,
    /// How much was asked for.
    pub asked: u64,
    /// How much is taken.
    pub used: u64,
    /// How much there is.
    pub total: u64,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ErrorDetail {
    /// A stable word for programs.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// What it is about, where programs may want to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Subject>,
    /// What the node lacks, with `no_capacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_room: Option<NoRoom>,
}

impl ErrorDetail {
    /// An error with this word and sentence.
    #[must_use]
    pub fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            about: None,
            no_room: None,
        }
    }
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_stands_for_one_thing() {
        let operations = ErrorCode::ALL.map(Code::from);
        let transport = TransportCode::ALL.map(Code::from);
        let mut words = std::collections::BTreeSet::new();
        for code in operations.into_iter().chain(transport) {
            let word = serde_json::to_string(&code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&word).unwrap(), code);
            assert!(words.insert(word));
        }
        assert_eq!(words.len(), 16);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut detail = ErrorDetail::new(ErrorCode::NoCapacity, "full");
        let text = serde_json::to_string(&detail).unwrap();
        assert_eq!(text, r#"{"code":"no_capacity","message":"full"}"#);
        assert_eq!(serde_json::from_str::<ErrorDetail>(&text).unwrap(), detail);
        detail.no_room = Some(NoRoom {
            resource: Resource::MemoryMib,
            asked: 1,
            used: 2,
            total: 2,
        });
        let value = serde_json::to_value(&detail).unwrap();
        assert_eq!(value["no_room"]["resource"], "memory-mib");
    }
}
