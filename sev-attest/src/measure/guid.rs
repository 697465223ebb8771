//! GUIDs as UEFI stores them: the first three fields little-endian.

use std::fmt;

/// A GUID in its 16-byte form inside firmware.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A GUID from the value of its text form read as one number, hyphens left out.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        let mut b = value.to_be_bytes();
        let swap = [(0, 3), (1, 2), (4, 5), (6, 7)];
        let mut i = 0;
        while i < swap.len() {
            let (x, y) = swap[i];
            let t = b[x];
            b[x] = b[y];
            b[y] = t;
            i += 1;
        }
        Self(b)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, tail @ ..] = self.0;
        let a = u32::from_le_bytes([a, b, c, d]);
        let b = u16::from_le_bytes([e, g]);
        let c = u16::from_le_bytes([h, i]);
        let [d, e, node @ ..] = tail;
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:02x}{e:02x}-")?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_endian_form_and_text() {
        let guid = Guid::from_u128(0x96b582de_1fb2_45f7_baea_a366c55a082d);
        assert_eq!(hex::encode(guid.0), "de82b596b21ff745baeaa366c55a082d");
        assert_eq!(guid.to_string(), "96b582de-1fb2-45f7-baea-a366c55a082d");
    }
}
