//! Settings under `/proc/sys/net` that routing for guests needs. They are not taken back at the
//! agent's end: guests outlive it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{error::Error, guest::TapName, spec::HostSpec};

/// A setting and the value that it must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setting {
    path: PathBuf,
    value: Value,
    /// Kernels and namespaces without it do without.
    optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// This one.
    Exactly(u32),
    /// This one or more.
    AtLeast(u32),
    /// This one or less.
    AtMost(u32),
    /// This one in place of that one; any other stays.
    InsteadOf(u32, u32),
}

fn setting(path: &str, value: Value) -> Setting {
    Setting {
        path: PathBuf::from("/proc/sys/net").join(path),
        value,
        optional: false,
    }
}

fn optional(path: &str, value: Value) -> Setting {
    Setting {
        optional: true,
        ..setting(path, value)
    }
}

/// Where the kernel has IPv6 settings by interface.
pub(crate) const INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Interfaces that follow router advertisements now, and would stop when the host begins to forward:
/// an uplink that gets its first advertisement later is among them. `default` stands for those that
/// are yet to come.
pub(crate) fn listeners(interfaces: &Path) -> io::Result<BTreeSet<String>> {
    let number = |name: &str, key: &str| {
        let text = fs::read_to_string(interfaces.join(name).join(key)).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(interfaces)? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let is_tap = name.starts_with(TapName::PREFIX);
        if !is_tap
            && !matches!(name.as_str(), "all" | "lo")
            && number(&name, "accept_ra") == Some(1)
            && number(&name, "forwarding") == Some(0)
        {
            found.insert(name);
        }
    }
    Ok(found)
}

/// Whether the host forwards now: IPv6, IPv4.
pub(crate) fn forwarding() -> (bool, bool) {
    let on = |path| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    (
        on("/proc/sys/net/ipv6/conf/all/forwarding"),
        on("/proc/sys/net/ipv4/ip_forward"),
    )
}

/// The MTU that router advertisements or an operator gave IPv6 on an interface, bytes.
pub(crate) fn ipv6_mtu(interface: &str) -> Option<u32> {
    let text = fs::read_to_string(Path::new(INTERFACES).join(interface).join("mtu")).ok()?;
    text.trim().parse().ok()
}

/// Those of the host, in order. `listeners` are other interfaces that follow router advertisements.
pub(crate) fn of_host(
    spec: &HostSpec,
    uplinks: &BTreeSet<String>,
    listeners: &BTreeSet<String>,
    taps: impl Iterator<Item = TapName>,
) -> Vec<Setting> {
    let mut all = Vec::new();
    for interface in uplinks.union(listeners) {
        // A host that forwards ignores router advertisements, and loses its own default route at
        // once, or never gets one, unless told otherwise before.
        let accept = Value::InsteadOf(1, 2);
        all.push(setting(&format!("ipv6/conf/{interface}/accept_ra"), accept));
    }
    all.push(setting("ipv6/conf/all/forwarding", Value::Exactly(1)));
    // Answers for guests' addresses, and forwarding itself, go by the interface's own setting, which
    // others change without a word: networkd, ifupdown, sysctl.d.
    for interface in uplinks {
        let path = format!("ipv6/conf/{interface}/forwarding");
        all.push(setting(&path, Value::Exactly(1)));
    }
    for tap in taps {
        all.push(optional(
            &format!("ipv6/conf/{tap}/forwarding"),
            Value::Exactly(1),
        ));
        if spec.ipv4.is_some() {
            all.push(optional(
                &format!("ipv4/conf/{tap}/forwarding"),
                Value::Exactly(1),
            ));
        }
    }
    // A guest's gateway has the lowest address of its network, which IPv6 calls the routers' anycast
    // address: pings of it are answered from it all the same.
    all.push(optional("ipv6/anycast_src_echo_reply", Value::Exactly(1)));
    if spec.ipv4.is_some() {
        all.push(setting("ipv4/ip_forward", Value::Exactly(1)));
        for interface in uplinks {
            let path = format!("ipv4/conf/{interface}/forwarding");
            all.push(setting(&path, Value::Exactly(1)));
        }
    }
    if spec.ndp_proxy {
        for uplink in uplinks {
            all.push(setting(
                &format!("ipv6/conf/{uplink}/proxy_ndp"),
                Value::Exactly(1),
            ));
            // Else the answer waits for up to 0.8 s.
            all.push(setting(
                &format!("ipv6/neigh/{uplink}/proxy_delay"),
                Value::Exactly(0),
            ));
        }
    }
    // Room for the connections of many guests that each use all that they may have. It costs memory
    // only as it is used.
    all.push(optional(
        "netfilter/nf_conntrack_max",
        Value::AtLeast(1 << 20),
    ));
    // Halves of packets wait for the other half in memory that all share: not long, and with room.
    all.push(optional(
        "netfilter/nf_conntrack_frag6_timeout",
        Value::AtMost(3),
    ));
    for path in [
        "netfilter/nf_conntrack_frag6_high_thresh",
        "ipv4/ipfrag_high_thresh",
    ] {
        all.push(optional(path, Value::AtLeast(64 << 20)));
    }
    // Room for the neighbours of a thousand guests. Namespaces share it and do not see it.
    for (name, value) in [
        ("gc_thresh3", 32_768),
        ("gc_thresh2", 16_384),
        ("gc_thresh1", 4_096),
    ] {
        for family in ["ipv6", "ipv4"] {
            let path = format!("{family}/neigh/default/{name}");
            all.push(optional(&path, Value::AtLeast(value)));
        }
    }
    all
}

/// Those of a tap, before it is up: the host believes nothing that a guest says.
pub(crate) fn of_tap(tap: &TapName) -> Vec<Setting> {
    [
        ("ipv6", "disable_ipv6", 0),
        ("ipv6", "addr_gen_mode", 1),
        ("ipv6", "accept_ra", 0),
        ("ipv6", "autoconf", 0),
        ("ipv6", "accept_redirects", 0),
        ("ipv6", "forwarding", 1),
        ("ipv4", "accept_redirects", 0),
        ("ipv4", "send_redirects", 0),
        // What a guest may say that it is: else it could fill the host's table of neighbours.
        ("ipv4", "rp_filter", 1),
        // No answer for addresses of other interfaces.
        ("ipv4", "arp_ignore", 1),
        ("ipv4", "arp_filter", 0),
    ]
    .into_iter()
    .map(|(family, name, value)| {
        setting(
            &format!("{family}/conf/{tap}/{name}"),
            Value::Exactly(value),
        )
    })
    .collect()
}

impl Setting {
    /// Its file.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes it unless it is right already; tells whether it was not.
    pub(crate) fn apply(&self) -> Result<bool, Error> {
        match self.try_apply() {
            Err(_) if self.optional => Ok(false),
            result => result.map_err(|source| Error::Sysctl {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn try_apply(&self) -> io::Result<bool> {
        let text = fs::read_to_string(&self.path)?;
        let now: Option<u32> = text.trim().parse().ok();
        let wanted = match self.value {
            Value::Exactly(value) if now == Some(value) => return Ok(false),
            Value::AtLeast(value) if now >= Some(value) => return Ok(false),
            Value::AtMost(value) if now.is_some_and(|now| now <= value) => return Ok(false),
            Value::InsteadOf(value, _) if now != Some(value) => return Ok(false),
            Value::Exactly(value)
            | Value::AtLeast(value)
            | Value::AtMost(value)
            | Value::InsteadOf(_, value) => value,
        };
        fs::write(&self.path, wanted.to_string())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ndp_proxy: bool, nat: bool) -> HostSpec {
        HostSpec {
            ndp_proxy,
            ipv4: nat.then(|| "172.16.0.0/12".parse().unwrap()),
            ..HostSpec::new("t", "2001:db8::/64".parse().unwrap())
        }
    }

    #[test]
    fn what_a_host_needs() {
        let names = |spec: &HostSpec| -> Vec<_> {
            let listeners = ["default".to_owned(), "eth1".to_owned()].into();
            let all = of_host(
                spec,
                &["eth0".to_owned()].into(),
                &listeners,
                std::iter::empty(),
            );
            all.iter()
                .filter(|s| !s.optional)
                .map(|s| s.name().replace("/proc/sys/net/", ""))
                .collect()
        };
        // The route by which the host is reached is made safe before it would go.
        let least = [
            "ipv6/conf/default/accept_ra",
            "ipv6/conf/eth0/accept_ra",
            "ipv6/conf/eth1/accept_ra",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/eth0/forwarding",
        ];
        let with = |more: &[&'static str]| [&least[..], more].concat();
        assert_eq!(names(&spec(false, false)), with(&[]));
        let nat = ["ipv4/ip_forward", "ipv4/conf/eth0/forwarding"];
        assert_eq!(names(&spec(false, true)), with(&nat));
        let proxy = ["ipv6/conf/eth0/proxy_ndp", "ipv6/neigh/eth0/proxy_delay"];
        assert_eq!(names(&spec(true, false)), with(&proxy));
    }

    #[test]
    fn who_follows_router_advertisements() {
        let dir = tempfile::tempdir().unwrap();
        for (name, accept_ra, forwarding) in [
            ("all", "1", "0"),
            ("default", "1", "0"),
            ("lo", "1", "0"),
            ("eth0", "1", "0"),
            ("eth1", "2", "0"),
            ("eth2", "0", "0"),
            // It does not follow them now, and is not made to.
            ("docker0", "1", "1"),
            ("vmtap7", "1", "0"),
        ] {
            let dir = dir.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("accept_ra"), format!("{accept_ra}\n")).unwrap();
            fs::write(dir.join("forwarding"), format!("{forwarding}\n")).unwrap();
        }
        let found: Vec<_> = listeners(dir.path()).unwrap().into_iter().collect();
        assert_eq!(found, ["default", "eth0"]);
    }

    #[test]
    fn values() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (before, value, after) in [
            ("0\n", Value::Exactly(1), Some("1")),
            ("1\n", Value::Exactly(1), None),
            ("2\n", Value::Exactly(1), Some("1")),
            ("1\n", Value::InsteadOf(1, 2), Some("2")),
            ("0\n", Value::InsteadOf(1, 2), None),
            ("2\n", Value::InsteadOf(1, 2), None),
            ("512\n", Value::AtLeast(1024), Some("1024")),
            ("4096\n", Value::AtLeast(1024), None),
            ("odd\n", Value::AtLeast(1024), Some("1024")),
            ("60\n", Value::AtMost(3), Some("3")),
            ("2\n", Value::AtMost(3), None),
        ] {
            fs::write(file.path(), before).unwrap();
            let setting = Setting {
                path: file.path().into(),
                value,
                optional: false,
            };
            assert_eq!(setting.apply().unwrap(), after.is_some(), "{setting:?}");
            let now = fs::read_to_string(file.path()).unwrap();
            assert_eq!(now, after.unwrap_or(before), "{setting:?}");
        }
        let missing = Setting {
            path: "/nonexistent/x".into(),
            value: Value::Exactly(1),
            optional: true,
        };
        assert!(!missing.apply().unwrap());
        let error = Setting {
            optional: false,
            ..missing
        }
        .apply()
        .unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/x: "), "{error}");
    }
}
