//! Connections: accepting, limiting and ending them.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::service::Service as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{node::Node, ops::Caller};

/// Most connections at a time; further ones are told to come back.
const MAX_CONNECTIONS: usize = 256;
/// So many more are kept for root: whoever else may use the socket cannot keep the
/// operator from it.
const ROOT_CONNECTIONS: usize = 16;
/// How long a request's head may take to arrive, and a connection may idle.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;
/// How long requests at hand may take when the agent ends.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: too many open files do not get fewer by trying.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
Connection: close\r\nContent-Length: 67\r\n\r\n\
{\"error\":{\"code\":\"unavailable\",\"message\":\"too many connections\"}}\r\n";

/// Who is at the other end of a connection on the agent's socket.
fn peer(uid: Option<u32>) -> Caller {
    let ours = rustix::process::geteuid().as_raw();
    Caller::Operator {
        host_files: uid.is_some_and(|uid| uid == 0 || uid == ours),
    }
}

/// Serves the API on the unix socket until `shutdown`, and what is at hand for
/// two more seconds.
pub async fn serve(node: Arc<Node>, listener: UnixListener, shutdown: impl Future<Output = ()>) {
    crate::ops::status::started();
    let accept = || async {
        let (stream, _) = listener.accept().await?;
        let uid = stream.peer_cred().ok().map(|c| c.uid());
        Ok((stream, peer(uid)))
    };
    run(super::router(node), accept, shutdown).await;
}

/// Serves the status page until `shutdown`.
pub async fn serve_status(
    node: Arc<Node>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let accept = || async {
        let (stream, _) = listener.accept().await?;
        Ok((stream, Caller::Observer))
    };
    run(super::status_router(node), accept, shutdown).await;
}

async fn run<S, A, F>(router: Router, accept: A, shutdown: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn() -> F,
    F: Future<Output = io::Result<(S, Caller)>>,
{
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let root_seats = Arc::new(Semaphore::new(ROOT_CONNECTIONS));
    let (end, ending) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((mut stream, caller)) => match seat(&seats, &root_seats, &caller) {
                Some(seat) => {
                    let (router, ending) = (router.clone(), ending.clone());
                    connections.spawn(async move {
                        connection(router, stream, caller, ending).await;
                        drop(seat);
                    });
                }
                None => {
                    connections.spawn(async move {
                        let _ = tokio::time::timeout(GRACE, stream.write_all(BUSY)).await;
                    });
                }
            },
            Err(e) => {
                warn!("a connection to the API could not be accepted: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(end);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_gone).await.is_err() {
        debug!("open streams are cut");
    }
}

/// Room for a connection of this caller, if there is any.
fn seat(
    seats: &Arc<Semaphore>,
    root_seats: &Arc<Semaphore>,
    caller: &Caller,
) -> Option<OwnedSemaphorePermit> {
    let free = |seats: &Arc<Semaphore>| seats.clone().try_acquire_owned().ok();
    let root = matches!(caller, Caller::Operator { host_files: true });
    free(seats).or_else(|| root.then(|| free(root_seats))?)
}

async fn connection<S>(router: Router, stream: S, caller: Caller, mut ending: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        debug!("a connection ended early: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_agents_own_user_may_name_files() {
        let ours = rustix::process::geteuid().as_raw();
        for (uid, may) in [
            (Some(0), true),
            (Some(ours), true),
            (Some(4_000_000_000), false),
            (None, false),
        ] {
            assert_eq!(peer(uid), Caller::Operator { host_files: may }, "{uid:?}");
        }
    }

    #[test]
    fn others_cannot_take_all_seats_from_root() {
        let seats = Arc::new(Semaphore::new(2));
        let root_seats = Arc::new(Semaphore::new(1));
        let of = |uid| seat(&seats, &root_seats, &peer(uid));
        let taken = [of(Some(1000)), of(None)];
        assert!(taken.iter().all(Option::is_some));
        assert!(of(Some(1000)).is_none() && of(None).is_none());
        let root = of(Some(0));
        assert!(root.is_some() && of(Some(0)).is_none());
        drop(root);
        assert!(of(Some(0)).is_some() && of(Some(1000)).is_none());
        drop(taken);
        assert!(of(Some(1000)).is_some());
    }

    #[test]
    fn the_busy_answer_is_whole() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
        let body: crn_api_types::ErrorBody = serde_json::from_str(body).unwrap();
        assert_eq!(body.error.code, crn_api_types::TransportCode::Unavailable);
    }
}
