//! The grammar, and what people see.

use std::collections::HashMap;

use clap::{CommandFactory as _, Parser as _};
use crn_api_types::{InstanceView, Warning, WarningKind};

use super::{
    Cli, Command, Out, Status,
    args::InstanceCommand,
    image, instance, node, remote, samples,
    table::{pairs, table},
    volume,
};
use crate::client::Client;

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
fn wrong_usage_is_json_for_programs() {
    let e = Cli::try_parse_from(["crn-agent", "instance", "create", "--json"]).unwrap_err();
    let told: serde_json::Value = serde_json::from_str(&super::misused(&e).json()).unwrap();
    assert_eq!(told["error"]["code"], "invalid");
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("required"), "{message}");
    assert!(!message.contains("error:"), "{message}");
}

/// A command that the script comes to and has no case for completes nothing.
#[test]
fn bash_completes_behind_the_first_word() {
    let script = super::local::completion(clap_complete::Shell::Bash);
    let states: Vec<_> = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
        .filter(|state| !state.is_empty())
        .collect();
    assert!(states.len() > 20, "{states:?}");
    for state in states {
        let case = format!("\n        {state})\n");
        assert!(script.contains(&case), "no case for {state}");
    }
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

/// Against a real agent's API.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_statuses() {
    let bench = crate::api::tests::harness::Bench::new().await;
    bench.image("tiny").await;
    bench.instance("web").await;
    let create = "instance create --name web --image tiny --memory 64MiB --disk 1 --no-start";
    let table: [(String, Status, &str); 13] = [
        (
            "instance show wbe".into(),
            Status::NotFound,
            "instance list",
        ),
        (
            "instance delete wbe --wait".into(),
            Status::NotFound,
            "instance list",
        ),
        (
            "instance logs wbe -f".into(),
            Status::NotFound,
            "instance list",
        ),
        (
            "instance console web".into(),
            Status::Failed,
            "does not run",
        ),
        (create.into(), Status::Failed, "--name"),
        (
            format!("{create} --allowed-ports 99999"),
            Status::Usage,
            "99999",
        ),
        (
            format!("{create} --cloud-init /nonexistent"),
            Status::Usage,
            "/nonexistent",
        ),
        (create.replace("tiny", "big"), Status::Usage, "image list"),
        (
            "instance firewall web --deny 80".into(),
            Status::Failed,
            "80",
        ),
        ("volume show data".into(), Status::NotFound, "volume list"),
        ("image remove tiny".into(), Status::Failed, "layered"),
        ("image pull nothing".into(), Status::NotFound, "image list"),
        (
            "image import x /nonexistent".into(),
            Status::Usage,
            "/nonexistent",
        ),
    ];
    for (line, status, says) in table {
        let words = std::iter::once("crn-agent").chain(line.split(' '));
        let cli = Cli::try_parse_from(words).unwrap();
        let failure = remote(&bench.client, Out::new(true), cli.command)
            .await
            .expect_err(&line);
        assert_eq!(failure.status, status, "{line}: {failure:?}");
        let told = failure.line();
        assert!(
            told.contains(says) && told.lines().count() == 1,
            "{line}: {told}"
        );
    }
    let nobody = Client::new(std::path::Path::new("/nonexistent/api.sock"));
    let list = Cli::try_parse_from(["crn-agent", "status"])
        .unwrap()
        .command;
    let failure = remote(&nobody, Out::new(true), list).await.unwrap_err();
    assert_eq!(failure.status, Status::Unreachable);
    assert!(
        failure.json().contains("\"code\":\"unreachable\""),
        "{}",
        failure.json()
    );
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

#[test]
fn a_guest_that_is_unwell_is_told_from_one_that_runs() {
    let at = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(305);
    let since = at
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let with = |kinds: &[WarningKind]| InstanceView {
        ready: false,
        warnings: kinds
            .iter()
            .map(|kind| Warning {
                kind: *kind,
                message: "words".into(),
                since: since.clone(),
            })
            .collect(),
        ..samples::instance()
    };
    use WarningKind::{GuestPanicked, NotAnswering, NotLimited};
    for (kinds, word) in [
        (&[NotLimited, NotAnswering][..], "not answering"),
        (&[NotAnswering, GuestPanicked][..], "panicked"),
    ] {
        let view = with(kinds);
        let row = instance::rows(std::slice::from_ref(&view)).remove(0);
        assert!(row[1].starts_with(&format!("{word} 5 min ")), "{row:?}");
        let shown = instance::describe(&view);
        let state = &shown.iter().find(|(name, _)| *name == "State").unwrap().1;
        let since = since[..19].replace('T', " ");
        assert_eq!(*state, format!("running, {word} since {since}"));
    }
    assert_eq!(instance::rows(&[with(&[NotLimited])])[0][1], "running");
}
