//! Settings under `/proc/sys/net` that routing for guests needs. They are not taken back at the
//! agent's end: guests outlive it.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

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

/// Those of the host, in order.
pub(crate) fn of_host(spec: &HostSpec, uplinks: &BTreeSet<String>) -> Vec<Setting> {
    let mut all = Vec::new();
    for uplink in uplinks {
        // A host that forwards ignores router advertisements, and loses its own default route at
        // once, unless told otherwise before.
        let accept = Value::InsteadOf(1, 2);
        all.push(setting(&format!("ipv6/conf/{uplink}/accept_ra"), accept));
    }
    all.push(setting("ipv6/conf/all/forwarding", Value::Exactly(1)));
    // A guest's gateway has the lowest address of its network, which IPv6 calls the routers'
    // anycast address: pings of it are answered from it all the same.
    all.push(Setting {
        optional: true,
        ..setting("ipv6/anycast_src_echo_reply", Value::Exactly(1))
    });
    if spec.ipv4.is_some() {
        all.push(setting("ipv4/ip_forward", Value::Exactly(1)));
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
    all.push(Setting {
        optional: true,
        ..setting("netfilter/nf_conntrack_max", Value::AtLeast(1 << 20))
    });
    // Room for the neighbours of a thousand guests. Namespaces share it and do not see it.
    for (name, value) in [
        ("gc_thresh3", 32_768),
        ("gc_thresh2", 16_384),
        ("gc_thresh1", 4_096),
    ] {
        for family in ["ipv6", "ipv4"] {
            let path = format!("{family}/neigh/default/{name}");
            all.push(Setting {
                optional: true,
                ..setting(&path, Value::AtLeast(value))
            });
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
            Value::InsteadOf(value, _) if now != Some(value) => return Ok(false),
            Value::Exactly(value) | Value::AtLeast(value) | Value::InsteadOf(_, value) => value,
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
            table: "t".into(),
            uplink: None,
            ndp_proxy,
            ipv4: nat.then(|| "172.16.0.0/12".parse().unwrap()),
            prefix: "2001:db8::/64".parse().unwrap(),
        }
    }

    #[test]
    fn what_a_host_needs() {
        let names = |spec: &HostSpec| -> Vec<_> {
            let all = of_host(spec, &["eth0".to_owned()].into());
            all.iter()
                .filter(|s| !s.optional)
                .map(Setting::name)
                .collect()
        };
        // The route by which the host is reached is made safe before it would go.
        let least = ["ipv6/conf/eth0/accept_ra", "ipv6/conf/all/forwarding"];
        let with = |more: &[&str]| -> Vec<_> {
            least
                .iter()
                .chain(more)
                .map(|n| format!("/proc/sys/net/{n}"))
                .collect()
        };
        assert_eq!(names(&spec(false, false)), with(&[]));
        assert_eq!(names(&spec(false, true)), with(&["ipv4/ip_forward"]));
        let proxy = ["ipv6/conf/eth0/proxy_ndp", "ipv6/neigh/eth0/proxy_delay"];
        assert_eq!(names(&spec(true, false)), with(&proxy));
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
