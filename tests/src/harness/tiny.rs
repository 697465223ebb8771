//! The small guest (`tests/guest`), told what to do.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use super::{Frame, Internet, PATIENCE, Result, wait_for};

/// A session with a small guest over its port 22.
#[derive(Debug)]
pub struct Tiny {
    address: Ipv6Addr,
    stream: BufReader<TcpStream>,
}

impl Tiny {
    /// Connects from the internet, waiting until the guest is up.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn connect(internet: &Internet, address: &str, patience: Duration) -> Result<Self> {
        let address: Ipv6Addr = address.parse()?;
        wait_for("the small guest", patience, || {
            internet
                .namespace()
                .enter(move || Self::session(address))
                .map(Some)
        })
    }

    fn session(address: Ipv6Addr) -> Result<Self> {
        let to = SocketAddr::from((address, 22));
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tiny = Self {
            address,
            stream: BufReader::new(stream),
        };
        let greeting = tiny.line()?;
        if greeting.starts_with("SSH-2.0-tiny") {
            Ok(tiny)
        } else {
            Err(format!("{address} greets with {greeting:?}").into())
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err("the small guest closed the connection".into());
        }
        Ok(line.trim().to_owned())
    }

    /// One command, as the guest's `control` module lists them; the words after `ok`.
    ///
    /// # Errors
    /// When the guest answers with an error or not at all.
    pub fn tell(&mut self, command: &str) -> Result<String> {
        self.begin(command)?;
        self.end(command)
    }

    /// Sends a command without waiting for its answer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn begin(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.stream.get_mut(), "{command}")?)
    }

    /// The answer to a command that was begun.
    ///
    /// # Errors
    /// As [`Tiny::tell`].
    pub fn end(&mut self, command: &str) -> Result<String> {
        let answer = self.line()?;
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => Err(format!("{}: {command}: {answer}", self.address).into()),
        }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// As [`Tiny::tell`].
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        self.tell(&format!("frame {}", hex::encode(frame.bytes())))
            .map(drop)
    }

    /// `open`, `refused` or `timeout`.
    ///
    /// # Errors
    /// As [`Tiny::tell`].
    pub fn probe(&mut self, to: Ipv6Addr, port: u16) -> Result<String> {
        self.tell(&format!("connect {to} {port} 2000"))
    }
}
