//! The three functions that JavaScript calls: `alloc`, `verify`, `release`.
//!
//! The page allocates, writes its request there, calls `verify` and releases what it got. Passing
//! anything else breaks the page and nothing more: WebAssembly's memory is its own.

#![allow(
    unsafe_code,
    reason = "JavaScript hands over addresses; this is the one place that turns them into slices"
)]

use std::alloc::{Layout, alloc as allocate, dealloc};

/// Longest request, in bytes.
const MAX: usize = 64 << 20;

fn layout(len: usize) -> Option<Layout> {
    if len == 0 || len > MAX {
        return None;
    }
    Layout::array::<u8>(len).ok()
}

/// Memory for `len` bytes; null for none.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn alloc(len: usize) -> *mut u8 {
    match layout(len) {
        // SAFETY: the layout is not empty.
        Some(layout) => unsafe { allocate(layout) },
        None => std::ptr::null_mut(),
    }
}

/// Gives memory back.
///
/// # Safety
/// `address` came from [`alloc`] or [`verify`] with this `len`, and was not released yet.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn release(address: *mut u8, len: usize) {
    if let (false, Some(layout)) = (address.is_null(), layout(len)) {
        // SAFETY: the caller's promise; both allocate with this layout.
        unsafe { dealloc(address, layout) }
    }
}

/// Answers the request of `len` bytes at `address`; the answer's address is in the upper and its
/// length in the lower 32 bits.
///
/// # Safety
/// `address` came from [`alloc`] with this `len`, and was filled and not released.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn verify(address: *const u8, len: usize) -> u64 {
    let request = if address.is_null() || len > MAX {
        &[][..]
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(address, len) }
    };
    let answer = super::answer(&String::from_utf8_lossy(request));
    let target = alloc(answer.len());
    if target.is_null() {
        return 0;
    }
    // SAFETY: `target` has room for the answer and is new, so the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), target, answer.len()) };
    ((target as u64) << 32) | answer.len() as u64
}
