//! Limits that a connection keeps to.

use std::time::Duration;

/// Time limits and sizes of one connection. The default suits a monitor on the same machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// For the socket to accept the connection. 5 s.
    pub connect_timeout: Duration,
    /// From the accepted connection to the end of the handshake: greeting and capabilities of a
    /// monitor, synchronisation with a guest agent. QEMU serves one client of a monitor socket at
    /// a time and leaves others waiting without a greeting. 10 s.
    pub greeting_timeout: Duration,
    /// For a command from the call to its reply, where the call names no limit of its own. 30 s.
    pub command_timeout: Duration,
    /// The longest line accepted from the peer, in bytes without the line end. 1 MiB: the longest
    /// answers tell of each block node or virtual CPU, some 2 KiB for each.
    pub max_line: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            greeting_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            max_line: 1 << 20,
        }
    }
}
