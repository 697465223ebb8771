//! Where a guest is reached.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::channel::PORT;
use crate::endpoint::tls::Socket;

/// Where a guest is reached: by its address, or by a socket that relays to it. The way is trusted
/// with nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Host and port.
    Tcp(String, u16),
    /// A socket's path.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    /// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, an IPv6 address alone, any of these after `https://`, or
    /// `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: needs a path after it".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self::Tcp(rest.to_owned(), PORT));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => {
                let port = port.parse();
                (
                    host,
                    port.map_err(|_| format!("{text:?} has no port after its last colon"))?,
                )
            }
            _ => (rest, PORT),
        };
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match inner {
            Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
            None if !host.is_empty() && !host.contains(['[', ']', ':', '/', '@', '?', '#']) => host,
            _ => {
                return Err(format!(
                    "{text:?} is no address, as 192.0.2.1:8443 or [2001:db8::1]"
                ));
            }
        };
        Ok(Self::Tcp(host.to_owned(), port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// Connects, to the first of a name's addresses that answers within `time`.
    pub(super) fn connect(&self, time: Duration) -> io::Result<Box<dyn Socket + Send>> {
        let (host, port) = match self {
            Self::Unix(path) => return Ok(Box::new(UnixStream::connect(path)?)),
            Self::Tcp(host, port) => (host.as_str(), *port),
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, time) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Box::new(socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:8443"),
            ("192.0.2.1:24000", "192.0.2.1:24000"),
            ("https://192.0.2.1:24000/", "192.0.2.1:24000"),
            ("vm.example", "vm.example:8443"),
            ("2001:db8::1", "[2001:db8::1]:8443"),
            ("[2001:db8::1]", "[2001:db8::1]:8443"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("https://[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("unix:/run/vm/key.sock", "unix:/run/vm/key.sock"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), expected, "{text}");
            assert_eq!(target.to_string().parse(), Ok(target), "{text}");
        }
        for text in [
            "",
            ":1",
            "host:",
            "host:x",
            "host:65536",
            "a b@c:1",
            "http://host:1",
            "[host]:1",
            "[::1",
            "::1]:1",
            "https://host/path",
            "unix:",
            "[1.2.3.4]:1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
