//! Reaching a unix socket within a time limit.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::error::Error;

/// The pause before the next attempt at a socket whose queue of clients is full.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Connects to `path`. A socket with a full queue of waiting clients is tried again until `limit`.
pub(crate) async fn connect(path: &Path, limit: Duration) -> Result<UnixStream, Error> {
    let attempt = async {
        loop {
            match UnixStream::connect(path).await {
                // A non-blocking connect(2) says EAGAIN when the queue is full; see unix(7).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY_AFTER).await,
                result => return result,
            }
        }
    };
    match timeout(limit, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(Error::Connect {
            path: path.to_owned(),
            source,
        }),
        Err(_) => Err(Error::ConnectTimeout {
            path: path.to_owned(),
            limit,
        }),
    }
}
