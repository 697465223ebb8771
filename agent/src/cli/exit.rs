//! How the program ends.

use std::{io, process::ExitCode};

use crate::{client::ClientError, config::ConfigError, ops::ErrorCode};

/// What a failed command says, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// Exit status.
    pub status: Status,
    /// A stable word, where the agent gave one.
    pub code: Option<ErrorCode>,
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
        let (status, code, hint) = match e {
            ClientError::Unreachable { source, .. } => {
                let hint = match source.kind() {
                    io::ErrorKind::PermissionDenied => "as root, or as a member of api.group",
                    _ => "crn-agent serve, or --socket PATH of a running agent",
                };
                (Status::Unreachable, None, Some(hint))
            }
            ClientError::Broken(_) | ClientError::Unreadable(_) => {
                (Status::Unreachable, None, None)
            }
            ClientError::Late => (Status::Timeout, None, None),
            ClientError::Refused { code, .. } => (of(code), Some(code), hint_for(code)),
        };
        Self {
            status,
            code,
            message,
            hint: hint.map(str::to_owned),
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
fn of(code: ErrorCode) -> Status {
    match code {
        ErrorCode::Invalid | ErrorCode::TooLarge => Status::Usage,
        ErrorCode::NotFound => Status::NotFound,
        ErrorCode::Unavailable => Status::Unreachable,
        ErrorCode::Timeout | ErrorCode::RequestTimeout => Status::Timeout,
        _ => Status::Failed,
    }
}

fn hint_for(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::NoCapacity => Some("crn-agent status"),
        ErrorCode::Damaged => Some("crn-agent image remove, then crn-agent image pull"),
        _ => None,
    }
}
