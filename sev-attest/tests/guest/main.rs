//! Reports and keys from inside a guest, on a kernel that is simulated file by file and call by
//! call. The command itself is run where it must refuse: on a machine that is no guest.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod command;
mod configfs;
mod device;

/// A report with this data and VMPL. Its signature is none: a guest does not verify its report.
pub(crate) fn report(data: &[u8; 64], vmpl: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x4a0];
    bytes[0] = 2;
    bytes[0x30..0x34].copy_from_slice(&vmpl.to_le_bytes());
    bytes[0x50..0x90].copy_from_slice(data);
    bytes
}
