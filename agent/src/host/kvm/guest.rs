//! The guest of the probe: a 64-bit program, its machine state, and the same
//! computation in Rust.
//!
//! Invariant: [`PROGRAM`] and [`expected`] compute the same thing; the probe
//! compares them on every run.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Size of the guest's memory, bytes: one large page.
pub(super) const MEMORY: usize = 2 << 20;

const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
const CODE: u64 = 0x8000;
const RESULT: u64 = 0xA000;
const STACK: u64 = 0x10_000;

/// An odd multiplier with well spread bits (Knuth's MMIX generator).
const FACTOR: u64 = 6_364_136_223_846_793_005;
/// Where the computation starts.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Instructions of one turn of the loop.
pub(super) const INSTRUCTIONS_PER_TURN: u64 = 11;

/// `rax` the value, `rbx` the sum, `rcx` turns left, `rdx` the factor, `rdi` the result's place.
#[rustfmt::skip]
const PROGRAM: &[u8] = &[
    // turn:
    0x48, 0x0F, 0xAF, 0xC2,       // imul rax, rdx
    0x48, 0x89, 0xC6,             // mov  rsi, rax
    0x48, 0xC1, 0xEE, 0x1D,       // shr  rsi, 29
    0x48, 0x31, 0xF0,             // xor  rax, rsi
    0x48, 0x89, 0xC6,             // mov  rsi, rax
    0x48, 0xC1, 0xE6, 0x11,       // shl  rsi, 17
    0x48, 0x31, 0xF0,             // xor  rax, rsi
    0x48, 0x01, 0xC3,             // add  rbx, rax
    0x48, 0xC1, 0xC3, 0x07,       // rol  rbx, 7
    0x48, 0xFF, 0xC9,             // dec  rcx
    0x75, 0xDC,                   // jnz  turn (-36)
    0x48, 0x89, 0x1F,             // mov  [rdi], rbx
    0x48, 0x89, 0x47, 0x08,       // mov  [rdi+8], rax
    0xF4,                         // hlt
];

/// A program that never ends: what the watchdog is tested with.
#[cfg(test)]
pub(super) const ENDLESS: &[u8] = &[0xEB, 0xFE]; // jmp $

/// The program.
pub(super) fn program() -> &'static [u8] {
    PROGRAM
}

/// What the program leaves behind after `turns` turns: sum and value.
pub(super) fn expected(turns: u64) -> (u64, u64) {
    let (mut value, mut sum) = (SEED, 0u64);
    for _ in 0..turns {
        value = value.wrapping_mul(FACTOR);
        value ^= value >> 29;
        value ^= value << 17;
        sum = sum.wrapping_add(value).rotate_left(7);
    }
    (sum, value)
}

/// Writes GDT, identity page tables for the first 2 MiB (AMD64 manual volume 2,
/// section 5.3: one large page) and the program.
pub(super) fn load(memory: &GuestMemoryMmap, program: &[u8]) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    memory.write_obj(PDPT | PRESENT_WRITABLE, GuestAddress(PML4))?;
    memory.write_obj(PD | PRESENT_WRITABLE, GuestAddress(PDPT))?;
    memory.write_obj(PRESENT_WRITABLE | LARGE, GuestAddress(PD))?;
    // Null, 64-bit code (L, P, S, execute/read, accessed), data (P, S, read/write, accessed).
    let gdt = [0u64, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
    for (i, entry) in (0u64..).zip(gdt) {
        memory.write_obj(entry, GuestAddress(GDT + 8 * i))?;
    }
    memory.write_slice(program, GuestAddress(CODE))
}

/// Registers at the program's start.
pub(super) fn registers(turns: u64) -> kvm_regs {
    kvm_regs {
        rip: CODE,
        rsp: STACK,
        rflags: 2,
        rax: SEED,
        rcx: turns,
        rdx: FACTOR,
        rdi: RESULT,
        ..kvm_regs::default()
    }
}

/// Turns the reset state into long mode at ring 0.
pub(super) fn enter_long_mode(s: &mut kvm_sregs) {
    let code = kvm_segment {
        base: 0,
        limit: 0xFFFF_FFFF,
        selector: 8,
        type_: 11,
        present: 1,
        dpl: 0,
        db: 0,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 16,
        type_: 3,
        db: 1,
        l: 0,
        ..code
    };
    s.cs = code;
    for segment in [&mut s.ds, &mut s.es, &mut s.fs, &mut s.gs, &mut s.ss] {
        *segment = data;
    }
    s.gdt.base = GDT;
    s.gdt.limit = 23;
    s.cr3 = PML4;
    s.cr4 |= 1 << 5; // PAE
    s.cr0 |= (1 << 31) | (1 << 5) | 1; // PG, NE, PE
    s.efer |= (1 << 10) | (1 << 8); // LMA, LME
}

/// What the program left behind: sum and value.
pub(super) fn result(memory: &GuestMemoryMmap) -> Result<(u64, u64), GuestMemoryError> {
    Ok((
        memory.read_obj(GuestAddress(RESULT))?,
        memory.read_obj(GuestAddress(RESULT + 8))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_mixes_and_depends_on_every_turn() {
        assert_eq!(expected(0), (0, SEED));
        let results: std::collections::BTreeSet<_> = (0..1000).map(expected).collect();
        assert_eq!(results.len(), 1000);
    }

    #[test]
    fn the_jump_goes_back_to_the_first_instruction() {
        let jump = PROGRAM.windows(2).position(|w| w == [0x75, 0xDC]).unwrap();
        let target = jump as i64 + 2 + i64::from(0xDCu8.cast_signed());
        assert_eq!(target, 0);
    }
}
