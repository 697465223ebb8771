//! What strangers try with a guest that serves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, SupportedProtocolVersion};

use super::guest::{Firmware, Guest, Taken, config, judge, key, owner, policy, secrets, unlock};
use crate::channel::ethereum::OwnerKey;
use crate::channel::{MAX_BODY, v1, v2};
use crate::endpoint::http::Messages;
use crate::endpoint::tls::{self, Timed};
use crate::endpoint::unlock::connection::{AnyCertificate, Connection};
use crate::endpoint::unlock::{Attested, Target, UnlockError};

const TIME: Duration = Duration::from_secs(20);

/// A stranger's connection.
pub(super) struct Stranger(Connection);

pub(super) fn connect(target: &Target) -> Stranger {
    Stranger(Connection::open(target).unwrap())
}

impl Stranger {
    pub(super) fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (status, body) = self.0.request(method, path, body, TIME).unwrap();
        (status, body.to_vec())
    }

    pub(super) fn certificate(&mut self) -> Vec<u8> {
        self.0.certificate()
    }

    /// Has a report made by version 2; the session that it is for.
    fn attest(&mut self) -> v2::Session {
        let question = v2::write_question(&[1; 32]);
        assert_eq!(self.ask("POST", v2::ATTEST_PATH, &question).0, 200);
        self.0.session([1; 32]).unwrap()
    }
}

fn address(target: &Target) -> (&str, u16) {
    match target {
        Target::Tcp(host, port) => (host, *port),
        Target::Unix(_) => unreachable!(),
    }
}

/// A client of this version of TLS, which would resume a session.
fn client(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = tls::provider();
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_early_data = true;
    Arc::new(config)
}

type Stream = rustls::StreamOwned<ClientConnection, Timed<TcpStream>>;

fn handshake(config: &Arc<ClientConfig>, target: &Target) -> std::io::Result<Stream> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(config.clone(), name).unwrap();
    let socket = Timed::new(TcpStream::connect(address(target))?, TIME);
    let mut stream = rustls::StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

#[test]
fn what_is_refused() {
    let guest = Guest::sound();
    let envelope = v2::write_envelope(&secrets(), "0x00").unwrap();
    let inject = v1::write_envelope(&secrets(), "0x00").unwrap();
    for (method, path, body, status) in [
        ("GET", "/", &b""[..], 404),
        ("GET", "/.well-known/attestation", b"", 400),
        ("POST", v2::UNLOCK_PATH, &envelope, 409),
        ("POST", v2::ATTEST_PATH, b"{}", 400),
        ("POST", v2::ATTEST_PATH, &[b' '; 257], 413),
        ("GET", v2::ATTEST_PATH, b"", 405),
        ("POST", v1::INJECT_PATH, b"{}", 400),
        ("POST", v1::INJECT_PATH, &inject, 403),
    ] {
        let (found, words) = connect(&guest.target).ask(method, path, body);
        let words = String::from_utf8(words).unwrap();
        assert_eq!(found, status, "{method} {path}: {words}");
        assert!(words.starts_with(r#"{"error":"#), "{words}");
    }
    let answer = connect(&guest.target)
        .ask("POST", v1::INJECT_PATH, &inject)
        .1;
    assert_eq!(
        answer,
        br#"{"error":"owner signature verification failed"}"#
    );
    let mut twice = connect(&guest.target);
    twice.attest();
    let question = v2::write_question(&[2; 32]);
    assert_eq!(twice.ask("POST", v2::ATTEST_PATH, &question).0, 409);
    assert!(guest.taken.all().is_empty());
}

/// A body that is announced too long is refused before it is read.
#[test]
fn long_bodies_are_not_read() {
    let guest = Guest::sound();
    let mut stream = handshake(&client(&[&TLS13]), &guest.target).unwrap();
    let length = MAX_BODY + 1;
    let head = format!(
        "POST {} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n",
        v1::INJECT_PATH
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut messages = Messages::new(stream);
    assert_eq!(messages.response().unwrap().status, 413);
    let mut stream = handshake(&client(&[&TLS13]), &guest.target).unwrap();
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    stream.write_all(head.as_bytes()).unwrap();
    let mut messages = Messages::new(stream);
    assert_eq!(messages.response().unwrap().status, 431);
}

/// A signature is of one owner, one version, one session and one set of secrets.
#[test]
fn signatures_serve_once() {
    let guest = Guest::sound();
    let mut first = connect(&guest.target);
    let earlier = first.attest();
    let other = OwnerKey::from_text(&"43".repeat(32)).unwrap();
    let more = {
        let mut more = secrets();
        let value = zeroize::Zeroizing::new(b"x".to_vec());
        more.insert("more".to_owned(), value).unwrap();
        more
    };
    let point = key(5).point;
    type Text<'a> = Box<dyn Fn(&v2::Session) -> String + 'a>;
    let texts: [(&OwnerKey, Text<'_>); 5] = [
        (&other, Box::new(|session| session.owner_text(&secrets()))),
        (&owner(), Box::new(|_| earlier.owner_text(&secrets()))),
        (&owner(), Box::new(|session| session.owner_text(&more))),
        (
            &owner(),
            Box::new(|_| v1::owner_text(&point, &secrets()).unwrap()),
        ),
        (
            &owner(),
            Box::new(|session| {
                let mut turned = session.clone();
                turned.owner = session.guest;
                turned.owner_text(&secrets())
            }),
        ),
    ];
    for (number, (signer, text)) in texts.iter().enumerate() {
        let mut stranger = connect(&guest.target);
        let session = stranger.attest();
        let body = v2::write_envelope(&secrets(), &signer.sign(&text(&session))).unwrap();
        assert_eq!(
            stranger.ask("POST", v2::UNLOCK_PATH, &body).0,
            403,
            "{number}"
        );
    }
    // Version 2's signature for version 1, and version 1's of another key.
    for text in [
        earlier.owner_text(&secrets()),
        v1::owner_text(&point, &secrets()).unwrap(),
    ] {
        let body = v1::write_envelope(&secrets(), &owner().sign(&text)).unwrap();
        let answer = connect(&guest.target).ask("POST", v1::INJECT_PATH, &body);
        assert_eq!(answer.0, 403);
    }
    assert!(guest.taken.all().is_empty());
    // The first connection, which all this did not touch.
    let body = v2::write_envelope(&secrets(), &owner().sign(&earlier.owner_text(&secrets())));
    assert_eq!(first.ask("POST", v2::UNLOCK_PATH, &body.unwrap()).0, 200);
    assert_eq!(guest.taken.all().len(), 1);
}

#[test]
fn no_resumption_and_no_early_data() {
    let guest = Guest::sound();
    let config = client(&[&TLS13]);
    for _ in 0..3 {
        let mut stream = handshake(&config, &guest.target).unwrap();
        // A server that gives tickets gives them by the first answer.
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 404"));
        assert_eq!(stream.conn.tls13_tickets_received(), 0);
        let kind = stream.conn.handshake_kind();
        assert!(
            matches!(
                kind,
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
            ),
            "{kind:?}"
        );
        assert!(!stream.conn.is_early_data_accepted());
    }
}

#[test]
fn tls_1_2_for_version_1_alone_and_where_it_is_asked_for() {
    let old = client(&[&TLS12]);
    let guest = Guest::sound();
    assert!(handshake(&old, &guest.target).is_err());
    let taken = Taken::default();
    let mut config = config(Firmware::sound(), &taken);
    config.tls12 = true;
    let guest = Guest::start(config, key(5), taken);
    let mut messages = Messages::new(handshake(&old, &guest.target).unwrap());
    let path = format!("{}?nonce={}", v1::ATTESTATION_PATH, "ab".repeat(32));
    messages
        .write_request("GET", &path, "localhost", b"")
        .unwrap();
    let head = messages.response().unwrap();
    assert_eq!(head.status, 200);
    let body = messages.body(head.length, head.length).unwrap();
    let report = v1::read_evidence(&body).unwrap();
    assert_eq!(report.report_data, v1::fresh(&key(5).point, &[0xab; 32]));
    let question = v2::write_question(&[1; 32]);
    messages
        .write_request("POST", v2::ATTEST_PATH, "localhost", &question)
        .unwrap();
    assert_eq!(messages.response().unwrap().status, 400);
}

/// Garbage, silence and floods leave the guest serving its owner.
#[test]
fn noise_does_not_keep_the_owner_out() {
    let guest = Guest::sound();
    let address = address(&guest.target);
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 70_000],
        b"\x16\x03\x01",
        b"",
    ] {
        let mut socket = TcpStream::connect(address).unwrap();
        let _ = socket.write_all(noise);
    }
    // Five of one source: the fifth is closed without a word.
    let held: Vec<Stranger> = (0..4).map(|_| wait_for(&guest.target)).collect();
    assert!(Connection::open(&guest.target).is_err());
    drop(held);
    drop(wait_for(&guest.target));
    assert!(unlock(&guest.target, &policy(), false).is_ok());
}

/// A connection, once those of before have come to their end.
fn wait_for(target: &Target) -> Stranger {
    for _ in 0..500 {
        if let Ok(connection) = Connection::open(target) {
            return Stranger(connection);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no connection in ten seconds");
}

/// Who asks for too many reports waits. That is no reason to fall back to version 1.
#[test]
fn reports_are_few() {
    let guest = Guest::sound();
    let refused = (0..40).find_map(|_| Attested::ask(&guest.target, true).err());
    let Some(UnlockError::Refused { status: 429, .. }) = refused else {
        panic!("{refused:?}");
    };
    std::thread::sleep(Duration::from_millis(2100));
    let attested = Attested::ask(&guest.target, true).unwrap();
    assert_eq!(attested.version(), 2);
    assert!(judge(&attested, &policy()).clearance().is_ok());
}
