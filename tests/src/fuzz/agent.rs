//! Fuzz targets of `crn-agent`.

use std::{collections::BTreeSet, io::Write};

use crn_agent::testing::{
    config::{self, Limits, Sources},
    spec::{self, InstanceSpec, MAX_KEYS, MAX_PORTS, MAX_VOLUMES},
};
use crn_api_types::CreateRequest;

/// A configuration file; what follows a line `--set` are overrides, one a line.
///
/// # Panics
/// When a configuration that was taken is not the same after it was written down,
/// or a complaint is no single line.
pub fn agent_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (text, set) = text.split_once("\n--set\n").unwrap_or((text, ""));
    let set: Vec<String> = set.lines().map(str::to_owned).collect();
    let load = |text: &str, set: Vec<String>| {
        let mut file = tempfile::NamedTempFile::new().ok()?;
        file.write_all(text.as_bytes()).ok()?;
        let sources = Sources {
            file: Some(file.path().to_owned()),
            env: Vec::new(),
            set,
        };
        Some(config::load(&sources))
    };
    match load(text, set) {
        Some(Ok(config)) => {
            let written = toml::to_string_pretty(&config).unwrap_or_default();
            let again = load(&written, Vec::new()).and_then(Result::ok);
            assert_eq!(again.as_ref(), Some(&config), "{written}");
        }
        Some(Err(e)) => {
            let line = e.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
        None => {}
    }
}

/// The body of a request for an instance: parsed and checked as the API does it.
///
/// # Panics
/// When a request passes that must not, or what is recorded of it reads back as
/// something else.
pub fn create_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<CreateRequest>(data) else {
        return;
    };
    let limits = Limits::default();
    let Ok(checked) = spec::check(request, &limits, 10_240) else {
        return;
    };
    let spec = &checked.spec;
    assert!((1..=limits.instance_vcpus).contains(&spec.vcpus.into()));
    assert!((64..=limits.instance_memory_mib).contains(&spec.memory.0.into()));
    assert!((64..=limits.instance_disk_mib).contains(&spec.disk.0.into()));
    assert!(spec.ssh_keys.len() <= MAX_KEYS && spec.ports.len() <= MAX_PORTS);
    assert!(checked.volumes.len() <= MAX_VOLUMES);
    let keys_are_lines = spec
        .ssh_keys
        .iter()
        .all(|k| !k.trim().contains(['\n', '\0']));
    assert!(keys_are_lines, "{:?}", spec.ssh_keys);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let names = checked
        .name
        .iter()
        .chain(checked.volumes.iter().map(|v| &v.name));
    for name in names {
        let text = name.as_str();
        assert!(
            (1..=63).contains(&text.len()) && text.chars().all(plain),
            "{text:?}"
        );
    }
    let mut mounts = BTreeSet::new();
    for volume in &checked.volumes {
        if let Some(mount) = &volume.mount {
            assert!(mount.starts_with('/') && !mount.split('/').any(|part| part == ".."));
            assert!(mounts.insert(mount), "{mount:?} twice");
        }
    }
    let recorded = serde_json::to_string(spec).unwrap_or_default();
    let read = serde_json::from_str::<InstanceSpec>(&recorded);
    let again = read.map(|spec| serde_json::to_string(&spec).unwrap_or_default());
    assert_eq!(again.ok().as_deref(), Some(recorded.as_str()));
}
