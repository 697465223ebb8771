//! The policy that an SNP guest is launched with.

use std::fmt;

use super::error::MeasureError;

/// A guest policy that the firmware takes: bit 17 is set, bits above 25 are not (AMD 56860,
/// section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    /// The usual one: SMT is allowed, nothing else is.
    pub const USUAL: Self = Self(0x3_0000);

    /// The policy of these bits.
    ///
    /// # Errors
    /// When no guest is launched with them.
    pub fn new(bits: u64) -> Result<Self, MeasureError> {
        match bits >> 17 & 1 == 1 && bits >> 26 == 0 {
            true => Ok(Self(bits)),
            false => Err(MeasureError::GuestPolicy(bits)),
        }
    }

    /// As the firmware takes it.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_firmware_launches_is_refused() {
        for bits in [0x3_0000, 0x2_0000, 0x3ff_ffff] {
            assert_eq!(GuestPolicy::new(bits).unwrap().bits(), bits);
        }
        for bits in [0, 0x1_0000, 0x403_0000, u64::MAX] {
            assert_eq!(GuestPolicy::new(bits), Err(MeasureError::GuestPolicy(bits)));
        }
        assert_eq!(GuestPolicy::USUAL.to_string(), "0x30000");
    }
}
