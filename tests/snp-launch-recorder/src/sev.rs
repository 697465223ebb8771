//! Commands to the security processor: of the guest through KVM, of the host to its device.

use std::{ptr::read_unaligned, slice::from_raw_parts};

use kvm_bindings::{
    KVM_SEV_SNP_ID_AUTH_SIZE, KVM_SEV_SNP_ID_BLOCK_SIZE, kvm_debugregs, kvm_regs, kvm_sev_cmd,
    kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update, kvm_sregs,
    kvm_xcrs, sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};
use libc::{c_int, c_ulong};

use crate::{VCPUS, Vcpu, real, record, request};

/// SEV_PLATFORM_STATUS of linux/psp-sev.h.
const PLATFORM_STATUS: u32 = 1;
/// MSR IA32_PAT.
const PAT: u32 = 0x277;

/// `struct sev_issue_cmd`.
#[repr(C, packed)]
pub(crate) struct IssueCommand {
    cmd: u32,
    data: u64,
    error: u32,
}

/// `struct sev_user_data_status`.
#[repr(C, packed)]
struct PlatformStatus {
    api_major: u8,
    api_minor: u8,
    state: u8,
    flags: u32,
    build: u8,
    guest_count: u32,
}

/// `struct kvm_msrs` with one entry.
#[repr(C)]
struct OneMsr {
    count: u32,
    pad: u32,
    index: u32,
    reserved: u32,
    data: u64,
}

fn unknown(what: &str, number: u32) -> c_int {
    eprintln!("snp-launch-recorder: unknown {what} command {number}");
    std::process::abort();
}

/// The memory of a struct of the kernel's.
///
/// # Safety
/// It must have no padding, or none that was never written.
unsafe fn memory<T>(value: &T) -> &[u8] {
    // SAFETY: these bytes are the value's, for as long as it lives.
    unsafe { from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

/// A command about the platform.
///
/// # Safety
/// The command must be one of linux/psp-sev.h.
pub(crate) unsafe fn platform_command(command: *mut IssueCommand) -> c_int {
    // SAFETY: by the caller.
    let asked = unsafe { command.read_unaligned() };
    if asked.cmd != PLATFORM_STATUS {
        return unknown("platform", asked.cmd);
    }
    let status = PlatformStatus {
        api_major: 1,
        api_minor: 55,
        state: 1,
        flags: 1 << 8,
        build: 1,
        guest_count: 0,
    };
    // SAFETY: the command's data is room for a status.
    unsafe {
        (asked.data as usize as *mut PlatformStatus).write_unaligned(status);
        (&raw mut (*command).error).write_unaligned(0);
    }
    0
}

/// A command about the guest; none asks whether there are any.
///
/// # Safety
/// The command must be one of linux/kvm.h with the data that it says.
pub(crate) unsafe fn guest_command(command: *mut kvm_sev_cmd) -> c_int {
    if command.is_null() {
        return 0;
    }
    // SAFETY: by the caller.
    let asked = unsafe { read_unaligned(command) };
    let data = asked.data as usize;
    match asked.id {
        id if id == sev_cmd_id_KVM_SEV_INIT2 => {}
        id if id == sev_cmd_id_KVM_SEV_SNP_LAUNCH_START => {
            // SAFETY: such a command's data is such a struct; so below.
            let start = unsafe { read_unaligned(data as *const kvm_sev_snp_launch_start) };
            // SAFETY: QEMU wrote all of it; so below.
            record::add(1, &[unsafe { memory(&start) }]);
        }
        id if id == sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE => unsafe {
            update(data as *mut kvm_sev_snp_launch_update);
        },
        id if id == sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH => {
            // SAFETY: as above.
            let finish = unsafe { read_unaligned(data as *const kvm_sev_snp_launch_finish) };
            vcpus();
            // SAFETY: as above; the addresses are those of the blocks.
            unsafe { self::finish(&finish) };
        }
        other => return unknown("guest", other),
    }
    0
}

/// Records pages; the kernel says in the same struct how far it came.
unsafe fn update(update: *mut kvm_sev_snp_launch_update) {
    // SAFETY: by the caller.
    let mut done = unsafe { read_unaligned(update) };
    let address = done.gfn_start << 12;
    // SAFETY: the pages are in QEMU's memory, at this address.
    let bytes = unsafe { from_raw_parts(done.uaddr as usize as *const u8, done.len as usize) };
    let kind = u64::from(done.type_);
    record::add(2, &[&address.to_le_bytes(), &kind.to_le_bytes(), bytes]);
    done.gfn_start += done.len >> 12;
    done.uaddr += done.len;
    done.len = 0;
    // SAFETY: by the caller.
    unsafe { update.write_unaligned(done) };
}

/// Records what the kernel would make the vCPUs' state of.
fn vcpus() {
    let Ok(vcpus) = VCPUS.lock() else { return };
    let mut vcpus = vcpus.clone();
    vcpus.sort_unstable();
    for Vcpu { number, fd, float } in vcpus {
        let regs = ask(fd, request::GET_REGS, kvm_regs::default());
        let sregs = ask(fd, request::GET_SREGS, kvm_sregs::default());
        let debug = ask(fd, request::GET_DEBUGREGS, kvm_debugregs::default());
        let xcrs = ask(fd, request::GET_XCRS, kvm_xcrs::default());
        let pat = OneMsr {
            count: 1,
            pad: 0,
            index: PAT,
            reserved: 0,
            data: 0,
        };
        let pat = ask(fd, request::GET_MSRS, pat).data.to_le_bytes();
        // SAFETY: the kernel wrote them, over zeros.
        let parts = unsafe { [memory(&regs), memory(&sregs), memory(&debug), memory(&xcrs)] };
        let number = number.to_le_bytes();
        let [regs, sregs, debug, xcrs] = parts;
        record::add(3, &[&number, regs, sregs, debug, xcrs, &pat, &float]);
    }
}

/// What a vCPU answers; QEMU ends when it does not.
fn ask<T>(fd: c_int, request: c_ulong, mut answer: T) -> T {
    if real(fd, request, (&raw mut answer).cast()) < 0 {
        eprintln!("snp-launch-recorder: request {request:#x} of a vCPU failed");
        std::process::abort();
    }
    answer
}

/// Records the end of the launch.
unsafe fn finish(finish: &kvm_sev_snp_launch_finish) {
    let block = |address: u64, len: u32| {
        // SAFETY: by the caller.
        unsafe { from_raw_parts(address as usize as *const u8, len as usize) }
    };
    // SAFETY: QEMU wrote all of it.
    let mut parts = vec![unsafe { memory(finish) }];
    if finish.id_block_en != 0 {
        parts.push(block(finish.id_block_uaddr, KVM_SEV_SNP_ID_BLOCK_SIZE));
        parts.push(block(finish.id_auth_uaddr, KVM_SEV_SNP_ID_AUTH_SIZE));
    }
    record::add(4, &parts);
}
