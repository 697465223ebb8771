//! How much a seed takes.

/// Most bytes of user data, decoded and decompressed: 256 KiB. NoCloud knows no limit; EC2's is
/// 16 KiB.
pub const MAX_USER_DATA: usize = 256 * 1024;
