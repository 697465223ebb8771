//! The seed's `network-config`, version 2; pure.
//!
//! The interface is found by its MAC address, which netplan, systemd-networkd and
//! NetworkManager match themselves and for which cloud-init looks up the name where it writes
//! `/etc/network/interfaces`. Nothing is renamed.
//!
//! Default routes are written as `gateway4` and `gateway6`: netplan calls them deprecated, but
//! they work with every renderer, while `routes` becomes a call of `route`, which many images do
//! not have, in `/etc/network/interfaces`. Only a gateway outside the address's network needs
//! `routes`, with `on-link`.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{error::SeedError, quote::quote};

/// Most name servers; the resolver of glibc uses three.
const MAX_NAMESERVERS: usize = 8;

/// The one network interface of a VM. All addresses are static.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// MAC address of the interface.
    pub mac: [u8; 6],
    /// Address and prefix length (1 to 128).
    pub ipv6: (Ipv6Addr, u8),
    /// Default router: in the same network, link-local, or anything reachable on the link.
    pub gateway6: Ipv6Addr,
    /// Address, prefix length (1 to 32) and default router, if the VM has IPv4.
    pub ipv4: Option<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers, in order of preference; at most 8.
    pub nameservers: Vec<IpAddr>,
    /// MTU, bytes, from 1280 (RFC 8200, section 5) to 65535; `None`: what the interface has.
    pub mtu: Option<u32>,
}

/// Renders the file.
pub(super) fn render(spec: &NetworkSpec) -> Result<String, SeedError> {
    check(spec)?;
    let [a, b, c, d, e, f] = spec.mac;
    let mac = quote(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    let (address6, prefix6) = spec.ipv6;
    let mut addresses = vec![quote(&format!("{address6}/{prefix6}"))];
    let mut gateways = String::new();
    let mut routes = String::new();

    let near6 = shared_bits(address6.to_bits(), spec.gateway6.to_bits()) >= u32::from(prefix6);
    default_route(
        "gateway6",
        "::/0",
        spec.gateway6.into(),
        near6 || spec.gateway6.is_unicast_link_local(),
        &mut gateways,
        &mut routes,
    );
    if let Some((address, prefix, gateway)) = spec.ipv4 {
        addresses.push(quote(&format!("{address}/{prefix}")));
        let near = (address.to_bits() ^ gateway.to_bits()).leading_zeros() >= u32::from(prefix);
        default_route(
            "gateway4",
            "0.0.0.0/0",
            gateway.into(),
            near,
            &mut gateways,
            &mut routes,
        );
    }

    let mut out = format!(
        "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: {mac}\n    \
         dhcp4: false\n    dhcp6: false\n    accept-ra: false\n"
    );
    if let Some(mtu) = spec.mtu {
        let _ = writeln!(out, "    mtu: {mtu}");
    }
    out.push_str("    addresses:\n");
    for address in addresses {
        let _ = writeln!(out, "      - {address}");
    }
    out.push_str(&gateways);
    if !routes.is_empty() {
        out.push_str("    routes:\n");
        out.push_str(&routes);
    }
    if !spec.nameservers.is_empty() {
        out.push_str("    nameservers:\n      addresses:\n");
        for server in &spec.nameservers {
            let _ = writeln!(out, "        - {}", quote(&server.to_string()));
        }
    }
    Ok(out)
}

fn shared_bits(a: u128, b: u128) -> u32 {
    (a ^ b).leading_zeros()
}

fn default_route(
    key: &str,
    to: &str,
    via: IpAddr,
    near: bool,
    gateways: &mut String,
    routes: &mut String,
) {
    let via = quote(&via.to_string());
    let _ = if near {
        writeln!(gateways, "    {key}: {via}")
    } else {
        writeln!(
            routes,
            "      - to: {}\n        via: {via}\n        on-link: true",
            quote(to)
        )
    };
}

fn check(spec: &NetworkSpec) -> Result<(), SeedError> {
    let refuse = |reason: String| Err(SeedError::Network { reason });
    // IEEE 802: the lowest bit of the first octet marks a group address.
    if spec.mac[0] & 1 == 1 || spec.mac == [0; 6] {
        return refuse(format!(
            "MAC address {:02x?} is not that of one station",
            spec.mac
        ));
    }
    let (address, prefix) = spec.ipv6;
    if !(1..=128).contains(&prefix) {
        return refuse(format!("IPv6 prefix length {prefix} is not 1 to 128"));
    }
    for ip in [address, spec.gateway6] {
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
            return refuse(format!("{ip} is not the address of a host"));
        }
    }
    if address == spec.gateway6 {
        return refuse(format!("{address} is both the VM and its router"));
    }
    if let Some((address, prefix, gateway)) = spec.ipv4 {
        if !(1..=32).contains(&prefix) {
            return refuse(format!("IPv4 prefix length {prefix} is not 1 to 32"));
        }
        for ip in [address, gateway] {
            if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() {
                return refuse(format!("{ip} is not the address of a host"));
            }
        }
        if address == gateway {
            return refuse(format!("{address} is both the VM and its router"));
        }
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| !(1280..=65535).contains(mtu)) {
        return refuse(format!("an MTU of {mtu} bytes is not 1280 to 65535"));
    }
    if spec.nameservers.len() > MAX_NAMESERVERS {
        return Err(SeedError::TooMany {
            what: "name servers",
            count: spec.nameservers.len(),
            limit: MAX_NAMESERVERS,
        });
    }
    match spec
        .nameservers
        .iter()
        .find(|ip| ip.is_unspecified() || ip.is_multicast())
    {
        Some(ip) => refuse(format!("{ip} is not the address of a name server")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NetworkSpec {
        NetworkSpec {
            mac: [0x52, 0x54, 0, 0xa, 0xb, 0xc],
            ipv6: ("2001:db8:0:1::2".parse().unwrap(), 64),
            gateway6: "2001:db8:0:1::1".parse().unwrap(),
            ipv4: Some((
                "172.16.4.2".parse().unwrap(),
                24,
                "172.16.4.1".parse().unwrap(),
            )),
            nameservers: vec![
                "2606:4700:4700::1111".parse().unwrap(),
                "9.9.9.9".parse().unwrap(),
            ],
            mtu: None,
        }
    }

    #[test]
    fn a_narrow_path_is_told() {
        let mut narrow = spec();
        narrow.mtu = Some(1400);
        let told = render(&narrow).unwrap();
        assert!(told.contains("\n    mtu: 1400\n    addresses:\n"), "{told}");
    }

    #[test]
    fn a_usual_network() {
        insta::assert_snapshot!(render(&spec()).unwrap(), @r#"
        version: 2
        ethernets:
          eth0:
            match:
              macaddress: "52:54:00:0a:0b:0c"
            dhcp4: false
            dhcp6: false
            accept-ra: false
            addresses:
              - "2001:db8:0:1::2/64"
              - "172.16.4.2/24"
            gateway6: "2001:db8:0:1::1"
            gateway4: "172.16.4.1"
            nameservers:
              addresses:
                - "2606:4700:4700::1111"
                - "9.9.9.9"
        "#);
    }

    #[test]
    fn routers_outside_the_network_are_on_link() {
        let mut far = spec();
        far.ipv6.1 = 128;
        far.ipv4 = Some(("10.0.0.2".parse().unwrap(), 32, "10.9.0.1".parse().unwrap()));
        far.nameservers.clear();
        insta::assert_snapshot!(render(&far).unwrap(), @r#"
        version: 2
        ethernets:
          eth0:
            match:
              macaddress: "52:54:00:0a:0b:0c"
            dhcp4: false
            dhcp6: false
            accept-ra: false
            addresses:
              - "2001:db8:0:1::2/128"
              - "10.0.0.2/32"
            routes:
              - to: "::/0"
                via: "2001:db8:0:1::1"
                on-link: true
              - to: "0.0.0.0/0"
                via: "10.9.0.1"
                on-link: true
        "#);
        far.gateway6 = "fe80::1".parse().unwrap();
        assert!(render(&far).unwrap().contains("gateway6: \"fe80::1\""));
    }

    #[test]
    fn impossible_networks_are_refused() {
        let mut cases = vec![];
        let mut case = |change: &dyn Fn(&mut NetworkSpec)| {
            let mut spec = spec();
            change(&mut spec);
            cases.push(spec);
        };
        case(&|s| s.mac[0] |= 1);
        case(&|s| s.mac = [0; 6]);
        case(&|s| s.ipv6.1 = 0);
        case(&|s| s.ipv6.1 = 129);
        case(&|s| s.ipv6.0 = Ipv6Addr::UNSPECIFIED);
        case(&|s| s.gateway6 = Ipv6Addr::LOCALHOST);
        case(&|s| s.gateway6 = s.ipv6.0);
        case(&|s| s.ipv4.as_mut().unwrap().1 = 33);
        case(&|s| s.ipv4.as_mut().unwrap().2 = Ipv4Addr::BROADCAST);
        case(&|s| s.mtu = Some(1279));
        case(&|s| s.mtu = Some(65536));
        case(&|s| s.nameservers = vec![Ipv4Addr::LOCALHOST.into(); 9]);
        case(&|s| s.nameservers = vec![Ipv4Addr::UNSPECIFIED.into()]);
        for spec in cases {
            assert!(render(&spec).is_err(), "{spec:?}");
        }
    }
}
