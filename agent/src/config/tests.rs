use super::*;

fn from_text(text: &str) -> Result<Config, String> {
    with(text, &[], &[])
}

fn with(text: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: Some(path.clone()),
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
    };
    load(&sources).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

#[test]
fn nothing_is_a_configuration() {
    assert_eq!(from_text("").unwrap(), Config::default());
}

#[test]
fn later_sources_win() {
    let text = "[limits]\ninstances = 5\n[network]\nprefix = '2001:db8::/64'\n";
    let c = with(
        text,
        &[("CRN_AGENT_LIMITS__INSTANCES", "6"), ("PATH", "x")],
        &[],
    )
    .unwrap();
    assert_eq!(
        (c.limits.instances, c.network.prefix.as_deref()),
        (6, Some("2001:db8::/64"))
    );
    let c = with(
        text,
        &[("CRN_AGENT_LIMITS__INSTANCES", "6")],
        &["limits.instances=7"],
    )
    .unwrap();
    assert_eq!(c.limits.instances, 7);
    let c = with(
        text,
        &[],
        &["network.nameservers=[\"::1\"]", "log.level=debug"],
    )
    .unwrap();
    assert_eq!(
        (c.network.nameservers.len(), c.log.level.as_str()),
        (1, "debug")
    );
    // A string that looks like a number where a string is due.
    let c = with(text, &[("CRN_AGENT_NETWORK__TABLE", "12")], &[]).unwrap();
    assert_eq!(c.network.table, "12");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let table: &[(&str, &[&str])] = &[
        ("nonsense = 1", &["FILE, line 1", "nonsense"]),
        ("\n[qemu]\nbinray = '/x'", &["line 3", "binray"]),
        (
            "[limits]\n\ninstances = 0",
            &["line 3", "instances", "not between 1 and"],
        ),
        ("[limits]\ninstances = -4", &["line 2", "instances"]),
        ("[limits]\ninstances = 'many'", &["line 2", "instances"]),
        ("[qemu]\naccel = 'xen'", &["line 2", "accel", "xen"]),
        (
            "state_dir = 'relative'",
            &["line 1", "state_dir", "absolute"],
        ),
        ("state_dir = '/a/../b'", &["line 1", "state_dir", "'..'"]),
        (
            "[stop]\npower_button_seconds = 99999",
            &["line 2", "power_button_seconds"],
        ),
        ("[network\n", &["line 1"]),
        ("[network]\nprefix = 'foo'", &["line 2", "prefix"]),
        ("[network]\nprefix = '2001:db8::/113'", &["line 2", "/113"]),
        (
            "[network]\nprefix = '2001:db8::5/64'",
            &["line 2", "prefix"],
        ),
        (
            "[log]\nlevel = 'foo=bar=x'",
            &["line 2", "level", "foo=bar=x"],
        ),
        (
            "[network]\nnameservers = ['nowhere']",
            &["line 2", "nameservers"],
        ),
        ("[qemu]\nuid_base = 0", &["uid_base"]),
        ("[qemu]\nuid_count = 3", &["uid_count", "limits.instances"]),
        (
            "[[images.catalogue]]\nname = 'x'\nurl = 'https://x'",
            &["image x", "sums and digest"],
        ),
        ("run_dir = '/var/lib/crn-agent'", &["run_dir"]),
    ];
    for (text, words) in table {
        let error = from_text(text).unwrap_err();
        for word in *words {
            assert!(error.contains(word), "{text:?}: {error:?} lacks {word:?}");
        }
        assert!(!error.contains('\n'), "one line: {error:?}");
    }
    let long = format!("run_dir = '/{}'", "x".repeat(90));
    assert!(from_text(&long).unwrap_err().contains("sockets do not fit"));
}

#[test]
fn overrides_are_named_in_their_errors() {
    let e = with("", &[("CRN_AGENT_LIMITS__INSTANCES", "none")], &[]).unwrap_err();
    assert!(e.contains("CRN_AGENT_LIMITS__INSTANCES"), "{e}");
    let e = with("", &[("CRN_AGENT_TYPO", "1")], &[]).unwrap_err();
    assert!(e.contains("CRN_AGENT_TYPO") && e.contains("typo"), "{e}");
    for bad in ["limits.instances", "=1", "limits.instances.x=1", "nope=1"] {
        let e = with("[limits]\ninstances = 5", &[], &[bad]).unwrap_err();
        assert!(e.contains("--set"), "{e}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources {
        file: Some("/does/not/exist.toml".into()),
        ..Sources::default()
    };
    assert!(
        load(&sources)
            .unwrap_err()
            .to_string()
            .contains("/does/not/exist.toml")
    );
}

/// docs/operations.md describes every key of the schema.
#[test]
fn every_setting_is_documented() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let toml::Value::Table(all) = toml::Value::try_from(Config::default()).unwrap() else {
        panic!("a table")
    };
    for (section, value) in all {
        match value {
            toml::Value::Table(keys) => {
                for key in keys.keys() {
                    assert!(
                        docs.contains(&format!("`{section}.{key}`")),
                        "{section}.{key}"
                    );
                }
            }
            _ => assert!(docs.contains(&format!("`{section}`")), "{section}"),
        }
    }
}

#[test]
fn the_status_page_stays_on_this_host() {
    let with = |at: &str| {
        let set = vec![format!("api.status_listen={at}")];
        load(&Sources {
            set,
            ..Sources::default()
        })
    };
    for good in ["127.0.0.1:4021", "[::1]:4021"] {
        assert_eq!(
            with(good).unwrap().api.status_listen,
            Some(good.parse().unwrap())
        );
    }
    for bad in [
        "0.0.0.0:4021",
        "[::]:4021",
        "192.0.2.1:80",
        "localhost:80",
        "4021",
    ] {
        let error = with(bad).unwrap_err().to_string();
        assert!(error.contains("api.status_listen"), "{bad}: {error}");
    }
}

/// A file of this host needs no digest; what comes from elsewhere does.
#[test]
fn images_from_elsewhere_need_a_digest() {
    let with = |url: &str| {
        let catalogue = format!("[{{name = \"x\", url = \"{url}\"}}]");
        load(&Sources {
            set: vec![format!("images.catalogue={catalogue}")],
            ..Sources::default()
        })
    };
    assert!(with("file:///srv/x.qcow2").is_ok());
    assert!(with("/srv/x.qcow2").is_ok());
    assert!(with("https://example.org/x.qcow2").is_err());
}
