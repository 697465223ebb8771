//! What both sides take of TLS: one provider, exporter values, and connections that end in time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ProtocolVersion;
use rustls::crypto::CryptoProvider;

use crate::channel::NONCE_LEN;
use crate::channel::v2::{EXPORTER_LABEL, EXPORTER_LEN, Role, Session};

/// The cryptography of both sides.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The session of a connection, for version 2; `None` where it is not of TLS 1.3, or has no exporter:
/// then there is no version 2.
pub(super) fn session<Data>(
    connection: &rustls::ConnectionCommon<Data>,
    spki: &[u8],
    nonce: [u8; NONCE_LEN],
) -> Option<Session> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    let export = |role: Role| {
        let value = [0; EXPORTER_LEN];
        connection
            .export_keying_material(value, EXPORTER_LABEL, Some(role.context()))
            .ok()
    };
    Some(Session {
        guest: export(Role::Guest)?,
        owner: export(Role::Owner)?,
        spki: spki.to_vec(),
        nonce,
    })
}

/// A socket whose reads and writes can be given a time.
pub(super) trait Socket: Read + Write {
    /// Ends reads and writes that take longer.
    fn set_timeouts(&self, time: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Socket for UnixStream {
    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl<S: Socket + ?Sized> Socket for Box<S> {
    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        (**self).set_timeouts(time)
    }
}

/// A socket with a time by which all must be done, however slowly the peer drips.
#[derive(Debug)]
pub(super) struct Timed<S> {
    socket: S,
    until: Instant,
}

impl<S: Socket> Timed<S> {
    pub(super) fn new(socket: S, time: Duration) -> Self {
        let until = Instant::now() + time;
        Self { socket, until }
    }

    /// Another time by which all must be done.
    pub(super) fn end_at(&mut self, until: Instant) {
        self.until = until;
    }

    fn arm(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_timeouts(left)
    }
}

/// What a socket says when its time is over, in one word.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl<S: Socket> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.read(buffer).map_err(timed_out)
    }
}

impl<S: Socket> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that drips is cut off at the end of the whole time, not of the time for one read.
    #[test]
    fn dripping_does_not_make_time_longer() {
        let (mut peer, socket) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || {
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut timed = Timed::new(socket, Duration::from_millis(300));
        let begun = Instant::now();
        let mut all = [0; 10_000];
        let error = timed.read_exact(&mut all).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(300));
        // Nor may a silent one stay, nor anything be written after the end.
        assert_eq!(
            timed.write(b"x").unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        drop(timed);
        dripping.join().unwrap();
    }
}
