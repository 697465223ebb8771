//! Making taps, through `/dev/net/tun`.

use std::{
    ffi::c_void,
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    ioctl::{self, Ioctl, IoctlOutput, Opcode},
};

use crate::{error::Error, guest::TapName, offloads::Offloads};

/// Of `linux/if_tun.h`: Ethernet frames, without a header of the protocol, with one of virtio's
/// offloads, and only if no such tap exists.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;
/// `TUNSETIFF`.
const SET_INTERFACE: Opcode = ioctl::opcode::write::<i32>(b'T', 202);

/// `struct ifreq` as far as `TUNSETIFF` knows it: 40 bytes, on 64-bit machines.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// SAFETY: The opcode is TUNSETIFF; the kernel reads a struct ifreq (40 bytes) and writes one back,
// to the pointer that it gets, and keeps none. `Request` has that size and lives as long as the
// call, being borrowed mutably; all its bytes are plain numbers, for which any value will do.
#[allow(
    unsafe_code,
    reason = "no safe wrapper of TUNSETIFF is known; the crate's one unsafe place"
)]
unsafe impl Ioctl for &mut Request {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        SET_INTERFACE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut::<Request>(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

const _: () = assert!(size_of::<Request>() == 40, "not the kernel's struct ifreq");

/// `TUNSETVNETHDRSZ`.
const SET_HEADER_SIZE: Opcode = ioctl::opcode::write::<i32>(b'T', 216);
/// `TUNSETOFFLOAD`, whose argument is a number, not a pointer.
const SET_OFFLOADS: Opcode = ioctl::opcode::write::<u32>(b'T', 208);

/// Makes a tap that lives as long as the returned descriptor, or a copy of it.
///
/// # Errors
/// When there is one of this name, or the kernel refuses.
pub(crate) fn create(tap: &TapName) -> Result<OwnedFd, Error> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| Error::Kernel {
            what: format!("make the tap {tap}"),
            source,
        })?;
    set_interface(&file, tap)?;
    Ok(file.into())
}

/// Gives a descriptor whose tap was removed a new one: whoever holds a copy of it,
/// such as QEMU, goes on with the new tap. QEMU tells a tap of its guest's driver when
/// that starts, and does not know of this one: so it is told here.
///
/// # Errors
/// When it still has a tap, when there is one of this name, or the kernel refuses.
pub(crate) fn reattach(
    descriptor: &OwnedFd,
    tap: &TapName,
    offloads: Offloads,
) -> Result<(), Error> {
    set_interface(descriptor, tap)?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    #[allow(unsafe_code, reason = "as above")]
    let set = unsafe {
        let size = ioctl::Setter::<SET_HEADER_SIZE, i32>::new(offloads.header_size);
        ioctl::ioctl(descriptor, size)
    };
    set.map_err(|e| Error::Kernel {
        what: format!("set the header's size of the tap {tap}"),
        source: e.into(),
    })?;
    let set = match set_offloads(descriptor, offloads.flags) {
        Err(Errno::INVAL) => set_offloads(descriptor, offloads.without_udp_segments().flags),
        other => other,
    };
    set.map_err(|e| Error::Kernel {
        what: format!("set the offloads of the tap {tap}"),
        source: e.into(),
    })
}

fn set_offloads(descriptor: &OwnedFd, flags: u32) -> Result<(), Errno> {
    let flags = usize::try_from(flags).map_err(|_| Errno::INVAL)?;
    // SAFETY: TUNSETOFFLOAD takes its argument as a number.
    #[allow(unsafe_code, reason = "as above")]
    unsafe {
        ioctl::ioctl(
            descriptor,
            ioctl::IntegerSetter::<SET_OFFLOADS>::new_usize(flags),
        )
    }
}

fn set_interface(descriptor: impl AsFd, tap: &TapName) -> Result<(), Error> {
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL,
        rest: [0; 22],
    };
    // The last byte stays 0; names of taps are shorter.
    for (to, from) in request.name.iter_mut().take(15).zip(tap.as_str().bytes()) {
        *to = from;
    }
    // SAFETY: A descriptor of /dev/net/tun knows TUNSETIFF as described above; one of
    // anything else refuses it or, at worst, reads those 40 bytes.
    #[allow(unsafe_code, reason = "as above")]
    let made = unsafe { ioctl::ioctl(descriptor, &mut request) };
    match made {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Error::TapInUse {
            tap: tap.to_string(),
        }),
        Err(e) => Err(Error::Kernel {
            what: format!("make the tap {tap}"),
            source: e.into(),
        }),
    }
}
