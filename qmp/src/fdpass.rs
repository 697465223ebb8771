//! Writing to the socket, with a descriptor beside the first byte where the command needs one.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Writes all of `bytes`. The descriptor travels with the first of them (`SCM_RIGHTS`), so QEMU
/// has it when it reads the command. Not safe to cancel: part of the bytes may be written.
pub(crate) async fn send_all(
    stream: &UnixStream,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut rest = bytes;
    let mut fd = fd;
    while !rest.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                send_once(stream, rest, fd.as_slice())
            })
            .await?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        fd = None;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

fn send_once(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    Ok(sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}
