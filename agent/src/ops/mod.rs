//! What can be done with the node, whoever asks: the API on the unix socket is
//! thin over this, and so is every other face to come.
//!
//! Each operation is asked for by a [`Caller`] and permitted or not in one place.
//! It checks its input, writes what is wanted to the database, wakes the instance's
//! task and returns; the task does the rest. All can be repeated. What changes
//! something runs to its end even if the caller is gone.

mod caller;
pub mod console;
pub mod copies;
mod error;
pub mod events;
pub mod images;
pub mod instances;
mod lookup;
mod permission;
pub mod ports;
pub mod progress;
pub mod status;
mod view;
pub mod volumes;

use std::{future::Future, time::Duration};

use crn_api_types::ErrorCode;

pub use caller::Caller;
pub use error::OpError;

/// How long a request to a live instance may take before the caller is told so;
/// the instance goes on with it.
const LIVE_LIMIT: Duration = Duration::from_secs(45);

/// Runs `work` to its end, also when the caller stops waiting.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, OpError>> + Send + 'static,
) -> Result<T, OpError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(OpError::internal(format!("the operation was cut off: {e}"))),
    }
}

/// Waits for a live instance, within [`LIVE_LIMIT`].
async fn live<T>(
    what: &str,
    answer: impl Future<Output = Result<T, crate::tasks::TaskError>>,
) -> Result<T, OpError> {
    match tokio::time::timeout(LIVE_LIMIT, answer).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            let seconds = LIVE_LIMIT.as_secs();
            let message = format!("{what} is not done after {seconds} s; it goes on");
            Err(OpError::new(ErrorCode::Timeout, message))
        }
    }
}

#[cfg(test)]
mod tests;
