//! System calls that no safe crate offers: interface ioctls for IPv6, and packet sockets.

#![allow(
    unsafe_code,
    reason = "ioctls and packet sockets take pointers to structures that the kernel defines; each \
              call passes one live, fully initialised value of the size that it states"
)]

use std::{
    ffi::c_int,
    io,
    mem::{size_of, zeroed},
    net::Ipv6Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// `struct in6_ifreq` of `linux/ipv6.h`.
#[repr(C)]
struct In6Ifreq {
    addr: [u8; 16],
    prefix: u32,
    index: c_int,
}

/// `struct in6_rtmsg` of `linux/ipv6_route.h`.
#[repr(C)]
struct In6Rtmsg {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_len: u16,
    source_len: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: c_int,
}

/// `RTF_UP | RTF_GATEWAY`
const GATEWAY_ROUTE: u32 = 3;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is ours alone.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::socket(
            family, kind, protocol,
        ))?))
    }
}

fn index(interface: &str) -> io::Result<c_int> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// Sets an interface up.
pub(crate) fn link_up(interface: &str) -> io::Result<()> {
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all zeroes is a valid ifreq; the name stays shorter than its field.
    unsafe {
        let mut request: libc::ifreq = zeroed();
        for (to, from) in request.ifr_name.iter_mut().take(15).zip(interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        #[allow(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
        let up = libc::IFF_UP as i16;
        request.ifr_ifru.ifru_flags |= up;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw mut request,
        ))?;
    }
    Ok(())
}

/// Adds an address with its on-link prefix.
pub(crate) fn add_address(interface: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    let request = In6Ifreq {
        addr: address.octets(),
        prefix: prefix.into(),
        index: index(interface)?,
    };
    // SAFETY: the request lives through the call and has the kernel's layout.
    unsafe {
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFADDR,
            &raw const request,
        ))?
    };
    Ok(())
}

/// Adds a default route.
pub(crate) fn add_default_route(interface: &str, gateway: Ipv6Addr) -> io::Result<()> {
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    let request = In6Rtmsg {
        destination: [0; 16],
        source: [0; 16],
        gateway: gateway.octets(),
        kind: 0,
        destination_len: 0,
        source_len: 0,
        metric: 1024,
        info: 0,
        flags: GATEWAY_ROUTE,
        index: index(interface)?,
    };
    // SAFETY: as above.
    unsafe {
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCADDRT,
            &raw const request,
        ))?
    };
    Ok(())
}

/// A socket for whole Ethernet frames of one interface.
pub(crate) struct Frames(OwnedFd);

impl Frames {
    /// Opens it.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, all.into())?;
        // SAFETY: all zeroes is a valid address; its size is stated.
        unsafe {
            let mut address: libc::sockaddr_ll = zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = index(interface)?;
            check(libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            ))?;
        }
        Ok(Self(socket))
    }

    /// Sends one frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.0, frame)?;
        Ok(())
    }

    /// What arrives within a time; frames that this guest sends are left out.
    pub(crate) fn capture(&self, time: Duration) -> io::Result<Vec<Vec<u8>>> {
        let end = Instant::now() + time;
        let mut frames = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            let mut poll = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let mut buffer = [0u8; 2048];
            // SAFETY: one pollfd; the buffer's and the address' sizes are stated.
            let (length, direction) = unsafe {
                if check(libc::poll(&raw mut poll, 1, millis))? == 0 {
                    return Ok(frames);
                }
                let mut address: libc::sockaddr_ll = zeroed();
                let mut size = size_of::<libc::sockaddr_ll>() as u32;
                let length = libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut address).cast(),
                    &raw mut size,
                );
                (
                    usize::try_from(length).map_err(|_| io::Error::last_os_error())?,
                    address,
                )
            };
            if direction.sll_pkttype != libc::PACKET_OUTGOING {
                frames.push(buffer[..length].to_vec());
            }
        }
    }
}

/// Turns the machine off.
pub(crate) fn power_off() -> io::Result<()> {
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

/// Resets the machine.
pub(crate) fn restart() -> io::Result<()> {
    rustix::system::reboot(rustix::system::RebootCommand::Restart)?;
    Ok(())
}
