//! The monitor's client against peers that lie, hang, flood and go away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

mod peer;

use std::time::{Duration, Instant};

use peer::{GREETING, Peer, alone, befriend, hasty, meet};
use qmp::{
    ClosedReason, Error, Event, MAX_EVENT, MAX_QUEUED_EVENTS, MAX_UNANSWERED, Qmp, RunState,
};
use serde_json::{Value, json};

const RUNNING: &str = r#"{"status":"running","running":true}"#;

/// Whether a reason is the one that is due.
type Check = fn(&ClosedReason) -> bool;

/// How `query-status` ends, with a limit that no test reaches but those of silence.
async fn ask(qmp: &Qmp) -> Result<RunState, Error> {
    qmp.status().await
}

fn reason(result: Result<RunState, Error>) -> ClosedReason {
    match result.expect_err("the peer breaks the protocol") {
        Error::Closed { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn handshakes_that_are_none() {
    alone(async {
        let long = format!("{{\"QMP\":\"{}\"}}\r\n", "x".repeat(80 << 10));
        let old = GREETING.replace("\"major\":10", "\"major\":-10");
        let table: &[(&str, &[u8], Check)] = &[
            ("garbage", b"SSH-2.0-OpenSSH_9.2\r\n", |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
            ("zeros", &[0; 4096], |r| *r == ClosedReason::PeerClosed),
            ("zeros and a line end", b"\0\0\0\n", |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
            ("no UTF-8", b"{\"QMP\":\"\xff\"}\n", |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
            ("a negative version", old.as_bytes(), |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
            ("an oversized greeting", long.as_bytes(), |r| {
                matches!(r, ClosedReason::LineTooLong { .. })
            }),
            ("an event first", b"{\"event\":\"STOP\"}\r\n", |r| {
                matches!(r, ClosedReason::OutOfOrder { .. })
            }),
            ("a reply first", b"{\"return\":{},\"id\":1}\r\n", |r| {
                matches!(r, ClosedReason::OutOfOrder { .. })
            }),
            ("nothing, then the end", b"", |r| {
                *r == ClosedReason::PeerClosed
            }),
            ("empty lines, then the end", b"\r\n\n\r\n", |r| {
                *r == ClosedReason::PeerClosed
            }),
            ("half a greeting, then the end", b"{\"QMP\":{", |r| {
                *r == ClosedReason::PeerClosed
            }),
        ];
        for (name, bytes, expected) in table {
            let bytes = bytes.to_vec();
            let met = meet(async move |peer: &mut Peer| _ = peer.send(bytes).await).await;
            match met.expect_err(name) {
                Error::Closed { reason, .. } => assert!(expected(&reason), "{name}: {reason}"),
                other => panic!("{name}: {other}"),
            }
        }
    });
}

#[test]
fn handshakes_that_never_end() {
    alone(async {
        let silent = meet(async |peer: &mut Peer| peer.hang().await).await;
        let deaf = meet(async |peer: &mut Peer| {
            peer.send(GREETING).await;
            peer.hang().await;
        });
        let trickling = meet(async |peer: &mut Peer| {
            for byte in GREETING.bytes().cycle() {
                peer.send([byte & 0x7f]).await;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
        let empty_lines = meet(async |peer: &mut Peer| while peer.send("\r\n").await {});
        let chatty = meet(async |peer: &mut Peer| {
            peer.send(GREETING).await;
            while peer.send("{\"event\":\"STOP\"}\r\n").await {}
        });
        for (name, met) in [
            ("silent", silent),
            ("no answer to qmp_capabilities", deaf.await),
            ("byte by byte", trickling.await),
            ("empty lines without end", empty_lines.await),
            ("events instead of an answer", chatty.await),
        ] {
            let error = met.expect_err(name);
            assert!(
                matches!(error, Error::GreetingTimeout { .. }),
                "{name}: {error}"
            );
        }
        let refused = meet(async |peer: &mut Peer| {
            peer.send(GREETING).await;
            let id = peer.id().await;
            peer.send(format!(
                "{{\"error\":{{\"class\":\"CommandNotFound\",\"desc\":\"no\"}},\"id\":{id}}}\r\n"
            ))
            .await;
            peer.hang().await;
        });
        let error = refused.await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    });
}

#[test]
fn answers_that_end_the_connection() {
    alone(async {
        // What the peer sends instead of an answer to the command with id %.
        let long = format!("{{\"return\":\"{}\",\"id\":%}}\r\n", "x".repeat(300 << 10));
        let big = format!(
            "{{\"event\":\"X\",\"data\":{{\"a\":\"{}\"}}}}\r\n",
            "a".repeat(MAX_EVENT)
        );
        let twice = format!("{{\"return\":{RUNNING},\"id\":%}}\r\n").repeat(2);
        let table: &[(&str, &str, Check)] = &[
            ("an id never given", r#"{"return":{},"id":99999}"#, |r| {
                *r == ClosedReason::UnsolicitedReply { id: "99999".into() }
            }),
            ("no id", r#"{"return":{}}"#, |r| {
                *r == ClosedReason::UnsolicitedReply { id: "none".into() }
            }),
            ("the id as text", r#"{"return":{},"id":"%"}"#, |r| {
                matches!(r, ClosedReason::UnsolicitedReply { .. })
            }),
            ("the id as fraction", r#"{"return":{},"id":%.0}"#, |r| {
                matches!(r, ClosedReason::UnsolicitedReply { .. })
            }),
            ("the id of the handshake", r#"{"return":{},"id":1}"#, |r| {
                *r == ClosedReason::UnsolicitedReply { id: "1".into() }
            }),
            ("a second greeting", GREETING, |r| {
                matches!(r, ClosedReason::OutOfOrder { .. })
            }),
            (
                "both result and error",
                r#"{"return":{},"error":{"class":"GenericError","desc":""},"id":%}"#,
                |r| matches!(r, ClosedReason::Garbage(_)),
            ),
            ("garbage", "?", |r| matches!(r, ClosedReason::Garbage(_))),
            ("a list", r#"[{"return":{},"id":%}]"#, |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
            (
                "two messages on a line",
                r#"{"return":{},"id":%}{"return":{},"id":%}"#,
                |r| matches!(r, ClosedReason::Garbage(_)),
            ),
            ("an oversized line", &long, |r| {
                *r == ClosedReason::LineTooLong {
                    limit: hasty().max_line,
                }
            }),
            ("an oversized event", &big, |r| {
                matches!(r, ClosedReason::Garbage(_))
            }),
        ];
        for (name, line, expected) in table {
            let line = line.to_string();
            let (qmp, _events) = befriend(async move |peer: &mut Peer| {
                let id = peer.id().await;
                peer.send(line.replace('%', &id.to_string()) + "\r\n").await;
                peer.hang().await;
            })
            .await;
            let why = reason(ask(&qmp).await);
            assert!(expected(&why), "{name}: {why}");
            assert_eq!(
                qmp.closed().await,
                why,
                "{name}: every holder learns the same"
            );
            assert_eq!(reason(ask(&qmp).await), why, "{name}: it stays closed");
        }

        let (qmp, _events) = befriend(async move |peer: &mut Peer| {
            let id = peer.id().await;
            peer.send(twice.replace('%', &id.to_string())).await;
            peer.hang().await;
        })
        .await;
        // The first of two answers counts; the second ends the connection.
        let first = ask(&qmp).await;
        let why = qmp.closed().await;
        assert!(
            matches!(why, ClosedReason::UnsolicitedReply { .. }),
            "{why}"
        );
        assert_eq!(first.unwrap(), RunState::Running);
    });
}

#[test]
fn an_endless_line_ends_at_the_limit() {
    alone(async {
        let (sent, taken) = std::sync::mpsc::channel();
        let (qmp, _events) = befriend(async move |peer: &mut Peer| {
            let chunk = [b'['; 4096];
            let mut bytes = 0;
            while peer.send(chunk).await {
                bytes += chunk.len();
                sent.send(bytes).unwrap();
            }
        })
        .await;
        let why = qmp.closed().await;
        assert_eq!(
            why,
            ClosedReason::LineTooLong {
                limit: hasty().max_line
            }
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        let taken = taken.try_iter().last().unwrap();
        // What fits the socket's own buffers comes on top.
        assert!(taken < hasty().max_line + (1 << 20), "{taken}");
    });
}

#[test]
fn a_peer_that_goes_away() {
    alone(async {
        let (qmp, mut events) = befriend(async |peer: &mut Peer| _ = peer.command().await).await;
        assert_eq!(reason(ask(&qmp).await), ClosedReason::PeerClosed);
        assert_eq!(events.next().await, None);

        let (qmp, _events) = befriend(async |peer: &mut Peer| {
            let id = peer.id().await;
            peer.send(format!("{{\"id\":{id},\"return\":{{\"status\":\"runn"))
                .await;
        })
        .await;
        assert_eq!(reason(ask(&qmp).await), ClosedReason::PeerClosed);

        // What it said before it went still counts.
        let (qmp, mut events) = befriend(async |peer: &mut Peer| {
            let id = peer.id().await;
            peer.send(format!(
                "{{\"return\":{RUNNING},\"id\":{id}}}\r\n{{\"event\":\"SHUTDOWN\",\"data\":\
                 {{\"guest\":true,\"reason\":\"guest-shutdown\"}}}}\r\n"
            ))
            .await;
        })
        .await;
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
        let event = events.next().await;
        assert!(
            matches!(event, Some(Event::Shutdown { guest: true, .. })),
            "{event:?}"
        );
        assert_eq!(events.next().await, None);
        assert_eq!(qmp.closed().await, ClosedReason::PeerClosed);

        let (qmp, _events) = befriend(async |peer: &mut Peer| _ = peer.command().await).await;
        qmp.quit().await.expect("going away is the answer to quit");
    });
}

#[test]
fn answers_of_the_wrong_form_cost_only_their_command() {
    alone(async {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let table = [
            ("a text", "\"running\"".to_owned()),
            ("null", "null".to_owned()),
            ("no state", "{\"running\":true}".to_owned()),
            ("a number", "{\"status\":7}".to_owned()),
            ("nested deep", deep),
        ];
        for (name, value) in table {
            let (qmp, _events) = befriend(async move |peer: &mut Peer| {
                peer.answer(&value).await;
                peer.answer_all(RUNNING).await;
            })
            .await;
            let error = ask(&qmp).await.expect_err(name);
            assert!(
                matches!(error, Error::UnexpectedReply { .. }),
                "{name}: {error}"
            );
            assert_eq!(
                ask(&qmp).await.expect("the next one works"),
                RunState::Running
            );
        }
    });
}

#[test]
fn a_refusal_is_fit_for_a_log() {
    alone(async {
        let (qmp, _events) = befriend(async |peer: &mut Peer| {
            let id = peer.id().await;
            let desc = format!("\\u001b[2J\\n{}", "long ".repeat(40_000));
            peer.send(format!(
                "{{\"error\":{{\"class\":\"Invented\",\"desc\":\"{desc}\"}},\"id\":{id}}}\r\n"
            ))
            .await;
            peer.answer_all(RUNNING).await;
        })
        .await;
        let text = ask(&qmp).await.unwrap_err().to_string();
        assert!(
            text.len() < 5000 && !text.contains(char::is_control),
            "{text:.80}"
        );
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
    });
}

#[test]
fn silence_ends_a_command_at_its_limit_and_no_more() {
    alone(async {
        let (qmp, _events) = befriend(async |peer: &mut Peer| {
            let late = peer.id().await;
            let id = peer.id().await;
            peer.send(format!("{{\"return\":\"late\",\"id\":{late}}}\r\n"))
                .await;
            peer.send(format!("{{\"return\":{RUNNING},\"id\":{id}}}\r\n"))
                .await;
            peer.hang().await;
        })
        .await;
        let limit = Duration::from_millis(150);
        let start = Instant::now();
        let error = qmp
            .execute_as_within::<Value>("query-status", Value::Null, limit)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
        // The late answer is not taken for that of the second command.
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
        assert_eq!(qmp.closed_reason(), None);
    });
}

#[test]
fn a_flood_of_events_delays_no_command() {
    alone(async {
        let flood = 20_000;
        let (qmp, mut events) = befriend(async move |peer: &mut Peer| {
            let id = peer.id().await;
            for n in 0..flood {
                peer.send(format!(
                    "{{\"event\":\"FLOOD\",\"data\":{{\"n\":{n}}}}}\r\n"
                ))
                .await;
            }
            peer.send("{\"event\":\"POWERDOWN\"}\r\n").await;
            peer.send(format!("{{\"return\":{RUNNING},\"id\":{id}}}\r\n"))
                .await;
            peer.hang().await;
        })
        .await;
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
        // The oldest are lost and counted, the newest is there.
        let mut missed = 0;
        let mut seen = 0;
        loop {
            match events.next().await.unwrap() {
                Event::Lagged { missed: n } => missed += n,
                Event::PowerDown => break,
                _ => seen += 1,
            }
        }
        assert_eq!(missed + seen, flood);
        assert!(seen < MAX_QUEUED_EVENTS as u64, "{seen}");
    });
}

#[test]
fn a_flood_without_an_answer_does_not_outrun_the_limit() {
    alone(async {
        for line in ["{\"event\":\"STOP\"}\r\n", "\r\n"] {
            let (qmp, _events) =
                befriend(async move |peer: &mut Peer| while peer.send(line).await {}).await;
            let start = Instant::now();
            let limit = Duration::from_millis(200);
            let error = qmp
                .execute_as_within::<Value>("query-status", Value::Null, limit)
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn a_peer_that_does_not_read() {
    alone(async {
        let (qmp, _events) = befriend(async |peer: &mut Peer| peer.hang().await).await;
        let big = json!({"data": "x".repeat(8 << 20)});
        let limit = Duration::from_millis(300);
        let error = qmp
            .execute_as_within::<Value>("ringbuf-write", big, limit)
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Timeout { .. } | Error::Closed { .. }),
            "{error}"
        );
        let why = qmp.closed().await;
        assert_eq!(
            why,
            ClosedReason::WriteTimeout {
                command: "ringbuf-write".into()
            }
        );
    });
}

#[test]
fn a_peer_that_owes_too_much() {
    alone(async {
        let (qmp, _events) =
            befriend(async |peer: &mut Peer| while peer.command().await.is_some() {}).await;
        let limit = Duration::from_millis(2);
        let mut answers = 0;
        let why = loop {
            let asked = qmp.execute_as_within::<Value>("query-status", Value::Null, limit);
            match asked.await.unwrap_err() {
                Error::Timeout { .. } => answers += 1,
                Error::Closed { reason, .. } => break reason,
                other => panic!("{other}"),
            }
            assert!(answers < 4 * MAX_UNANSWERED, "it goes on for ever");
        };
        assert!(matches!(why, ClosedReason::Unresponsive { .. }), "{why}");
    });
}

#[test]
fn lies_about_unplugged_devices() {
    alone(async {
        let (qmp, _events) = befriend(async |peer: &mut Peer| {
            peer.answer("{}").await;
            for data in [
                r#"{"device":"another","path":"/a"}"#,
                r#"{"path":"/b"}"#,
                r#"{"device":7,"path":"/c"}"#,
                "null",
            ] {
                peer.send(format!(
                    "{{\"event\":\"DEVICE_DELETED\",\"data\":{data}}}\r\n"
                ))
                .await;
            }
            peer.answer_all(RUNNING).await;
        })
        .await;
        let limit = Duration::from_millis(200);
        let error = qmp.device_del("ours", limit).await.unwrap_err();
        assert!(matches!(error, Error::UnplugTimeout { .. }), "{error}");
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
    });
}

#[test]
fn events_of_an_unknown_kind_are_kept_and_harm_nothing() {
    alone(async {
        let (qmp, mut events) = befriend(async |peer: &mut Peer| {
            for event in [
                r#"{"event":"SHUTDOWN","data":["not","an","object"]}"#,
                r#"{"event":"SHUTDOWN"}"#,
                r#"{"event":"RESET","data":{"guest":"yes","reason":7}}"#,
                r#"{"event":"","data":null,"timestamp":{"seconds":-9,"microseconds":-9}}"#,
            ] {
                peer.send(format!("{event}\r\n")).await;
            }
            peer.answer_all(RUNNING).await;
        })
        .await;
        assert_eq!(ask(&qmp).await.unwrap(), RunState::Running);
        for _ in 0..4 {
            // A shutdown that says nothing of the guest is no shutdown by the guest.
            let event = events.next().await.unwrap();
            assert!(
                !matches!(event, Event::Shutdown { guest: true, .. }),
                "{event:?}"
            );
        }
    });
}
