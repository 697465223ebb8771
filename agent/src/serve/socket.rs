//! The API's socket: made, served, and made anew when somebody removed it.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crn_api_types::EventKind;
use tokio::{net::UnixListener, sync::watch, time::sleep};
use tracing::{error, info, warn};

use super::{ServeError, directories, until};
use crate::{api, config::Config, node::Node};

/// So often it is looked whether the socket is still where clients look for it.
const LOOK: Duration = Duration::from_secs(3);

/// Binds the socket: root's, and the configured group's.
///
/// # Errors
/// [`ServeError::File`].
pub(super) fn listen(config: &Config) -> Result<UnixListener, ServeError> {
    let path = config.socket();
    let fail = |source| ServeError::File {
        path: path.clone(),
        source,
    };
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    // By the umask nobody else may connect, not even now.
    let listener = UnixListener::bind(&path).map_err(fail)?;
    let mode = if let Some(group) = config.api.group {
        chown(&path, None, Some(group)).map_err(fail)?;
        0o660
    } else {
        0o600
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(fail)?;
    Ok(listener)
}

/// Serves the API until `stopped`. When the run directory was wiped (a tidy script, an
/// unmount), it is made anew, with a new socket.
pub(super) async fn serve(
    node: Arc<Node>,
    mut listener: UnixListener,
    stopped: watch::Receiver<bool>,
) {
    let path = node.config.socket();
    // Each run directory that was made anew has a lock of its own.
    let mut locks = Vec::new();
    loop {
        let end = {
            let (stopped, path) = (stopped.clone(), path.clone());
            async move {
                tokio::select! {
                    () = until(stopped) => {}
                    () = removed(&path) => {}
                }
            }
        };
        api::serve(node.clone(), listener, end).await;
        if *stopped.borrow() {
            return;
        }
        let run_dir = node.config.run_dir.display();
        error!(
            "{run_dir} was wiped: the API's socket is made anew; instances that run have lost \
             their monitors' sockets, and cannot be stopped politely after the agent's next start: \
             restart them when it suits"
        );
        let data = serde_json::json!({ "what": "run directory" });
        node.events.emit(None, EventKind::RunDirectoryLost, data);
        listener = loop {
            let made = directories::prepare(&node.config, &node.paths)
                .and_then(|()| directories::lock(&node.config.run_dir))
                .and_then(|lock| Ok((lock, listen(&node.config)?)));
            match made {
                Ok((lock, listener)) => {
                    locks.push(lock);
                    break listener;
                }
                Err(e) => warn!("the API's socket cannot be made, trying again: {e}"),
            }
            tokio::select! {
                () = until(stopped.clone()) => return,
                () = sleep(LOOK) => {}
            }
        };
        info!("{} is there again", path.display());
    }
}

/// Returns when the file at this path is not the one that is there now.
async fn removed(path: &Path) {
    let identity = || fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let ours = identity();
    while identity() == ours && ours.is_some() {
        sleep(LOOK).await;
    }
}
