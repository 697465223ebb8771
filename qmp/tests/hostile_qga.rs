//! The guest agent's client against guests that lie, hang, flood and go away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

#[allow(dead_code, reason = "shared with the monitor's tests")]
mod peer;

use std::time::{Duration, Instant};

use peer::{Peer, alone, hasty};
use qmp::{ClosedReason, Error, Qga};
use tokio::net::UnixListener;

/// What a guest replies to the synchronisation with a number.
type Reply = fn(i64) -> Vec<u8>;
/// Whether an error is the one that is due.
type Check = fn(&Error) -> bool;

/// The number that the client's `guest-sync-delimited` carries.
async fn sync_id(peer: &mut Peer) -> i64 {
    let line = peer.line().await.expect("a synchronisation");
    let json = line.strip_prefix(b"\xff").expect("a sentinel first");
    let command: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(command["execute"], "guest-sync-delimited");
    command["arguments"]["id"].as_i64().unwrap()
}

async fn synchronise(peer: &mut Peer) {
    let id = sync_id(peer).await;
    peer.send([b"\xff", format!("{{\"return\":{id}}}\n").as_bytes()].concat())
        .await;
}

/// An agent whose first connection behaves as `first`, and all later ones well:
/// they answer `guest-get-host-name` with `honest`.
async fn agent<F>(first: F, test: impl AsyncFnOnce(Qga))
where
    F: AsyncFnOnce(&mut Peer) + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qga");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        first(&mut Peer::new(stream)).await;
        loop {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            synchronise(&mut peer).await;
            while peer.command().await.is_some() {
                peer.send("{\"return\":{\"host-name\":\"honest\"}}\n").await;
            }
        }
    });
    test(Qga::new(&path, &hasty())).await;
}

async fn honest(qga: &Qga) {
    assert_eq!(qga.host_name().await.unwrap(), "honest");
}

#[test]
fn no_agent_answers() {
    alone(async {
        agent(
            async |peer: &mut Peer| while peer.line().await.is_some() {},
            async |qga: Qga| {
                let start = Instant::now();
                let error = qga.ping().await.unwrap_err();
                assert!(matches!(error, Error::GuestAgentSilent { .. }), "{error}");
                assert!(start.elapsed() < Duration::from_secs(5));
                honest(&qga).await;
            },
        )
        .await;
    });
}

#[test]
fn synchronisations_that_are_none() {
    alone(async {
        let table: [(&str, Reply); 4] = [
            ("another number", |id| {
                [b"\xff", format!("{{\"return\":{}}}\n", id ^ 1).as_bytes()].concat()
            }),
            ("no sentinel", |id| {
                format!("{{\"return\":{id}}}\n").into_bytes()
            }),
            ("the number as text", |id| {
                [b"\xff", format!("{{\"return\":\"{id}\"}}\n").as_bytes()].concat()
            }),
            ("an oversized reply", |id| {
                let pad = " ".repeat(1000);
                [b"\xff", format!("{{{pad}\"return\":{id}}}\n").as_bytes()].concat()
            }),
        ];
        for (name, reply) in table {
            agent(
                async move |peer: &mut Peer| {
                    let id = sync_id(peer).await;
                    peer.send(reply(id)).await;
                    while peer.line().await.is_some() {}
                },
                async |qga: Qga| {
                    let error = qga.ping().await.expect_err(name);
                    assert!(
                        matches!(error, Error::GuestAgentSilent { .. }),
                        "{name}: {error}"
                    );
                    honest(&qga).await;
                },
            )
            .await;
        }
    });
}

#[test]
fn a_flood_instead_of_a_synchronisation() {
    alone(async {
        for noise in [&[b'x'; 4096][..], &[0xff; 4096], b"\xff{\"return\":1}\n"] {
            agent(
                async move |peer: &mut Peer| while peer.send(noise).await {},
                async |qga: Qga| {
                    let start = Instant::now();
                    let error = qga.ping().await.unwrap_err();
                    assert!(matches!(error, Error::GuestAgentSilent { .. }), "{error}");
                    assert!(start.elapsed() < Duration::from_secs(5));
                    honest(&qga).await;
                },
            )
            .await;
        }
    });
}

#[test]
fn what_was_left_for_earlier_clients_is_not_taken() {
    alone(async {
        agent(
            async |peer: &mut Peer| {
                peer.send("{\"return\":{\"host-name\":\"stale\"}}\n{\"return\":{\"host-na")
                    .await;
                synchronise(peer).await;
                peer.command().await;
                peer.send("{\"return\":{\"host-name\":\"fresh\"}}\n").await;
                while peer.line().await.is_some() {}
            },
            async |qga: Qga| assert_eq!(qga.host_name().await.unwrap(), "fresh"),
        )
        .await;
    });
}

#[test]
fn a_late_reply_is_not_that_of_the_next_command() {
    alone(async {
        agent(
            async |peer: &mut Peer| {
                synchronise(peer).await;
                peer.command().await;
                tokio::time::sleep(Duration::from_millis(400)).await;
                peer.send("{\"return\":{\"host-name\":\"late\"}}\n").await;
            },
            async |qga: Qga| {
                let limit = Duration::from_millis(150);
                let command = qmp::qapi::qga::guest_get_host_name {};
                let error = qga.execute_within(command, limit).await.unwrap_err();
                assert!(matches!(error, Error::Timeout { .. }), "{error}");
                honest(&qga).await;
            },
        )
        .await;
    });
}

#[test]
fn a_reply_too_many_is_not_that_of_the_next_command() {
    alone(async {
        agent(
            async |peer: &mut Peer| {
                synchronise(peer).await;
                peer.command().await;
                peer.send(
                    "{\"return\":{\"host-name\":\"first\"}}\n{\"return\":{\"host-name\":\"lie\"}}\n",
                )
                .await;
                while peer.line().await.is_some() {}
            },
            async |qga: Qga| {
                assert_eq!(qga.host_name().await.unwrap(), "first");
                honest(&qga).await;
            },
        )
        .await;
    });
}

#[test]
fn answers_that_end_the_connection() {
    alone(async {
        let long = format!("{{\"return\":\"{}\"}}\n", "x".repeat(300 << 10));
        let table: [(&str, String, Check); 6] = [
            ("garbage", "?\n".into(), |e| {
                matches!(
                    e,
                    Error::Closed {
                        reason: ClosedReason::Garbage(_),
                        ..
                    }
                )
            }),
            ("an event", "{\"event\":\"STOP\"}\n".into(), |e| {
                matches!(
                    e,
                    Error::Closed {
                        reason: ClosedReason::Garbage(_),
                        ..
                    }
                )
            }),
            ("an oversized line", long.clone(), |e| {
                matches!(
                    e,
                    Error::Closed {
                        reason: ClosedReason::LineTooLong { .. },
                        ..
                    }
                )
            }),
            ("a line without an end", long.replace('\n', ""), |e| {
                matches!(
                    e,
                    Error::Closed {
                        reason: ClosedReason::LineTooLong { .. },
                        ..
                    }
                )
            }),
            ("the wrong type", "{\"return\":[]}\n".into(), |e| {
                matches!(e, Error::UnexpectedReply { .. })
            }),
            ("half a reply, then the end", "{\"return\":{".into(), |e| {
                matches!(
                    e,
                    Error::Closed {
                        reason: ClosedReason::PeerClosed,
                        ..
                    }
                )
            }),
        ];
        for (name, bytes, expected) in table {
            agent(
                async move |peer: &mut Peer| {
                    synchronise(peer).await;
                    peer.command().await;
                    peer.send(bytes).await;
                },
                async |qga: Qga| {
                    let error = qga.host_name().await.expect_err(name);
                    assert!(expected(&error), "{name}: {error}");
                    honest(&qga).await;
                },
            )
            .await;
        }
    });
}
