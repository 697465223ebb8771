//! Running a program in the guest (`guest-exec`, `guest-exec-status`).

use std::time::Duration;

use qapi::qga;
use tokio::time::{Instant, sleep};

use super::Qga;
use crate::client::deadline;
use crate::error::Error;

/// Between two questions whether the program has ended: doubled from the first to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How a program in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// The exit code, or none if a signal ended it.
    pub status: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// What it wrote to standard output. The agent keeps 16 MiB at most; both outputs together,
    /// in base64, must fit [`Config::max_line`](crate::Config::max_line).
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, within the same bounds.
    pub stderr: Vec<u8>,
    /// Whether the agent cut either of them.
    pub truncated: bool,
}

impl ExecResult {
    /// Whether the program ended with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == Some(0)
    }
}

impl Qga {
    /// Runs `argv` in the guest, as the agent's user (root), and waits for its end. The first word
    /// is a path, or a name looked up in the agent's PATH. A non-empty `env` (`NAME=value`)
    /// replaces the environment.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute); [`Error::Encode`] for an empty `argv`;
    /// [`Error::ExecTimeout`] if the program runs on after `limit`: it is not killed, and its
    /// result is lost.
    pub async fn exec(
        &self,
        argv: &[&str],
        env: &[&str],
        stdin: Option<&[u8]>,
        limit: Duration,
    ) -> Result<ExecResult, Error> {
        let until = deadline(limit);
        let owned = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let Some((path, args)) = argv.split_first() else {
            let detail = "no program named".into();
            return Err(Error::Encode {
                command: "guest-exec".into(),
                detail,
            });
        };
        let command = qga::guest_exec {
            path: (*path).to_owned(),
            arg: Some(owned(args)),
            env: (!env.is_empty()).then(|| owned(env)),
            input_data: stdin.map(<[u8]>::to_vec),
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
        };
        let pid = self.execute_within(command, limit).await?.pid;
        let late = || Error::ExecTimeout { pid, limit };
        let mut wait = POLL.0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late());
            }
            let ask = left.min(self.inner.config.command_timeout);
            let status = match self
                .execute_within(qga::guest_exec_status { pid }, ask)
                .await
            {
                Ok(status) => status,
                Err(Error::Timeout { .. }) if ask == left => return Err(late()),
                Err(error) => return Err(error),
            };
            if status.exited {
                return Ok(ExecResult {
                    status: status.exitcode,
                    signal: status.signal,
                    stdout: status.out_data.unwrap_or_default(),
                    stderr: status.err_data.unwrap_or_default(),
                    truncated: status.out_truncated == Some(true)
                        || status.err_truncated == Some(true),
                });
            }
            sleep(wait.min(until.saturating_duration_since(Instant::now()))).await;
            wait = (wait * 2).min(POLL.1);
        }
    }
}
