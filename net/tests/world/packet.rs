//! Frames of a hostile guest's own making.

use std::net::{Ipv4Addr, Ipv6Addr};

use net::Mac;

pub const UDP: u8 = 17;
pub const ICMP6: u8 = 58;
pub const ROUTER_ADVERT: u8 = 134;
pub const NEIGHBOR_SOLICIT: u8 = 135;
pub const NEIGHBOR_ADVERT: u8 = 136;
pub const REDIRECT: u8 = 137;
pub const ECHO_REQUEST: u8 = 128;
pub const PACKET_TOO_BIG: u8 = 2;

fn sum(mut bytes: &[u8], mut sum: u32) -> u32 {
    while let [a, b, rest @ ..] = bytes {
        sum += u32::from(u16::from_be_bytes([*a, *b]));
        bytes = rest;
    }
    if let [a] = bytes {
        sum += u32::from(*a) << 8;
    }
    sum
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

/// A packet's addresses: link and network, from and to.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    pub mac: (Mac, Mac),
    pub ip: (Ipv6Addr, Ipv6Addr),
}

impl Path {
    /// IPv6 with any upper layer that begins right behind the header.
    pub fn ipv6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [0x60, 0, 0, 0, length[0], length[1], next, 255];
        let (from, to) = (self.ip.0.octets(), self.ip.1.octets());
        let packet = [&header[..], &from, &to, payload].concat();
        ethernet(self.mac.0, self.mac.1, 0x86dd, &packet)
    }

    fn checksum(&self, next: u8, payload: &[u8]) -> [u8; 2] {
        let length = u32::try_from(payload.len()).unwrap();
        let pseudo = [
            &self.ip.0.octets()[..],
            &self.ip.1.octets(),
            &length.to_be_bytes(),
        ]
        .concat();
        fold(sum(payload, sum(&pseudo, u32::from(next))))
    }

    pub fn udp_payload(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len() + 8).unwrap();
        let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
        let mut udp = [&from[..], &to, &length.to_be_bytes(), &[0, 0], data].concat();
        let sum = self.checksum(UDP, &udp);
        udp[6..8].copy_from_slice(&sum);
        udp
    }

    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        self.ipv6(UDP, &self.udp_payload(ports, data))
    }

    pub fn icmp6(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, 0, 0, 0], body].concat();
        let sum = self.checksum(ICMP6, &message);
        message[2..4].copy_from_slice(&sum);
        self.ipv6(ICMP6, &message)
    }

    /// The same in fragments, the first of which has no more than 8 bytes.
    pub fn fragments(&self, next: u8, payload: &[u8]) -> Vec<Vec<u8>> {
        let fragment = |at: usize, bytes: &[u8], more: u16| {
            let offset = u16::try_from(at).unwrap() | more;
            let head = [&[next, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7]].concat();
            self.ipv6(44, &[&head[..], bytes].concat())
        };
        vec![fragment(0, &payload[..8], 1), fragment(8, &payload[8..], 0)]
    }

    /// The same in two fragments of a number, cut at a multiple of 8 bytes.
    pub fn fragments_of(&self, next: u8, payload: &[u8], id: u32, cut: usize) -> Vec<Vec<u8>> {
        let fragment = |at: usize, bytes: &[u8], more: u16| {
            let offset = u16::try_from(at).unwrap() | more;
            let head = [&[next, 0][..], &offset.to_be_bytes(), &id.to_be_bytes()].concat();
            self.ipv6(44, &[&head[..], bytes].concat())
        };
        vec![
            fragment(0, &payload[..cut], 1),
            fragment(cut, &payload[cut..], 0),
        ]
    }

    /// With a routing header of type 0, by way of another address.
    pub fn routed(&self, via: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let head = [&[next, 2, 0, 1, 0, 0, 0, 0][..], &via.octets()].concat();
        self.ipv6(43, &[&head[..], payload].concat())
    }
}

pub fn ipv4_udp(
    mac: (Mac, Mac),
    ip: (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(data.len() + 8).unwrap();
    let total = (length + 20).to_be_bytes();
    let head = [0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, UDP, 0, 0];
    let mut header = [&head[..], &ip.0.octets(), &ip.1.octets()].concat();
    let check = fold(sum(&header, 0));
    header[10..12].copy_from_slice(&check);
    let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    // IPv4 allows UDP without a checksum.
    let udp = [&from[..], &to, &length.to_be_bytes(), &[0, 0], data].concat();
    ethernet(mac.0, mac.1, 0x0800, &[header, udp].concat())
}

fn ipv4(ip: (Ipv4Addr, Ipv4Addr), protocol: u8, id: u16, offset: u16, data: &[u8]) -> Vec<u8> {
    let total = u16::try_from(data.len() + 20).unwrap().to_be_bytes();
    let (id, offset) = (id.to_be_bytes(), offset.to_be_bytes());
    let head = [
        0x45, 0, total[0], total[1], id[0], id[1], offset[0], offset[1], 64, protocol, 0, 0,
    ];
    let mut header = [&head[..], &ip.0.octets(), &ip.1.octets()].concat();
    let check = fold(sum(&header, 0));
    header[10..12].copy_from_slice(&check);
    [&header[..], data].concat()
}

/// A datagram in two fragments.
pub fn ipv4_udp_halves(
    mac: (Mac, Mac),
    ip: (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    data: &[u8],
    id: u16,
) -> [Vec<u8>; 2] {
    const MORE: u16 = 0x2000;
    let length = u16::try_from(data.len() + 8).unwrap();
    let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    let udp = [&from[..], &to, &length.to_be_bytes(), &[0, 0], data].concat();
    let (first, second) = udp.split_at(800);
    [(0, first, MORE), (800 / 8, second, 0)].map(|(at, bytes, more)| {
        ethernet(mac.0, mac.1, 0x0800, &ipv4(ip, UDP, id, at | more, bytes))
    })
}

/// A ping with a number.
pub fn ipv4_ping(mac: (Mac, Mac), ip: (Ipv4Addr, Ipv4Addr), id: u16) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1]].concat();
    let check = fold(sum(&message, 0));
    message[2..4].copy_from_slice(&check);
    ethernet(mac.0, mac.1, 0x0800, &ipv4(ip, 1, id, 0, &message))
}

/// Who has this address, asked by that one.
pub fn arp_request(mac: Mac, from: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let arp = [&head[..], &mac.0, &from.octets(), &[0; 6], &wanted.octets()].concat();
    ethernet(mac, Mac([0xff; 6]), 0x0806, &arp)
}
