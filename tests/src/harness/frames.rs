//! Ethernet frames that no decent guest sends.

use std::net::Ipv6Addr;

/// Six octets.
pub type MacAddress = [u8; 6];

const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// UDP over IPv6 with a right checksum; pairs are source and destination.
    #[must_use]
    pub fn udp(
        macs: (MacAddress, MacAddress),
        ips: (Ipv6Addr, Ipv6Addr),
        ports: (u16, u16),
        payload: &[u8],
    ) -> Self {
        let mut segment = Vec::new();
        segment.extend(ports.0.to_be_bytes());
        segment.extend(ports.1.to_be_bytes());
        segment.extend(length(payload.len() + 8).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        Self::ipv6(macs, ips, UDP, 64, segment, 6)
    }

    /// An ICMPv6 message (RFC 4443) with hop limit 255, as neighbour discovery needs it.
    #[must_use]
    pub fn icmpv6(
        macs: (MacAddress, MacAddress),
        ips: (Ipv6Addr, Ipv6Addr),
        kind: u8,
        body: &[u8],
    ) -> Self {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(body);
        Self::ipv6(macs, ips, ICMPV6, 255, message, 2)
    }

    /// A router advertisement (RFC 4861, section 4.2) that makes its sender everybody's router
    /// and hands out a prefix.
    #[must_use]
    pub fn router_advertisement(from: (MacAddress, Ipv6Addr), prefix: Ipv6Addr) -> Self {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut body = vec![64, 0, 0x07, 0x08];
        body.extend([0; 8]);
        // Prefix information: /64, on-link, autonomous, for an hour.
        body.extend([3, 4, 64, 0xc0]);
        body.extend(3600u32.to_be_bytes());
        body.extend(3600u32.to_be_bytes());
        body.extend([0; 4]);
        body.extend(prefix.octets());
        Self::icmpv6(
            (from.0, [0x33, 0x33, 0, 0, 0, 1]),
            (from.1, all_nodes),
            134,
            &body,
        )
    }

    /// `sum_at` is where in the payload its checksum goes.
    fn ipv6(
        macs: (MacAddress, MacAddress),
        ips: (Ipv6Addr, Ipv6Addr),
        next_header: u8,
        hop_limit: u8,
        mut payload: Vec<u8>,
        sum_at: usize,
    ) -> Self {
        let sum = checksum(ips, next_header, &payload);
        payload[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = Vec::new();
        frame.extend(macs.1);
        frame.extend(macs.0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length(payload.len()).to_be_bytes());
        frame.extend([next_header, hop_limit]);
        frame.extend(ips.0.octets());
        frame.extend(ips.1.octets());
        frame.extend(payload);
        Self(frame)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The checksum of RFC 8200, section 8.1; the checksum field in `payload` is zero.
fn checksum(ips: (Ipv6Addr, Ipv6Addr), next_header: u8, payload: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(ips.0.octets());
    bytes.extend(ips.1.octets());
    bytes.extend(u32::from(length(payload.len())).to_be_bytes());
    bytes.extend([0, 0, 0, next_header]);
    bytes.extend(payload);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let sum = !(sum as u16);
    if sum == 0 { 0xffff } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        // An echo request with identifier 1, sequence 1 and no data, summed by hand.
        let ips = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
        let frame = Frame::icmpv6(([2; 6], [4; 6]), ips, 128, &[0, 1, 0, 1]);
        let bytes = frame.bytes();
        assert_eq!(bytes.len(), 14 + 40 + 8);
        let mut with = bytes[54..].to_vec();
        let field = u16::from_be_bytes([with[2], with[3]]);
        (with[2], with[3]) = (0, 0);
        // fe80+1+fe80+2+8+3a+8000+1+1 = 27d47 -> 7d49 -> complement 82b6
        assert_eq!(field, 0x82b6);
        assert_eq!(checksum(ips, ICMPV6, &with), field);
    }
}
