//! The grammar, and what people see.

use std::collections::HashMap;

use clap::{CommandFactory as _, Parser as _};

use super::{
    Cli, Command,
    args::InstanceCommand,
    image, instance, node, samples,
    table::{pairs, table},
    volume,
};

const WIDTH: u16 = 80;

fn fits(text: &str) -> String {
    for line in text.lines() {
        assert!(line.chars().count() <= usize::from(WIDTH), "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    text.to_owned()
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_documented_command_is_understood() {
    let line = [
        "crn-agent",
        "instance",
        "create",
        "--name",
        "my-web-server",
        "--cpu",
        "2",
        "--memory",
        "4",
        "--disk",
        "20",
        "--image",
        "debian:12",
        "--ssh-key",
        "ssh-ed25519 AAAA me",
        "--allowed-ports",
        "22,80,443",
        "--volume",
        "data:/data",
        "--cloud-init",
        "file.yaml",
    ];
    let cli = Cli::try_parse_from(line).unwrap();
    let Command::Instance(InstanceCommand::Create(args)) = cli.command else {
        panic!("{cli:?}")
    };
    assert_eq!(
        (args.cpu, args.memory.mib, args.disk.mib),
        (2, 4096, 20_480)
    );
    assert_eq!(args.volume[0].mount.as_deref(), Some("/data"));
    assert!(!args.wait.wait);
}

#[test]
fn tables() {
    let instances = instance::rows(&[samples::instance(), samples::hostile_instance()]);
    insta::assert_snapshot!(
        "instance_list",
        fits(&table(&instance::COLUMNS, &instances, WIDTH))
    );
    let volumes = volume::rows(&[samples::volume()]);
    insta::assert_snapshot!(
        "volume_list",
        fits(&table(&volume::COLUMNS, &volumes, WIDTH))
    );
    let images = image::rows(&[samples::image()]);
    insta::assert_snapshot!("image_list", fits(&table(&image::COLUMNS, &images, WIDTH)));
}

#[test]
fn details() {
    let good = pairs(&instance::describe(&samples::instance()), WIDTH);
    insta::assert_snapshot!("instance_show", fits(&good));
    let bad = pairs(&instance::describe(&samples::hostile_instance()), WIDTH);
    insta::assert_snapshot!("instance_show_hostile", fits(&bad));
    insta::assert_snapshot!(
        "status",
        fits(&pairs(&node::rows(&samples::status()), WIDTH))
    );
}

#[test]
fn events() {
    let names = HashMap::from([("ab".repeat(32), "my-web-server".to_owned())]);
    let text: String = samples::events()
        .iter()
        .map(|e| node::line(e, &names))
        .collect();
    insta::assert_snapshot!("events", fits(&text));
}

/// What a shell may hand over: refused with status 2, without an agent.
#[test]
fn hostile_command_lines_are_refused() {
    let create = |rest: &[&str]| {
        let mut line = vec!["crn-agent", "instance", "create", "--image", "debian:12"];
        line.extend(rest);
        line.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let table = [
        ("negative cpu", create(&["--cpu", "-1"])),
        (
            "cpu beyond 64 bits",
            create(&["--cpu", "99999999999999999999"]),
        ),
        ("cpu is no number", create(&["--cpu", "NaN"])),
        ("negative memory", create(&["--memory", "-4"])),
        ("fractional memory", create(&["--memory", "0.5"])),
        ("no memory", create(&["--memory", "0"])),
        (
            "memory beyond 64 bits",
            create(&["--memory", "18446744073709551616"]),
        ),
        (
            "disk overflows in bytes",
            create(&["--disk", "99999999999TiB"]),
        ),
        ("unknown unit", create(&["--disk", "1GB"])),
        ("volume without a name", create(&["--volume", ":/data"])),
        (
            "volume with too many parts",
            create(&["--volume", "a:/b:1:2"]),
        ),
        (
            "endless wait",
            create(&["--wait", "--timeout", "99999999999999999999h"]),
        ),
        ("time-out without wait", create(&["--timeout", "5"])),
        ("unknown flag", create(&["--privileged"])),
        (
            "no image",
            vec!["crn-agent".into(), "instance".into(), "create".into()],
        ),
    ];
    for (what, line) in table {
        let error = Cli::try_parse_from(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{what}: {error}");
    }
}
