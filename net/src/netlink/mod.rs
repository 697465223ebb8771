//! Talking to the kernel: a batch of requests in one call, and dumps. The kernel answers a netlink
//! request before the call that sends it returns, so that nothing here waits; it is still called
//! from blocking tasks, as the kernel may hold its own locks for milliseconds.

pub(crate) mod nft;
pub(crate) mod route;

use std::io;

use netlink_packet_core::{
    ErrorBuffer, ErrorMessage, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkSerializable, Parseable,
};
use netlink_sys::{Socket, SocketAddr};

/// Message types that all protocols share.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Largest part of a dump that the kernel sends at once.
const DUMP_BUFFER: usize = 64 << 10;

const KERNEL: SocketAddrParts = (0, 0);
type SocketAddrParts = (u32, u32);

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    port: u32,
}

/// One message of a kernel's answer: its type and what follows the header.
pub(crate) struct Answer<'a> {
    pub(crate) kind: u16,
    pub(crate) payload: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

impl Netlink {
    /// Opens a socket of a protocol, in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        // Errors without the request that caused them: a batch has many.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            port,
        })
    }

    /// The socket's address, by which the kernel's events tell whose change they are.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Gives each message its number, and all of them to the kernel at once. The numbers are in
    /// order.
    fn send<M: NetlinkSerializable>(
        &mut self,
        messages: &mut [NetlinkMessage<M>],
    ) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.header.flags |= NLM_F_REQUEST;
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            if let Some(buffer) = bytes.get_mut(start..) {
                message.serialize(buffer);
            }
        }
        self.socket
            .send_to(&bytes, &SocketAddr::new(KERNEL.0, KERNEL.1), 0)?;
        Ok(first)
    }

    /// What the kernel said to some messages, as far as it is there: the message's place and its
    /// error, or none where it was told to acknowledge.
    fn acknowledgements(&self, first: u32) -> io::Result<Vec<(usize, Option<io::Error>)>> {
        let mut said = Vec::new();
        loop {
            let mut buffer = Vec::with_capacity(DUMP_BUFFER);
            match self
                .socket
                .recv(&mut buffer, rustix::net::RecvFlags::DONTWAIT.bits() as i32)
            {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(said),
                Err(e) => return Err(e),
                Ok(_) => {}
            }
            each(&buffer, |message| {
                if let (NLMSG_ERROR, Some(error)) = (message.message_type(), error(&message)?) {
                    let place = message.sequence_number().wrapping_sub(first) as usize;
                    said.push((place, error.code.map(|_| error.to_io())));
                }
                Ok(true)
            })?;
        }
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump<M: NetlinkSerializable>(
        &mut self,
        mut request: NetlinkMessage<M>,
        mut take: impl FnMut(Answer<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        request.header.flags |= NLM_F_DUMP;
        let sequence = self.send(std::slice::from_mut(&mut request))?;
        let mut more = true;
        while more {
            let mut buffer = Vec::with_capacity(DUMP_BUFFER);
            self.socket.recv(&mut buffer, 0)?;
            each(&buffer, |message| {
                if message.sequence_number() != sequence {
                    return Ok(true);
                }
                more = match message.message_type() {
                    NLMSG_DONE => false,
                    NLMSG_ERROR => match error(&message)? {
                        Some(e) if e.code.is_some() => return Err(e.to_io()),
                        _ => false,
                    },
                    kind => {
                        let payload = message.payload();
                        take(Answer {
                            kind,
                            payload,
                            bytes: message.into_inner(),
                        })?;
                        true
                    }
                };
                Ok(more)
            })?;
        }
        Ok(())
    }
}

fn error(message: &NetlinkBuffer<&[u8]>) -> io::Result<Option<ErrorMessage>> {
    let payload = message.payload();
    let parsed = ErrorBuffer::new_checked(&payload).and_then(|b| ErrorMessage::parse(&b));
    parsed.map(Some).map_err(malformed)
}

pub(crate) fn malformed(e: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("malformed netlink message: {e}"),
    )
}

/// Goes over the messages of a datagram, until told to stop.
pub(crate) fn each<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(NetlinkBuffer<&'a [u8]>) -> io::Result<bool>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(malformed)?;
        let length = message.length() as usize;
        let this = bytes
            .get(..length)
            .ok_or_else(|| malformed("it is cut short"))?;
        if !take(NetlinkBuffer::new(this))? {
            return Ok(());
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}
