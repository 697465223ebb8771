//! The relay attack (CVE-2026-33697): somebody who has the TLS key of one sound guest stands between
//! an owner and the guest that the owner means, and hands on that guest's evidence.
//!
//! Version 1 falls, which shows that the attack is one; version 2 refuses it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::guest::{Firmware, Guest, Taken, config, key, policy, refused_for, secrets, unlock};
use super::strangers::connect;
use crate::channel::{Secrets, v1, v2};
use crate::endpoint::http::Messages;
use crate::endpoint::tls::{self, Timed};
use crate::endpoint::unlock::Target;

/// The scalar of the key that leaked.
const LEAKED: u8 = 9;

/// The attacker: where owners reach it, and the secrets that it read.
struct Attacker {
    target: Target,
    read: Arc<Mutex<Vec<Secrets>>>,
}

impl Attacker {
    /// Stands before `victim`, whose TLS key it has. Whether it hides that the victim speaks version
    /// 2 is its choice.
    fn before(victim: &Guest, hide_v2: bool) -> Self {
        let victim = victim.target.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let certificate = connect(&victim).certificate().into();
        let mut tls = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key(LEAKED).to_rustls().unwrap())
            .unwrap();
        tls.send_tls13_tickets = 0;
        let (tls, read) = (Arc::new(tls), Arc::<Mutex<Vec<Secrets>>>::default());
        let attacker = Self {
            target: Target::Tcp("127.0.0.1".to_owned(), port),
            read: read.clone(),
        };
        thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                let (tls, read, victim) = (tls.clone(), read.clone(), victim.clone());
                thread::spawn(move || relay(&tls, socket, &victim, hide_v2, &read));
            }
        });
        attacker
    }

    fn read(&self) -> Vec<Secrets> {
        self.read.lock().unwrap().clone()
    }
}

/// Ends the owner's TLS with the leaked key, and hands on what is asked over TLS of its own.
fn relay(
    tls: &Arc<ServerConfig>,
    socket: TcpStream,
    victim: &Target,
    hide_v2: bool,
    read: &Mutex<Vec<Secrets>>,
) {
    let connection = ServerConnection::new(tls.clone()).unwrap();
    let timed = Timed::new(socket, Duration::from_secs(20));
    let mut messages = Messages::new(StreamOwned::new(connection, timed));
    let mut guest = connect(victim);
    while let Ok(Some(head)) = messages.request() {
        let body = messages.body(head.length, head.length).unwrap();
        let (status, answer) = match head.target.as_str() {
            v2::ATTEST_PATH if hide_v2 => (404, b"{}".to_vec()),
            v1::INJECT_PATH => took(read, v1::read_envelope(&body).unwrap().0),
            v2::UNLOCK_PATH => took(read, v2::read_envelope(&body).unwrap().0),
            path => guest.ask(&head.method, path, &body),
        };
        messages.write_response(status, &answer, false).unwrap();
    }
}

/// The secrets are the attacker's.
fn took(read: &Mutex<Vec<Secrets>>, secrets: Secrets) -> (u16, Vec<u8>) {
    read.lock().unwrap().push(secrets);
    (200, br#"{"injected":["luks_passphrase"]}"#.to_vec())
}

/// A sound guest whose TLS key leaked.
fn leaky() -> Guest {
    let taken = Taken::default();
    Guest::start(config(Firmware::sound(), &taken), key(LEAKED), taken)
}

#[test]
fn version_1_falls() {
    let guest = leaky();
    let attacker = Attacker::before(&guest, true);
    // All that the policy asks for is true of the report, which is fresh and binds the attacker's key.
    let took = unlock(&attacker.target, &policy(), true).unwrap();
    assert_eq!(took, ["luks_passphrase"]);
    assert_eq!(attacker.read(), [secrets()]);
    assert!(guest.taken.all().is_empty());
}

#[test]
fn version_2_refuses() {
    let guest = leaky();
    let attacker = Attacker::before(&guest, false);
    for allow_v1 in [false, true] {
        let found = unlock(&attacker.target, &policy(), allow_v1);
        refused_for(found, &["channel.binding", "report_data"]);
    }
    assert!(attacker.read().is_empty());
    // The same guest without the attacker is sound.
    assert!(unlock(&guest.target, &policy(), false).is_ok());
}

#[test]
fn version_2_can_not_be_hidden_from_who_does_not_allow_version_1() {
    let guest = leaky();
    let attacker = Attacker::before(&guest, true);
    let found = unlock(&attacker.target, &policy(), false);
    refused_for(found, &["channel.binding"]);
    assert!(attacker.read().is_empty());
}

/// Who has no key of the guest's gets nowhere with evidence of it: its own key is not bound.
#[test]
fn another_key_is_not_bound() {
    let taken = Taken::default();
    let guest = Guest::start(config(Firmware::sound(), &taken), key(LEAKED + 1), taken);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = key(LEAKED).certificate(None).unwrap();
    let tls = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own], key(LEAKED).to_rustls().unwrap())
        .unwrap();
    let (tls, read, victim) = (
        Arc::new(tls),
        Arc::<Mutex<Vec<Secrets>>>::default(),
        guest.target,
    );
    let seen = read.clone();
    thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            relay(&tls, socket.unwrap(), &victim, number > 0, &seen);
        }
    });
    let target = Target::Tcp("127.0.0.1".to_owned(), port);
    let found = unlock(&target, &policy(), true);
    refused_for(found, &["channel.binding", "report_data"]);
    let found = unlock(&target, &policy(), true);
    refused_for(found, &["report_data"]);
    assert!(read.lock().unwrap().is_empty());
}

/// A relay that only hands on bytes, as the host's agent does, changes nothing and reads nothing.
#[test]
fn an_honest_relay_sees_ciphertext() {
    let guest = Guest::sound();
    let Target::Tcp(host, port) = guest.target.clone() else {
        panic!("{:?}", guest.target);
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let tap = seen.clone();
    thread::spawn(move || {
        for owner in listener.incoming() {
            let owner: UnixStream = owner.unwrap();
            let guest = TcpStream::connect((host.as_str(), port)).unwrap();
            let (from, to) = (owner.try_clone().unwrap(), guest.try_clone().unwrap());
            let ends = (owner.try_clone().unwrap(), guest.try_clone().unwrap());
            let (up, down) = (tap.clone(), tap.clone());
            thread::spawn(move || {
                hand_on(from, to, &up);
                let _ = ends.1.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                hand_on(guest, owner, &down);
                let _ = ends.0.shutdown(Shutdown::Both);
            });
        }
    });
    let took = unlock(&Target::Unix(path), &policy(), false);
    assert!(
        matches!(&took, Ok(names) if names == &["luks_passphrase"]),
        "{took:?}"
    );
    assert_eq!(guest.taken.all(), [secrets()]);
    let seen = seen.lock().unwrap();
    let holds = |text: &[u8]| seen.windows(text.len()).any(|window| window == text);
    assert!(seen.len() > 4000);
    assert!(!holds(b"correct horse") && !holds(b"luks_passphrase"));
}

fn hand_on(mut from: impl Read, mut to: impl Write, seen: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        seen.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
