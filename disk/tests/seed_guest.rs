//! What a guest makes of a seed: its files read by cloud-init's own code.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod seed_support;

use std::{fs, path::Path, process::Command};

use disk::seed::{SeedFiles, SeedSpec, SeedWarning, render};
use seed_support::{KEY, cloud_init, spec};
use serde_json::{Value, json};

/// What the guest of `spec` does; see `seed_support/cloud_init.py`.
fn boot(spec: &SeedSpec) -> (Value, Vec<SeedWarning>) {
    let SeedFiles {
        user_data,
        meta_data,
        network_config,
        warnings,
        ..
    } = render(spec).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seed_support/cloud_init.py"))
        .env("PYTHONPATH", cloud_init())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for (name, text) in [("u", user_data), ("m", meta_data), ("n", network_config)] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    (
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}")),
        warnings,
    )
}

fn with(user_data: &str) -> SeedSpec {
    SeedSpec {
        user_data: Some(user_data.parse().unwrap()),
        ..spec()
    }
}

const DEVICE: &str = "/dev/disk/by-id/virtio-vol-data";

/// What must hold in every guest, whatever its user asked for.
fn assert_ours_hold(guest: &Value) {
    let config = &guest["config"];
    for (key, value) in [
        ("hostname", json!("web-1")),
        ("preserve_hostname", json!(false)),
        ("manage_etc_hosts", json!("localhost")),
        ("disable_root", json!(false)),
        ("ssh_pwauth", json!(false)),
        ("allow_public_ssh_keys", json!(true)),
        ("resize_rootfs", json!(true)),
        (
            "updates",
            json!({"network": {"when": ["boot-new-instance", "boot"]}}),
        ),
        (
            "growpart",
            json!({"mode": "auto", "devices": ["/"], "ignore_growroot_disabled": false}),
        ),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert_eq!(guest["meta"]["local-hostname"], "web-1");
    for image in ["debian", "ubuntu", "alpine"] {
        let root = &guest["authorized"][image]["root"];
        assert_eq!(root["options"], "", "{image}");
        assert!(
            root["keys"].as_array().unwrap().contains(&json!(KEY)),
            "{image}: {root}"
        );
    }
    // Without a word in user data, too.
    assert_eq!(
        guest["authorized_by_meta"]["root"],
        json!({"keys": [KEY], "options": ""})
    );
}

/// The volumes are the boothook's alone, which `seed_volumes.rs` runs.
fn assert_volumes_hold(guest: &Value) {
    let hook = guest["boothook"].as_str().unwrap();
    for volume in [
        "volume '/dev/disk/by-id/virtio-vol-data' '/data' ext4\n",
        "/data/sub",
    ] {
        assert!(hook.contains(volume), "{hook}");
    }
    assert!(hook.starts_with("#!/bin/sh\n"), "{hook}");
}

#[test]
fn a_guest_without_user_data() {
    let (guest, warnings) = boot(&spec());
    assert_ours_hold(&guest);
    assert_volumes_hold(&guest);
    assert_eq!(guest["invalid"], Value::Null, "cloud-init's own schema");
    assert_eq!(guest["scripts"], json!({}));
    assert_eq!(warnings, []);
    // The image's own default user has the keys as root does, whatever it is called.
    for image in ["debian", "ubuntu", "alpine"] {
        for user in [image, "root"] {
            assert_eq!(
                guest["authorized"][image][user],
                json!({"keys": [KEY], "options": ""})
            );
        }
    }
    // The interface is called ens3 there.
    let eni = guest["network"]["eni"].as_str().unwrap();
    for line in [
        "iface ens3 inet6 static",
        "address 2001:db8:0:1::2/64",
        "gateway 2001:db8:0:1::1",
        "mtu 1400",
        "address 172.16.4.2/24",
        "gateway 172.16.4.1",
        "dns-nameservers 2606:4700:4700::1111",
    ] {
        assert!(eni.contains(line), "{line} in {eni}");
    }
    let netplan = guest["network"]["netplan"].as_str().unwrap();
    assert!(netplan.contains("gateway6: 2001:db8:0:1::1"), "{netplan}");
    assert!(netplan.contains("mtu: 1400"), "{netplan}");
}

#[test]
fn lists_are_added_to_and_settings_hold() {
    let (guest, warnings) = boot(&with(
        r#"#cloud-config
hostname: mine
fqdn: mine.example.org
ssh_pwauth: yes
disable_root: true
resize_rootfs: On
growpart: {mode: off}
ssh_authorized_keys: [ssh-rsa AAAAmine]
packages: [nginx]
runcmd: [[touch, /ran]]
write_files: [{path: /written, content: "ä"}]
users: [default, {name: me, ssh_authorized_keys: [ssh-rsa AAAAme]}]
mounts: [[/dev/vdz, /mnt/z, ext4, defaults, "0", "2"]]
fs_setup: [{device: /dev/vdz, filesystem: xfs}]
network: {version: 2}
cloud_final_modules: []
"#,
    ));
    assert_ours_hold(&guest);
    assert_volumes_hold(&guest);
    let config = &guest["config"];
    assert_eq!(
        config["ssh_authorized_keys"],
        json!(["ssh-rsa AAAAmine", KEY])
    );
    assert_eq!(config["fqdn"], "mine.example.org");
    assert_eq!(config["packages"], json!(["nginx"]));
    assert_eq!(config["runcmd"], json!([["touch", "/ran"]]));
    assert_eq!(config["write_files"][0]["content"], "ä");
    assert_eq!(config["users"][1]["name"], "me");
    assert_eq!(config["mounts"].as_array().unwrap().len(), 1);
    assert_eq!(config["mounts"][0][0], "/dev/vdz");
    assert_eq!(config["fs_setup"][0]["filesystem"], "xfs");

    let keys: Vec<String> = warnings
        .iter()
        .map(|warning| match warning {
            SeedWarning::Overridden { part: 1, key, .. } => format!("lost {key}"),
            SeedWarning::Ignored { part: 1, key } => format!("ignored {key}"),
            SeedWarning::Undermines { part: 1, key } => format!("undermines {key}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        keys,
        [
            "lost disable_root",
            "lost growpart",
            "lost hostname",
            "lost ssh_pwauth",
            "ignored network",
            "undermines cloud_final_modules",
        ]
    );
    assert!(
        warnings[3]
            .to_string()
            .contains("`ssh_pwauth` is set by the agent to false")
    );
}

/// Ways to get the better of the agent's parts; each may spoil what its author asked for.
#[test]
fn ours_hold_against_hostile_user_data() {
    let message = |parts: &str| {
        format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n{parts}\n--b--\n"
        )
    };
    for (user_data, volumes) in [
        // Strategies that would keep what is there, or do not exist.
        ("#cloud-config\nmerge_how: \"dict(no_replace)+list(prepend)\"\nhostname: mine\n".to_owned(), true),
        ("#cloud-config\nmerge_how: [{name: nonsense, settings: [x]}]\nhostname: mine\n".to_owned(), true),
        ("#cloud-config\nmerge_type: 7\nhostname: mine\n".to_owned(), true),
        ("#cloud-config\nallow_public_ssh_keys: false\ndisable_root_opts: command=\"x\"\n".to_owned(), true),
        (message("--b\nContent-Type: text/cloud-config\nMerge-Type: list(no_replace)+dict(no_replace)\n\nssh_pwauth: true\n"), true),
        // A part of its own that ends the message, or so it hopes.
        (message("--b\nContent-Type: text/cloud-config\nContent-Transfer-Encoding: base64\n\naG9zdG5hbWU6IG1pbmUKIwojLS1iLS0K\n"), true),
        // What cloud-init cannot load is dropped, and nothing else.
        ("#cloud-config\n{a: 1, a: 2, hostname: mine}\n".to_owned(), true),
        ("#!/bin/sh\n--b--\nMIME-Version: 1.0\nContent-Type: text/cloud-config\n\nhostname: mine\n".to_owned(), true),
        // A template is not seen before the guest renders it: what is ours alone still holds.
        ("## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\nssh_pwauth: true\n".to_owned(), true),
        ("## template: jinja\n#cloud-config\nmounts: {{ none }}\n".to_owned(), true),
    ] {
        let (guest, warnings) = boot(&with(&user_data));
        assert_ours_hold(&guest);
        if volumes {
            assert_volumes_hold(&guest);
        }
        if user_data.contains("template") {
            assert_eq!(warnings, [SeedWarning::Unchecked { part: 1 }]);
        }
    }
}

#[test]
fn scripts_arrive_byte_for_byte() {
    let script =
        "#!/bin/sh\necho 'é \u{1f600} ' \t\n\n--x\n.\nFrom here\nlast line without newline";
    let (guest, _) = boot(&with(script));
    assert_ours_hold(&guest);
    assert_eq!(guest["scripts"], json!({"part-001": script}));

    let long = format!("#!/bin/sh\n: {}\n", "y".repeat(5000));
    let (guest, _) = boot(&with(&long));
    assert_eq!(guest["scripts"], json!({"part-001": long}));
}

/// Compressed by gzip(1), which is not ours.
fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = Command::new("gzip")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    gzip.wait_with_output().unwrap().stdout
}

#[test]
fn wrapped_user_data_is_what_is_in_it() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let script = "#!/bin/sh\necho wrapped\n";
    let lines = |bytes: &[u8]| {
        let text = STANDARD.encode(bytes);
        let chunks: Vec<&str> = text
            .as_bytes()
            .chunks(60)
            .map(|c| std::str::from_utf8(c).unwrap())
            .collect();
        chunks.join("\n").into_bytes()
    };
    let archive = "#cloud-config-archive\n- '#!/bin/sh\n\n  echo wrapped\n\n  '\n\
                   - {type: text/cloud-config, content: 'packages: [a]'}\n\
                   - |\n  #cloud-config\n  timezone: UTC\n";
    let message = format!(
        "From me Thu Jan  1 00:00:00 1970\nSubject: x\nMIME-Version: 1.0\n\
         Content-Type: multipart/mixed; boundary=b\n\n--b\n\
         Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n{}\n--b--\n",
        String::from_utf8(lines(&gzip(script))).unwrap()
    );
    for wrapped in [
        gzip(script),
        lines(script.as_bytes()),
        lines(&gzip(script)),
        lines(&gzip(&message)),
        archive.as_bytes().to_vec(),
    ] {
        let spec = SeedSpec {
            user_data: Some(disk::seed::UserData::parse(&wrapped).unwrap()),
            ..spec()
        };
        let (guest, warnings) = boot(&spec);
        assert_eq!(warnings, []);
        assert_ours_hold(&guest);
        let scripts = guest["scripts"].as_object().unwrap();
        let found: Vec<_> = scripts.values().filter_map(Value::as_str).collect();
        assert_eq!(found.len(), 1, "{guest}");
        assert!(found[0].contains("echo wrapped"), "{found:?}");
    }
    // What would be too much is refused before it is in memory.
    let bomb = gzip(&format!("#!/bin/sh\n{}", "x".repeat(64 << 20)));
    assert!(bomb.len() < 256 << 10);
    let error = disk::seed::UserData::parse(&bomb).unwrap_err().to_string();
    assert!(error.contains("more than 262144 bytes"), "{error}");
    let error = disk::seed::UserData::parse(&gzip(script)[..20]).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn every_part_of_a_message_has_its_effect() {
    let (guest, warnings) = boot(&with(
        "Content-Type: multipart/mixed; boundary=outer\nMIME-Version: 1.0\n\n\
         --outer\nContent-Type: text/cloud-config\n\n# nothing\n\
         --outer\nContent-Type: text/cloud-config\n\nruncmd: [first]\npackages: [a]\n\
         --outer\nContent-Type: text/cloud-config\nMerge-Type: list(append)+dict(no_replace,recurse_list)+str()\n\n\
         runcmd: [second]\n\
         --outer\nContent-Type: text/x-shellscript\n\
         Content-Disposition: attachment; filename=\"setup.sh\"\n\
         Content-Transfer-Encoding: quoted-printable\n\n#!/bin/sh\necho =C3=A4\n\n\
         --outer\nContent-Type: text/plain\nContent-Disposition: attachment; filename=\"../../etc/x\"\n\n\
         ## template: jinja\n#cloud-config\ntimezone: {{ v1.region }}\n\n\
         --outer--\n",
    ));
    assert_ours_hold(&guest);
    assert_volumes_hold(&guest);
    assert_eq!(guest["config"]["runcmd"], json!(["first", "second"]));
    assert_eq!(guest["config"]["packages"], json!(["a"]));
    assert_eq!(guest["config"]["timezone"], "north");
    let scripts = guest["scripts"].as_object().unwrap();
    assert_eq!(scripts.keys().collect::<Vec<_>>(), ["setup.sh"]);
    assert!(
        scripts["setup.sh"]
            .as_str()
            .unwrap()
            .starts_with("#!/bin/sh\necho ä\n")
    );
    assert_eq!(warnings, [SeedWarning::Unchecked { part: 5 }]);
}

#[test]
fn no_comment_of_a_key_leads_the_guest_astray() {
    for comment in [
        "mime-version: 1.0",
        "a: [b, \"c\\\" # &x *y {%",
        "é\u{1f600}",
        "' - x: |",
    ] {
        let mut spec = spec();
        let key = format!("{KEY} {comment}");
        spec.ssh_keys = vec![key.parse().unwrap()];
        let (guest, _) = boot(&spec);
        for user in ["root", "debian"] {
            assert_eq!(
                guest["authorized"]["debian"][user]["keys"],
                json!([key]),
                "{comment}"
            );
        }
        assert_eq!(guest["config"]["hostname"], "web-1");
    }
}

#[test]
fn claims_on_the_agents_volumes_are_refused() {
    for claim in [
        format!("mounts: [[{DEVICE}, /elsewhere]]"),
        format!("mounts: [[{DEVICE}.1, /elsewhere]]"),
        "mounts: [[/dev/vdz, /data]]".to_owned(),
        "mounts: [[/dev/vdz, /data/]]".to_owned(),
        format!("x: &d {DEVICE}\nfs_setup: [{{device: *d, filesystem: xfs, overwrite: true}}]"),
        format!("disk_setup: {{{DEVICE}: {{table_type: gpt, layout: true, overwrite: true}}}}"),
        format!("device_aliases: {{d: {DEVICE}}}"),
    ] {
        let spec = with(&format!("#cloud-config\n{claim}\n"));
        let error = render(&spec).unwrap_err().to_string();
        assert!(
            error.contains("part 1") && error.contains("vol-data"),
            "{claim}: {error}"
        );
    }
}

#[test]
fn hostile_specs_are_refused() {
    let mut cases: Vec<(SeedSpec, &str)> = Vec::new();
    let mut case = |because, change: &dyn Fn(&mut SeedSpec)| {
        let mut spec = spec();
        change(&mut spec);
        cases.push((spec, because));
    };
    case("instance id", &|s| s.instance_id = String::new());
    case("instance id", &|s| {
        s.instance_id = "iid\nlocal-hostname: x".to_owned()
    });
    case("instance id", &|s| s.instance_id = "x".repeat(65));
    case("serial", &|s| s.volumes[0].serial = String::new());
    case("serial", &|s| s.volumes[0].serial = "x".repeat(21));
    case("serial", &|s| s.volumes[0].serial = "../../vda".to_owned());
    case("serial", &|s| s.volumes[0].serial = "data.1".to_owned());
    case("serial", &|s| s.volumes[0].serial = "nfs:x".to_owned());
    case("serial", &|s| s.volumes[0].serial = "a\tb".to_owned());
    case("same serial", &|s| {
        s.volumes[0].serial = s.volumes[1].serial.clone()
    });
    case("same mount", &|s| {
        s.volumes[0].mount = s.volumes[1].mount.clone()
    });
    case("partition of the first", &|s| {
        s.volumes[0].serial = "vol-data1".to_owned()
    });
    case("partition of the first", &|s| {
        s.volumes[0].serial = "vol-data-part1".to_owned()
    });
    case("SSH keys are too many", &|s| {
        s.ssh_keys = vec![KEY.parse().unwrap(); 65]
    });
    case("volumes are too many", &|s| {
        s.volumes = vec![s.volumes[0].clone(); 17]
    });
    case("prefix length", &|s| s.network.ipv6.1 = 200);
    for (spec, because) in cases {
        let error = render(&spec).unwrap_err().to_string();
        assert!(error.contains(because), "{because}: {error}");
    }
    let mut spec = spec();
    spec.ssh_keys.clear();
    assert_eq!(render(&spec).unwrap().warnings, [SeedWarning::NoSshKey]);
}
