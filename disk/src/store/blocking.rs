//! Work that blocks, awaited.

use std::path::Path;

use crate::error::Error;

/// Runs what blocks where it may; `path` is for the error when the runtime is shutting down.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::io("work on", path)(std::io::Error::other(error))),
    }
}
