//! One agent for each network namespace: taps and firewall can have one owner only.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use crate::error::Error;

/// What names in the abstract namespace begin with. The kernel keeps one such namespace for each
/// network namespace, and forgets a name with the last descriptor of its socket.
const PREFIX: &str = "crn-agent/network/";

/// What an agent that was killed was about to run has its descriptors until it is executed.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// Says that this process has the network namespace; as long as it lives.
#[derive(Debug)]
pub struct Claim {
    _socket: UnixListener,
}

impl Claim {
    /// Claims the network namespace of the calling thread. Changes nothing else.
    ///
    /// Each agent has a name of its own, so that nobody can keep agents from starting by taking a
    /// name first; names of other users than root do not count.
    ///
    /// # Errors
    /// [`Error::AnotherAgent`], or when the kernel gives no socket.
    pub fn take() -> Result<Self, Error> {
        // Two in one process are two.
        let mut number = 0u32;
        let socket = loop {
            let name = format!("{PREFIX}{}.{number}", std::process::id());
            let address = SocketAddr::from_abstract_name(name.as_bytes()).map_err(refused)?;
            match UnixListener::bind_addr(&address) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && number < 64 => number += 1,
                bound => break bound.map_err(refused)?,
            }
        };
        let own = socket.local_addr().map_err(refused)?;
        let end = Instant::now() + LAST_BREATH;
        loop {
            match holder(own.as_abstract_name()).map_err(refused)? {
                None => return Ok(Self { _socket: socket }),
                Some(pid) if is_running(pid) || Instant::now() >= end => {
                    return Err(Error::AnotherAgent { pid });
                }
                Some(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The process id of the agent that has this network namespace, if there is one.
    ///
    /// # Errors
    /// When the kernel does not list its sockets.
    pub fn holder() -> Result<Option<i32>, Error> {
        holder(None).map_err(refused)
    }
}

fn refused(source: io::Error) -> Error {
    Error::Kernel {
        what: "claim the network namespace".into(),
        source,
    }
}

/// Whether there is such a process, one that is not only waited for.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The process of an agent other than the one of a name.
fn holder(own: Option<&[u8]>) -> io::Result<Option<i32>> {
    let list = fs::read("/proc/thread-self/net/unix")?;
    let names = list.split(|b| *b == b'\n').filter_map(|line| {
        let at = line
            .windows(PREFIX.len() + 1)
            .position(|w| w.split_first() == Some((&b'@', PREFIX.as_bytes())))?;
        line.get(at + 1..)
    });
    for name in names.filter(|name| own != Some(*name)) {
        let address = SocketAddr::from_abstract_name(name)?;
        // One that is gone meanwhile holds nothing; one that cannot be asked may.
        let stream = match UnixStream::connect_addr(&address) {
            Ok(stream) => stream,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let peer = sockopt::socket_peercred(&stream)?;
        if peer.uid.is_root() {
            return Ok(Some(peer.pid.as_raw_nonzero().get()));
        }
        tracing::warn!(
            "a process of user {} poses as an agent of this network namespace; it is ignored",
            peer.uid.as_raw()
        );
    }
    Ok(None)
}
