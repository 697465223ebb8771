//! Fuzz targets of `disk::seed`.

use std::net::Ipv6Addr;

use disk::seed::{Filesystem, NetworkSpec, SeedSpec, SeedVolume, SshKey, UserData, build, render};

/// A user's cloud-init data: parsed, and built into a seed with a volume that it may claim.
///
/// # Panics
/// When the same data gives two different seeds, or a seed without the agent's settings.
pub fn user_data(data: &[u8]) {
    let Ok(user_data) = UserData::parse(data) else {
        return;
    };
    let (Ok(hostname), Ok(mount)) = ("web-1".parse(), "/data".parse()) else {
        return;
    };
    let spec = SeedSpec {
        instance_id: "iid-1".to_owned(),
        hostname,
        ssh_keys: Vec::new(),
        network: NetworkSpec {
            mac: [0x52, 0x54, 0, 1, 2, 3],
            ipv6: (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2), 64),
            gateway6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            ipv4: None,
            nameservers: Vec::new(),
            mtu: None,
        },
        volumes: vec![SeedVolume {
            serial: "vol-data".to_owned(),
            mount,
            fs: Filesystem::Ext4,
        }],
        user_data: Some(user_data),
    };
    let Ok(files) = render(&spec) else { return };
    // Whatever the user's parts hold, the agent's come after them.
    let ours = files.user_data.rfind("\nssh_pwauth: false\n");
    let last = files.user_data.rfind("\nContent-Type: ");
    assert!(
        ours.is_some() && ours > last,
        "the agent's settings are not last"
    );
    assert_eq!(build(&spec), build(&spec));
}

/// A public key line.
///
/// # Panics
/// When a key that was taken is not one line, or is not taken again.
pub fn ssh_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(key) = text.parse::<SshKey>() else {
        return;
    };
    assert!(!key.as_str().chars().any(char::is_control));
    assert_eq!(key.as_str().parse().as_ref(), Ok(&key));
}
