//! The interface, set up as the seed's `network-config` says.

use std::{fs, io, path::Path, thread, time::Duration};

use crate::{NetworkConfig, sys};

/// Reads the little of version 2 that the agent's seeds use for IPv6; a gateway may be
/// `gateway6` or the `via` of a route.
pub(crate) fn parse(text: &str) -> Option<NetworkConfig> {
    let mut mac = None;
    let mut address = None;
    let mut gateway = None;
    for line in text.lines() {
        let line = line.trim().trim_start_matches("- ");
        let bare = line.trim_matches(['"', '\'']);
        if let Some((ip, prefix)) = bare.split_once('/')
            && let (Ok(ip), Ok(prefix)) = (ip.parse(), prefix.parse())
        {
            address = address.or(Some((ip, prefix)));
        }
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        let value = value.trim_matches(['"', '\'']);
        match key {
            "macaddress" => mac = Some(value.to_owned()),
            "gateway6" | "via" => gateway = gateway.or(value.parse().ok()),
            _ => {}
        }
    }
    let (address, prefix) = address?;
    Some(NetworkConfig {
        mac: mac?,
        address,
        prefix,
        gateway: gateway?,
    })
}

/// Finds the interface by its MAC address and brings it up; returns its name.
pub(crate) fn up(config: &NetworkConfig) -> io::Result<String> {
    let interface = find(&config.mac)?;
    let settings = Path::new("/proc/sys/net/ipv6/conf").join(&interface);
    for (setting, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
        fs::write(settings.join(setting), value)?;
    }
    sys::link_up(&interface)?;
    sys::add_address(&interface, config.address, config.prefix)?;
    sys::add_default_route(&interface, config.gateway)?;
    Ok(interface)
}

fn find(mac: &str) -> io::Result<String> {
    for _ in 0..100 {
        for entry in fs::read_dir("/sys/class/net")? {
            let entry = entry?;
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if address.trim().eq_ignore_ascii_case(mac) {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(io::Error::other(format!(
        "no interface has the address {mac}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_ways_to_write_a_gateway() {
        let head = "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: \
                    \"52:54:00:00:00:01\"\n    dhcp4: false\n    addresses:\n      - \
                    \"2001:db8::1/124\"\n      - \"172.16.0.2/24\"\n";
        for tail in [
            "    gateway6: \"2001:db8::\"\n",
            "    routes:\n      - to: \"::/0\"\n        via: \"2001:db8::\"\n        on-link: true\n",
        ] {
            let config = parse(&format!("{head}{tail}")).unwrap();
            assert_eq!(config.mac, "52:54:00:00:00:01");
            assert_eq!(
                (config.address, config.prefix),
                ("2001:db8::1".parse().unwrap(), 124)
            );
            assert_eq!(
                config.gateway,
                "2001:db8::".parse::<std::net::Ipv6Addr>().unwrap()
            );
        }
        assert_eq!(parse("version: 2\n"), None);
    }
}
