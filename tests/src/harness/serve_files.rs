//! A web server of the internet, for images.

use std::{net::Ipv6Addr, path::Path, sync::mpsc, thread};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;
use tower_http::services::ServeDir;

use super::{Internet, Result};

/// Serves the files of one directory over HTTP, with ranges; ends when dropped.
#[derive(Debug)]
pub struct FileServer {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FileServer {
    /// Starts on a free port of the internet's address.
    ///
    /// # Errors
    /// When the namespace cannot be entered or nothing can listen there.
    pub fn start(internet: &Internet, dir: &Path) -> Result<Self> {
        let net = std::fs::File::open(format!("/proc/{}/ns/net", internet.0.init()))?;
        let files = axum::Router::new().fallback_service(ServeDir::new(dir));
        let address = internet.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let (report, reported) = mpsc::channel();
        let thread = thread::spawn(move || {
            let result = serve(net, address, files, stopped, &report);
            if let Err(e) = result {
                let _ = report.send(Err(e.to_string()));
            }
        });
        let port = reported.recv()??;
        let url = format!("http://[{address}]:{port}");
        Ok(Self {
            url,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where a file of the directory is.
    #[must_use]
    pub fn url(&self, file: &str) -> String {
        format!("{}/{file}", self.url)
    }
}

fn serve(
    net: std::fs::File,
    address: Ipv6Addr,
    files: axum::Router,
    stopped: oneshot::Receiver<()>,
    report: &mpsc::Sender<std::result::Result<u16, String>>,
) -> Result<()> {
    // Before the runtime: its sockets are made in this thread.
    setns(net, CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((address, 0)).await?;
        report.send(Ok(listener.local_addr()?.port()))?;
        tokio::select! {
            result = async { axum::serve(listener, files).await } => result?,
            _ = stopped => {}
        }
        Ok(())
    })
}

impl Drop for FileServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
