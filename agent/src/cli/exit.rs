//! How the program ends.

use std::{io, process::ExitCode};

use crn_api_types::{Code, ErrorCode, ErrorDetail, Subject, TransportCode};

use crate::{client::ClientError, config::ConfigError};

/// What a failed command says, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: Status,
    /// A stable word, where the agent gave one.
    pub code: Option<Code>,
    /// What kind of thing it is about, where the agent said so.
    pub about: Option<Subject>,
    /// One sentence.
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
}

/// Exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It failed.
    Failed = 1,
    /// Wrong usage or input.
    Usage = 2,
    /// No such thing.
    NotFound = 3,
    /// The agent was not reached.
    Unreachable = 4,
    /// Not done in time.
    Timeout = 5,
}

impl Status {
    /// What programs are told where the agent gave no word of its own.
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "invalid",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            code: None,
            about: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Says what to try next, unless something is said already.
    #[must_use]
    pub fn or_try(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let message = super::table::plain(&self.message);
        match &self.hint {
            Some(hint) => format!("error: {message} (try: {hint})"),
            None => format!("error: {message}"),
        }
    }

    /// One line for programs.
    #[must_use]
    pub fn json(&self) -> String {
        let code = match self.code {
            Some(code) => serde_json::to_value(code).unwrap_or_default(),
            None => self.status.word().into(),
        };
        let error = serde_json::json!({
            "code": code, "message": self.message, "hint": self.hint,
        });
        serde_json::json!({ "error": error }).to_string()
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        let message = e.to_string();
        let failure = |status| Self::new(status, message);
        match e {
            ClientError::Unreachable { source, .. } => {
                failure(Status::Unreachable).or_try(match source.kind() {
                    io::ErrorKind::PermissionDenied => "as root, or as a member of api.group",
                    _ => "crn-agent serve, or --socket PATH of a running agent",
                })
            }
            ClientError::Broken(_) | ClientError::Unreadable(_) => failure(Status::Unreachable),
            ClientError::Late => failure(Status::Timeout),
            ClientError::Refused(detail) => detail.into(),
        }
    }
}

impl From<ErrorDetail> for Failure {
    fn from(detail: ErrorDetail) -> Self {
        Self {
            status: of(detail.code),
            code: Some(detail.code),
            about: detail.about,
            message: detail.message,
            hint: hint_for(detail.code).map(str::to_owned),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::new(Status::Usage, e.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::new(Status::Failed, e.to_string())
    }
}

/// The exit status that an error of the agent gives.
fn of(code: Code) -> Status {
    match code {
        Code::Operation(ErrorCode::Invalid) | Code::Transport(TransportCode::TooLarge) => {
            Status::Usage
        }
        Code::Operation(ErrorCode::NotFound) => Status::NotFound,
        Code::Transport(TransportCode::Unavailable) => Status::Unreachable,
        Code::Operation(ErrorCode::Timeout) | Code::Transport(TransportCode::RequestTimeout) => {
            Status::Timeout
        }
        _ => Status::Failed,
    }
}

fn hint_for(code: Code) -> Option<&'static str> {
    match code {
        Code::Operation(ErrorCode::NoCapacity) => Some("crn-agent status"),
        Code::Operation(ErrorCode::Damaged) => Some("crn-agent image pull, or image import"),
        _ => None,
    }
}
