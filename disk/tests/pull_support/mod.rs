//! A web server on the loopback interface that can be told to misbehave, and what the tests of
//! downloads share.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use disk::{
    ByteSize, Digest, Error, Expected, ImageStore, PullRequest, Sha256, StoreOptions, StoredImage,
    Tuning,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Its number on this server, from 0.
    pub(crate) n: usize,
    pub(crate) path: String,
    head: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Start and end (exclusive) of the bytes asked for.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        let (start, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((start.parse().unwrap(), last.parse::<u64>().unwrap() + 1))
    }
}

/// What is sent back, lies included.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The `Content-Length` sent; `None`: none, and the connection's end ends the body.
    pub(crate) length: Option<u64>,
    /// The connection is closed after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Nothing more is sent after so many bytes of the body; the connection stays open.
    pub(crate) stall: Option<usize>,
    /// Before the answer.
    pub(crate) delay: Duration,
    /// After each 16 KiB.
    pub(crate) pace: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Self {
        Reply {
            status,
            headers: Vec::new(),
            length: Some(body.len() as u64),
            body: body.to_vec(),
            cut: None,
            stall: None,
            delay: Duration::ZERO,
            pace: Duration::ZERO,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.retain(|(key, _)| *key != name);
        self.headers.push((name, value.to_string()));
        self
    }

    /// What a well-behaved server of `content` answers.
    pub(crate) fn of(content: &[u8], etag: &str, request: &Request) -> Self {
        let total = content.len() as u64;
        let fresh = request.header("if-range").is_none_or(|v| v == etag);
        let reply = match request.range() {
            Some((start, _)) if fresh && start >= total => {
                Reply::new(416, b"").with("Content-Range", format!("bytes */{total}"))
            }
            Some((start, end)) if fresh => {
                let end = end.min(total);
                let body = &content[start as usize..end as usize];
                Reply::new(206, body).with(
                    "Content-Range",
                    format!("bytes {start}-{}/{total}", end - 1),
                )
            }
            _ => Reply::new(200, content),
        };
        reply.with("ETag", etag)
    }

    pub(crate) fn redirect(to: impl ToString) -> Self {
        Reply::new(302, b"").with("Location", to)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    sent: AtomicU64,
    active: AtomicUsize,
    peak: AtomicUsize,
}

/// A running server; it ends with the runtime.
#[derive(Clone)]
pub(crate) struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Server::start_with(None, handler).await
    }

    /// A server that speaks TLS.
    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Server::start_at("127.0.0.1", tls, handler).await
    }

    /// A server at another address of this machine.
    pub(crate) async fn start_at(
        address: &str,
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            sent: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        let server = Server { addr, shared };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (accepting.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => server.serve(tls.accept(stream).await.ok()?).await,
                        None => server.serve(stream).await,
                    }
                });
            }
        });
        server
    }

    /// A well-behaved server of `content`.
    pub(crate) async fn of(content: &[u8]) -> Self {
        let content = content.to_vec();
        Server::start(move |request| Reply::of(&content, "\"v1\"", request)).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Most requests that were being answered at once.
    pub(crate) fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    async fn serve(&self, mut stream: impl Stream) -> Option<()> {
        loop {
            let head = read_head(&mut stream).await?;
            let request = {
                let mut requests = self.shared.requests.lock().unwrap();
                let path = head.split(' ').nth(1)?.to_owned();
                let request = Request {
                    n: requests.len(),
                    path,
                    head,
                };
                requests.push(request.clone());
                request
            };
            let now = self.shared.active.fetch_add(1, Ordering::SeqCst) + 1;
            self.shared.peak.fetch_max(now, Ordering::SeqCst);
            let sent = self
                .answer(&mut stream, (self.shared.handler)(&request))
                .await;
            self.shared.active.fetch_sub(1, Ordering::SeqCst);
            sent?;
        }
    }

    /// `None` ends the connection.
    async fn answer(&self, stream: &mut impl Stream, reply: Reply) -> Option<()> {
        tokio::time::sleep(reply.delay).await;
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        if let Some(length) = reply.length {
            head += &format!("Content-Length: {length}\r\n");
        } else if reply.status != 204 {
            head += "Connection: close\r\n";
        }
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        let end = reply
            .cut
            .or(reply.stall)
            .unwrap_or(reply.body.len())
            .min(reply.body.len());
        for block in reply.body[..end].chunks(16 << 10) {
            stream.write_all(block).await.ok()?;
            self.shared
                .sent
                .fetch_add(block.len() as u64, Ordering::SeqCst);
            if !reply.pace.is_zero() {
                tokio::time::sleep(reply.pace).await;
            }
        }
        stream.flush().await.ok()?;
        if reply.stall.is_some() {
            // Until the client goes.
            let _ = stream.read(&mut [0; 1]).await;
            return None;
        }
        let over = reply.cut.is_some() || reply.length != Some(reply.body.len() as u64);
        (!over).then_some(())
    }
}

async fn read_head(stream: &mut impl Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A raw image of `len` bytes without two equal blocks.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend(x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Limits that make failures quick.
pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        reserve: ByteSize::ZERO,
        tuning: Tuning {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            attempts: 3,
            backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(20),
            max_retry_after: Duration::from_secs(2),
            connections: 4,
            piece: ByteSize::from_bytes(64 << 10),
            save_every: Duration::ZERO,
        },
        ..StoreOptions::default()
    }
}

/// The same, and silence is noticed soon.
pub(crate) fn impatient() -> StoreOptions {
    let mut options = options();
    options.tuning.idle_timeout = Duration::from_millis(600);
    options
}

/// A store of its own.
pub(crate) struct Scratch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch::with(options())
    }

    pub(crate) fn with(options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open_with(dir.path(), options).unwrap();
        Scratch { dir, store }
    }

    pub(crate) async fn pull(&self, url: &str, content: &[u8]) -> Result<StoredImage, Error> {
        self.store
            .pull(&request(url, Sha256::of(content).into()), |_| ())
            .await
    }

    pub(crate) fn tmp(&self) -> Vec<PathBuf> {
        list(&self.dir.path().join("tmp"))
    }

    pub(crate) fn images(&self) -> Vec<PathBuf> {
        list(&self.dir.path().join("sha256"))
    }

    /// Neither an image nor an unfinished download.
    pub(crate) fn assert_empty(&self) {
        assert_eq!((self.images(), self.tmp()), (vec![], vec![]));
    }

    /// Just this image, with this content, and nothing unfinished.
    pub(crate) fn assert_holds(&self, content: &[u8]) {
        let path = self.store.path_of(&Sha256::of(content));
        assert_eq!((self.images(), self.tmp()), (vec![path.clone()], vec![]));
        assert!(std::fs::read(path).unwrap() == content);
    }
}

pub(crate) fn request(url: &str, expected: Digest) -> PullRequest {
    PullRequest {
        url: url.to_owned(),
        expected: Expected::Digest(expected),
        format: None,
    }
}

pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths
}
