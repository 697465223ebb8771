//! Events, console and the page.

use std::time::Duration;

use crn_api_types::{ErrorCode, Event, EventKind, Owner};
use hyper::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::harness::{Bench, answer};
use crate::{client::ClientError, db::About, paths::InstanceFile};

async fn numbers(bench: &Bench, path: &str, most: usize) -> Vec<i64> {
    let mut lines = bench
        .client
        .lines(Method::GET, path, None::<&()>)
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < most
        && let Some(event) = lines.event::<Event>().await.unwrap()
    {
        seen.push(event.seq);
    }
    seen
}

async fn emit(bench: &Bench, n: usize) {
    for i in 0..n {
        let data = serde_json::json!({ "i": i });
        bench
            .node
            .db
            .record_event(About::Of(Owner::Operator), EventKind::Image, data)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resume_without_a_gap() {
    let bench = Bench::new().await;
    emit(&bench, 600).await;
    let all = numbers(&bench, "/v1/events?after=0&follow=false", 10_000).await;
    assert_eq!(all, (1..=600).collect::<Vec<_>>());
    let last = numbers(&bench, "/v1/events?last=3&follow=false", 10_000).await;
    assert_eq!(last, [598, 599, 600]);

    // A listener that lags behind more than the live channel holds loses nothing.
    let mut lines = bench
        .client
        .lines(Method::GET, "/v1/events?after=598", None::<&()>)
        .await
        .unwrap();
    for expected in 599..=600 {
        assert_eq!(lines.event::<Event>().await.unwrap().unwrap().seq, expected);
    }
    for _ in 0..3000 {
        bench
            .node
            .events
            .emit(None, EventKind::Image, serde_json::Value::Null);
    }
    for expected in 601..=3600 {
        assert_eq!(lines.event::<Event>().await.unwrap().unwrap().seq, expected);
    }
    drop(lines);

    // As a browser resumes.
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    let request = "GET /v1/events?last=50&follow=false HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   Last-Event-ID: 3598\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = answer(&mut stream).await;
    assert!(
        answer.head.contains("content-type: text/event-stream"),
        "{answer:?}"
    );
    assert!(
        answer.body.contains("id: 3599") && answer.body.contains("id: 3600"),
        "{answer:?}"
    );
    assert!(!answer.body.contains("id: 3598"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_instance() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let (web, _) = (bench.instance("web").await, bench.instance("db").await);
    let path = "/v1/events?after=0&follow=false&instance=web";
    let mut lines = bench
        .client
        .lines(Method::GET, path, None::<&()>)
        .await
        .unwrap();
    let mut phases = Vec::new();
    while let Some(event) = lines.event::<Event>().await.unwrap() {
        assert_eq!(event.instance.as_deref(), Some(web.id.as_str()));
        if event.kind == EventKind::Phase {
            phases.push(event.data["phase"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(
        phases.last().map(String::as_str),
        Some("stopped"),
        "{phases:?}"
    );
    // The last two of it, however much else has happened since.
    emit(&bench, 10).await;
    let path = "/v1/events?last=2&follow=false&instance=web";
    assert_eq!(numbers(&bench, path, 100).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_with_the_agent() {
    let mut bench = Bench::new().await;
    let mut lines = bench
        .client
        .lines(Method::GET, "/v1/events", None::<&()>)
        .await
        .unwrap();
    let began = std::time::Instant::now();
    bench.shut_down().await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(!matches!(lines.event::<Event>().await, Ok(Some(_))));
    let refused = bench.client.get::<serde_json::Value>("/v1/status").await;
    assert!(
        matches!(refused, Err(ClientError::Unreachable { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_console() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let view = bench.instance("web").await;
    let log = bench
        .node
        .paths
        .instance_file(&view.id.parse().unwrap(), InstanceFile::ConsoleLog);
    let read = |query: &'static str| {
        let client = bench.client.clone();
        async move {
            let path = format!("/v1/instances/web/console{query}");
            let mut chunks = client.chunks(&path).await.unwrap();
            let mut all = Vec::new();
            while let Some(bytes) = chunks.next().await.unwrap() {
                all.extend_from_slice(&bytes);
            }
            all
        }
    };
    assert_eq!(read("").await, b"");
    std::fs::write(&log, b"one\r\ntwo\x1b[0m\xff\r\n").unwrap();
    assert_eq!(read("").await, b"one\r\ntwo\x1b[0m\xff\r\n");
    assert_eq!(read("?tail=4").await, b"m\xff\r\n");
    assert_eq!(read("?tail=0").await, b"");

    let path = "/v1/instances/web/console?follow=true&tail=0";
    let mut chunks = bench.client.chunks(path).await.unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"three\r\n").unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), b"three\r\n"[..]);
    // Rotated: the reader goes on with what comes next.
    std::fs::write(&log, b"e\r\n").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::io::Write::write_all(&mut file, b"four\r\n").unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), b"four\r\n"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_of_a_console() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    let view = bench.instance("web").await;
    let path = "/v1/instances/web/console/attach";
    let attach = || bench.client.console(path);
    let code = |e: ClientError| match e {
        ClientError::Refused(detail) => detail.code,
        e => panic!("{e}"),
    };
    assert_eq!(
        code(attach().await.err().unwrap()),
        ErrorCode::Conflict,
        "it does not run"
    );

    // What QEMU does with its console's socket.
    let run = bench.node.paths.run(&view.id.parse().unwrap());
    std::fs::create_dir_all(&run).unwrap();
    let listener = UnixListener::bind(run.join("console.sock")).unwrap();
    let guest = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut typed = [0; 3];
            stream.read_exact(&mut typed).await.unwrap();
            stream.write_all(b"echo ").await.unwrap();
            stream.write_all(&typed).await.unwrap();
        }
    });
    for round in 0..2 {
        let mut line = attach().await.unwrap();
        assert_eq!(
            code(attach().await.err().unwrap()),
            ErrorCode::Conflict,
            "one at a time"
        );
        line.write_all(b"ls\n").await.unwrap();
        let mut heard = [0; 8];
        line.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"echo ls\n", "round {round}");
        drop(line);
        // It is free again once the agent has noticed.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    guest.await.unwrap();
}

async fn ask_page(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_and_changes_nothing() {
    let bench = Bench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(crate::api::serve_status(
        bench.node.clone(),
        listener,
        async {
            let _ = stopped.await;
        },
    ));
    let host = format!("Host: {address}");
    let page = ask_page(address, &format!("GET / HTTP/1.1\r\n{host}")).await;
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<title>crn-agent"),
        "{page}"
    );
    assert!(page.contains("default-src 'none'"), "{page}");
    for (request, host, status) in [
        ("GET /v1/instances", host.as_str(), 200),
        ("GET /v1/status", "Host: localhost", 200),
        ("GET /v1/status", "Host: rebound.example.org", 403),
        ("GET /v1/status", "Host: 192.0.2.1", 403),
        ("POST /v1/instances", &host, 405),
        ("DELETE /v1/instances/web", &host, 404),
        ("GET /v1/images", &host, 404),
        ("GET /v1/instances/web/console/attach", &host, 404),
    ] {
        let answer = ask_page(address, &format!("{request} HTTP/1.1\r\n{host}")).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{request} {host}: {answer}");
    }
    drop(stop);
    served.await.unwrap();
}
