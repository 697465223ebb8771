//! A library that a test has QEMU load first (`LD_PRELOAD`). It stands between QEMU and the
//! kernel: questions about SEV-SNP are answered as a host with it would, everything else goes
//! on to the real KVM. So the real QEMU goes through its whole launch of an SNP guest on any
//! machine with `/dev/kvm`, and what it gives to the security processor is recorded.
//!
//! The record is the open file among QEMU's descriptors that begins with [`MAGIC`]. Behind
//! that come entries: kind and length, 8 bytes each, little-endian, then the content:
//!
//! | kind | content |
//! |---|---|
//! | 1 | launch start: `kvm_sev_snp_launch_start` |
//! | 2 | launch update: guest address and page type, 8 bytes each, then the bytes |
//! | 3 | a vCPU, when the launch is finished: its number (8 bytes), `kvm_regs`, `kvm_sregs`, `kvm_debugregs`, `kvm_xcrs`, the PAT (8 bytes), FCW, FSW (2 bytes each) and MXCSR (4) |
//! | 4 | launch finish: `kvm_sev_snp_launch_finish`, ID block and ID auth where there are any |
//!
//! Nothing is encrypted, and the guest runs on after the launch as any other. Sources: the
//! kernel's Documentation/virt/kvm/{api,x86/amd-memory-encryption}.rst, linux/psp-sev.h.

#![allow(
    unsafe_code,
    reason = "it speaks the C library's and the kernel's interfaces, by pointers"
)]

mod record;
mod sev;

use std::{
    ptr::{null_mut, read_unaligned},
    sync::Mutex,
};

use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_GUEST_MEMFD, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_USER_MEMORY2,
    KVM_CAP_VM_TYPES, KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_X86_SNP_VM,
    kvm_enable_cap, kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use libc::{c_char, c_int, c_long, c_ulong, c_void};

pub use self::record::MAGIC;

/// Requests of linux/kvm.h and linux/psp-sev.h.
mod request {
    use libc::c_ulong;

    pub(crate) const CREATE_VM: c_ulong = 0xae01;
    pub(crate) const CHECK_EXTENSION: c_ulong = 0xae03;
    pub(crate) const CREATE_VCPU: c_ulong = 0xae41;
    pub(crate) const SET_USER_MEMORY_REGION: c_ulong = 0x4020_ae46;
    pub(crate) const SET_USER_MEMORY_REGION2: c_ulong = 0x40a0_ae49;
    pub(crate) const ENABLE_CAP: c_ulong = 0x4068_aea3;
    pub(crate) const MEMORY_ENCRYPT_OP: c_ulong = 0xc008_aeba;
    pub(crate) const SET_MEMORY_ATTRIBUTES: c_ulong = 0x4020_aed2;
    pub(crate) const CREATE_GUEST_MEMFD: c_ulong = 0xc040_aed4;
    pub(crate) const GET_REGS: c_ulong = 0x8090_ae81;
    pub(crate) const GET_SREGS: c_ulong = 0x8138_ae83;
    pub(crate) const GET_MSRS: c_ulong = 0xc008_ae88;
    pub(crate) const SET_FPU: c_ulong = 0x41a0_ae8d;
    pub(crate) const SET_XSAVE: c_ulong = 0x5000_aea5;
    pub(crate) const GET_DEBUGREGS: c_ulong = 0x8080_aea1;
    pub(crate) const GET_XCRS: c_ulong = 0x8188_aea6;
    pub(crate) const SEV_ISSUE_CMD: c_ulong = 0xc010_5300;
}

/// A vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Vcpu {
    number: u64,
    fd: c_int,
    /// FCW, FSW and MXCSR as QEMU set them last: a KVM that emulates may not give them back.
    float: [u8; 8],
}

static VCPUS: Mutex<Vec<Vcpu>> = Mutex::new(Vec::new());

/// Remembers what QEMU sets of the floating-point unit, from where these registers are.
///
/// # Safety
/// There must be a struct of that kind at `from`.
unsafe fn set_float(fd: c_int, from: *const u8, control: usize, mxcsr: usize) {
    // SAFETY: by the caller.
    let (words, mxcsr) = unsafe {
        let words = from.add(control).cast::<[u8; 4]>().read_unaligned();
        (words, from.add(mxcsr).cast::<[u8; 4]>().read_unaligned())
    };
    let mut float = [0; 8];
    for (to, byte) in float.iter_mut().zip(words.into_iter().chain(mxcsr)) {
        *to = byte;
    }
    if let Ok(mut vcpus) = VCPUS.lock() {
        for vcpu in vcpus.iter_mut().filter(|vcpu| vcpu.fd == fd) {
            vcpu.float = float;
        }
    }
}

/// ioctl(2) as the kernel has it.
fn real(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: the same call with the same arguments; errno is the C library's to set.
    let answer: c_long = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) };
    // What ioctl(2) answers is an int.
    answer as c_int
}

/// ioctl(2) as QEMU calls it. In C it takes any number of arguments; on x86-64 these three
/// are in the same registers either way.
///
/// # Safety
/// As ioctl(2): the argument must be what the request wants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let number = argument.addr() as u64;
    match request {
        request::CREATE_VM if number == u64::from(KVM_X86_SNP_VM) => real(fd, request, null_mut()),
        request::CHECK_EXTENSION => extension(real(fd, request, argument), number),
        request::CREATE_VCPU => {
            let vcpu = real(fd, request, argument);
            if let (true, Ok(mut vcpus)) = (vcpu >= 0, VCPUS.lock()) {
                vcpus.push(Vcpu {
                    number,
                    fd: vcpu,
                    float: [0; 8],
                });
            }
            vcpu
        }
        request::SET_FPU => {
            // SAFETY: the argument of this request is `kvm_fpu`.
            unsafe { set_float(fd, argument.cast(), 128, 408) };
            real(fd, request, argument)
        }
        request::SET_XSAVE => {
            // SAFETY: the argument of this request is `kvm_xsave`: an FXSAVE area first.
            unsafe { set_float(fd, argument.cast(), 0, 24) };
            real(fd, request, argument)
        }
        request::ENABLE_CAP => {
            // SAFETY: the argument of this request is this struct.
            let cap = unsafe { read_unaligned(argument.cast::<kvm_enable_cap>()) }.cap;
            match real(fd, request, argument) {
                -1 if cap == KVM_CAP_EXIT_HYPERCALL => 0,
                answer => answer,
            }
        }
        request::SET_MEMORY_ATTRIBUTES => 0,
        request::CREATE_GUEST_MEMFD => {
            let name: *const c_char = c"guest_memfd".as_ptr();
            // SAFETY: the name ends with a NUL.
            unsafe { libc::memfd_create(name, libc::MFD_CLOEXEC) }
        }
        request::SET_USER_MEMORY_REGION2 => {
            // SAFETY: the argument of this request is this struct.
            let region = unsafe { read_unaligned(argument.cast::<kvm_userspace_memory_region2>()) };
            let mut plain = kvm_userspace_memory_region {
                slot: region.slot,
                flags: region.flags & !KVM_MEM_GUEST_MEMFD,
                guest_phys_addr: region.guest_phys_addr,
                memory_size: region.memory_size,
                userspace_addr: region.userspace_addr,
            };
            let plain = (&raw mut plain).cast();
            real(fd, request::SET_USER_MEMORY_REGION, plain)
        }
        // SAFETY: the arguments of these requests are commands of SEV.
        request::MEMORY_ENCRYPT_OP => unsafe { sev::guest_command(argument.cast()) },
        // SAFETY: as above.
        request::SEV_ISSUE_CMD => unsafe { sev::platform_command(argument.cast()) },
        _ => real(fd, request, argument),
    }
}

/// What a host with SEV-SNP answers where the real one answers this.
fn extension(real: c_int, capability: u64) -> c_int {
    let is = |known: u32| capability == u64::from(known);
    if is(KVM_CAP_VM_TYPES) {
        real.max(0) | 1 << KVM_X86_SNP_VM
    } else if is(KVM_CAP_MEMORY_ATTRIBUTES) {
        KVM_MEMORY_ATTRIBUTE_PRIVATE as c_int
    } else if is(KVM_CAP_GUEST_MEMFD) || is(KVM_CAP_USER_MEMORY2) {
        1
    } else {
        real
    }
}
