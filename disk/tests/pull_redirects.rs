//! A server outside cannot have the agent ask this host or a private network. It is tried in a
//! network namespace, whose one address from outside is this machine's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod pull_support;

use std::process::Command;

use disk::{Error, Sha256};
use pull_support::{Reply, Scratch, Server, noise};

const OUTSIDE: &str = "203.0.113.1";
const SET_UP: &str =
    "ip link set lo up && ip address add 203.0.113.1/32 dev lo && exec \"$0\" \"$@\"";

#[test]
fn a_server_outside_does_not_reach_inside() {
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", SET_UP])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "in_the_namespace", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "run by `a_server_outside_does_not_reach_inside`"]
async fn in_the_namespace() {
    let content = noise(4096, 1);
    let inside = Server::of(&content).await;
    let port = inside.port();
    let served = content.clone();
    let to = inside.url("/reboot?now");
    let outside = Server::start_at(OUTSIDE, None, move |request| match request.path.as_str() {
        "/loopback" => Reply::redirect(&to),
        "/name" => Reply::redirect(format!("http://localhost:{port}/")),
        "/number" => Reply::redirect(format!("http://2130706433:{port}/")),
        "/mapped" => Reply::redirect(format!("http://[::ffff:127.0.0.1]:{port}/")),
        "/metadata" => Reply::redirect("http://169.254.169.254/latest/meta-data/"),
        "/link" => Reply::redirect("http://[fe80::1]/"),
        "/private" => Reply::redirect("http://10.0.0.1/"),
        "/ula" => Reply::redirect("http://[fd00::1]/"),
        "/in-two" => Reply::redirect("/loopback"),
        "/elsewhere" => Reply::redirect("/image"),
        _ => Reply::of(&served, "\"v1\"", request),
    })
    .await;
    let scratch = Scratch::new();
    for (path, asked) in [
        ("/loopback", 1),
        ("/name", 1),
        ("/number", 1),
        ("/mapped", 1),
        ("/metadata", 1),
        ("/link", 1),
        ("/private", 1),
        ("/ula", 1),
        ("/in-two", 2),
    ] {
        let before = outside.requests().len();
        let error = scratch
            .pull(&outside.url(path), &content)
            .await
            .unwrap_err();
        let Error::Url { reason, .. } = &error else {
            panic!("{path}: {error}")
        };
        assert!(reason.contains("must not redirect"), "{path}: {error}");
        assert!(!error.to_string().contains("now"), "{path}: {error}");
        // It is not tried again: it would be no use.
        assert_eq!(outside.requests().len() - before, asked, "{path}");
    }
    assert_eq!(inside.requests().len(), 0, "nothing inside was asked");
    assert_eq!(scratch.images(), Vec::<std::path::PathBuf>::new());

    // Outside may send on to outside, and who is asked inside may send on to anywhere.
    scratch
        .pull(&outside.url("/elsewhere"), &content)
        .await
        .unwrap();
    let scratch = Scratch::new();
    let (there, here) = (outside.url("/image"), inside.url("/image"));
    let mirror = Server::start(move |request| {
        Reply::redirect(if request.path == "/out" {
            &there
        } else {
            &here
        })
    })
    .await;
    scratch.pull(&mirror.url("/out"), &content).await.unwrap();
    scratch.store.remove(&Sha256::of(&content)).unwrap();
    scratch.pull(&mirror.url("/in"), &content).await.unwrap();
    scratch.assert_holds(&content);
}
