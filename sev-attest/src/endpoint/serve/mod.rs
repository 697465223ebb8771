//! The guest's side: serves reports of this guest, and takes secrets from its owner.
//!
//! Whoever connects is a stranger until the owner's signature holds: connections, time, sizes and
//! reports are bounded (`admission`), and nothing that a stranger sends is stored, logged or run.

mod admission;
mod certificate;
mod route;
mod sink;
mod visit;

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub use sink::{Command, Directory, Sink, SinkError};

use admission::{Admission, Source};
pub(crate) use certificate::BootKey;
use route::{Refusal, Route};
use visit::{Reply, Visit};

use super::http::{HttpError, Messages};
use super::tls::{self, Socket, Timed};
use crate::channel::ethereum::Address;
use crate::channel::{Secrets, v1};
use crate::guest::{GuestError, GuestReport, ReportProvider, ReportRequest, Vmpl};

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a connection's requests, with what the owner needs between report and secret to verify
/// the one: certificates may have to be fetched.
const CONVERSATION: Duration = Duration::from_secs(120);
/// Time for an answer to be taken.
const ANSWER: Duration = Duration::from_secs(10);
/// Requests on one connection.
const MAX_REQUESTS: usize = 8;
/// How long to wait where no connection can be accepted.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What a guest serves, and to whom.
pub struct Config {
    /// Who may send secrets.
    pub owner: Address,
    /// What is spoken.
    pub versions: Versions,
    /// Whether clients of version 1 may come with TLS 1.2.
    pub tls12: bool,
    /// The level that reports are asked for at; `None` for the kernel's own.
    pub vmpl: Option<Vmpl>,
    /// Where reports come from.
    pub reports: Box<dyn ReportProvider + Send>,
    /// Where secrets go.
    pub sink: Box<dyn Sink>,
    /// Is told what happens.
    pub listener: Box<dyn Fn(&Event) + Send + Sync>,
}

/// The versions of the channel that a guest speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// Both, so that today's clients are served too.
    Both,
    /// Version 2 alone.
    V2,
    /// Version 1 alone, as guests of older software.
    #[cfg(test)]
    V1,
}

impl Versions {
    fn v1(self) -> bool {
        !matches!(self, Self::V2)
    }

    fn v2(self) -> bool {
        match self {
            Self::Both | Self::V2 => true,
            #[cfg(test)]
            Self::V1 => false,
        }
    }
}

/// Something that happened. Nothing that only a stranger can cause is one, but for reports that could
/// not be had, of which there are few.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Secrets were taken.
    Unlocked {
        /// The channel's version.
        version: u8,
        /// Names of the secrets.
        names: Vec<String>,
    },
    /// Secrets of the owner's could not be taken.
    NotTaken(String),
    /// A report could not be had.
    NoReport(String),
}

/// Why a guest can't serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// No report for the certificate.
    #[error("no report for the certificate of version 1: {0}")]
    Report(#[from] GuestError),
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// No certificate.
    #[error("the certificate can't be made: {0}")]
    Certificate(String),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A thread can't be started.
    #[error("no thread: {0}")]
    Thread(std::io::Error),
}

/// What all connections share.
pub(super) struct Guest {
    key: BootKey,
    tls: Arc<ServerConfig>,
    owner: Address,
    versions: Versions,
    vmpl: Option<Vmpl>,
    reports: Mutex<Box<dyn ReportProvider + Send>>,
    sink: Mutex<Box<dyn Sink>>,
    listener: Box<dyn Fn(&Event) + Send + Sync>,
    admission: Admission,
    unlocked: Mutex<Sender<()>>,
}

impl Guest {
    /// Reports are made one after the other: the interfaces of the kernel want it so.
    fn report(&self, request: &ReportRequest) -> Result<GuestReport, GuestError> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.report(request)
    }

    fn take(&self, secrets: &Secrets) -> Result<(), SinkError> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.take(secrets)
    }

    fn tell(&self, event: &Event) {
        (self.listener)(event);
    }
}

/// A guest that serves, in threads of its own, until the process ends.
pub struct Server {
    guest: Arc<Guest>,
    unlocked: Receiver<()>,
}

impl Server {
    /// Makes the key of this boot and serves on all `listeners`.
    ///
    /// # Errors
    /// Where there is no report (for version 1), no random numbers or no thread to be had.
    pub fn start(config: Config, listeners: Vec<TcpListener>) -> Result<Self, ServeError> {
        Self::with_key(config, listeners, BootKey::generate()?)
    }

    pub(super) fn with_key(
        mut config: Config,
        listeners: Vec<TcpListener>,
        key: BootKey,
    ) -> Result<Self, ServeError> {
        let report = match config.versions.v1() {
            false => None,
            true => Some(config.reports.report(&ReportRequest {
                data: v1::key_binding(&key.point),
                vmpl: config.vmpl,
                extended: false,
            })?),
        };
        let certificate = key.certificate(report.as_ref().map(|made| &made.report))?;
        let versions = match config.versions.v1() && config.tls12 {
            true => &[&TLS13, &TLS12][..],
            false => &[&TLS13],
        };
        let mut tls = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.to_rustls()?)?;
        // Nothing of one connection lives on in another: no resumption, no early data.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        tls.max_early_data_size = 0;
        let (sender, unlocked) = channel();
        let guest = Arc::new(Guest {
            key,
            tls: Arc::new(tls),
            owner: config.owner,
            versions: config.versions,
            vmpl: config.vmpl,
            reports: Mutex::new(config.reports),
            sink: Mutex::new(config.sink),
            listener: config.listener,
            admission: Admission::default(),
            unlocked: Mutex::new(sender),
        });
        for listener in listeners {
            let guest = guest.clone();
            spawn("listen", move || accept(&guest, &listener)).map_err(ServeError::Thread)?;
        }
        Ok(Self { guest, unlocked })
    }

    /// The key of this boot: SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.guest.key.spki
    }

    /// Waits until secrets were taken and the owner was told so.
    pub fn wait_unlocked(&self) {
        // The sender lives as long as the guest does.
        let _ = self.unlocked.recv();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map(drop)
}

fn accept(guest: &Arc<Guest>, listener: &TcpListener) {
    loop {
        let Ok((socket, address)) = listener.accept() else {
            // Out of descriptors, or a connection that was gone before it was taken.
            thread::sleep(BACK_OFF);
            continue;
        };
        let source = Source::of(address.ip());
        let Some(counted) = guest.admission.connection(source) else {
            continue;
        };
        let guest = guest.clone();
        let started = spawn("connection", move || {
            // How a stranger's connection ends is nobody's concern.
            let _ = serve(&guest, socket, source);
            drop(counted);
        });
        if started.is_err() {
            thread::sleep(BACK_OFF);
        }
    }
}

/// Serves one connection of TCP.
fn serve(guest: &Guest, socket: TcpStream, source: Source) -> Result<(), HttpError> {
    let _ = socket.set_nodelay(true);
    converse(guest, socket, source)
}

/// Serves one connection.
fn converse<S: Socket>(guest: &Guest, socket: S, source: Source) -> Result<(), HttpError> {
    let connection = ServerConnection::new(guest.tls.clone()).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, Timed::new(socket, HANDSHAKE));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let end = Instant::now() + CONVERSATION;
    stream.sock.end_at(end);
    let mut messages = Messages::new(stream);
    let mut visit = Visit {
        guest,
        source,
        session: None,
    };
    for number in 1..=MAX_REQUESTS {
        let (reply, last) = match next(&mut messages, &mut visit) {
            Ok(None) => return Ok(()),
            Ok(Some((reply, last))) => (reply, last || number == MAX_REQUESTS),
            Err(error) => (Reply::refusal(refusal(error)?), true),
        };
        let last = last || reply.last;
        messages.stream().sock.end_at(Instant::now() + ANSWER);
        let written = messages.write_response(reply.status, &reply.body, last);
        if last {
            messages.stream().conn.send_close_notify();
            let _ = std::io::Write::flush(messages.stream());
        }
        if reply.unlocked {
            let unlocked = guest.unlocked.lock();
            let _ = unlocked.unwrap_or_else(PoisonError::into_inner).send(());
        }
        written?;
        if last {
            return Ok(());
        }
        messages.stream().sock.end_at(end);
    }
    Ok(())
}

/// What is answered to a message that could not be read; an error where nobody hears it.
fn refusal(error: HttpError) -> Result<Refusal, HttpError> {
    match error {
        HttpError::Io(_) => Err(error),
        HttpError::Malformed(_) | HttpError::Length => {
            Ok(Refusal(400, "not HTTP/1.1 as it is spoken here"))
        }
        HttpError::HeadTooLong => Ok(Refusal(431, "the request's head is too long")),
        HttpError::BodyTooLong(_) => Ok(Refusal(413, "the request's body is too long")),
    }
}

/// The next request's answer, and whether the client wants no more; `None` where there is none.
fn next<S: Socket>(
    messages: &mut Messages<StreamOwned<ServerConnection, Timed<S>>>,
    visit: &mut Visit<'_>,
) -> Result<Option<(Reply, bool)>, HttpError> {
    let Some(head) = messages.request()? else {
        return Ok(None);
    };
    let guest = visit.guest;
    let route = match Route::of(&head.method, &head.target, guest.versions) {
        Ok(route) => route,
        Err(refused) => return Ok(Some((Reply::refusal(refused), true))),
    };
    let room = match route.brings_secrets() {
        false => None,
        true => match guest.admission.body() {
            Some(room) => Some(room),
            None => {
                let busy = Refusal(503, "too many secrets at once: try again");
                return Ok(Some((Reply::refusal(busy), true)));
            }
        },
    };
    let body = messages.body(head.length, route.max_body())?;
    let connection = &messages.stream().conn;
    let reply = visit.answer(route, &body, |nonce| {
        tls::session(connection, &guest.key.spki, nonce)
    });
    drop(room);
    Ok(Some((reply, head.last)))
}
