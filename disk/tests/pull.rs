//! Downloads from a server that behaves, and from ones that do not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod pull_support;

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use disk::{
    ByteSize, Created, Digest, Error, Expected, Flaw, Format, Progress, PullRequest, Sha256,
    StoreOptions, Tuning, create_volume,
};
use pull_support::{Reply, Scratch, Server, impatient, noise, options, request};

const PIECE: u64 = 64 << 10;

#[tokio::test]
async fn an_image_arrives_once_in_parallel_and_read_only() {
    let content = noise(1 << 20, 1);
    let served = content.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::of(&served, "\"v1\"", request);
        reply.delay = Duration::from_millis(30);
        reply
    })
    .await;
    let scratch = Scratch::new();
    let seen = Mutex::new(Vec::<Progress>::new());
    let wanted = request(&server.url("/a.img"), Sha256::of(&content).into());
    let image = scratch
        .store
        .pull(&wanted, |p| seen.lock().unwrap().push(p))
        .await
        .unwrap();
    scratch.assert_holds(&content);
    assert_eq!(image.info.format, Format::Raw);
    assert_eq!(
        image.path.metadata().unwrap().permissions().mode() & 0o777,
        0o400
    );
    assert_eq!(
        scratch.store.get(&image.digest.into()).unwrap(),
        Some(image.clone())
    );

    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted_by_key(|p| p.done), "{seen:?}");
    let all = ByteSize::from_bytes(1 << 20);
    assert_eq!(
        seen.last(),
        Some(&Progress {
            done: all,
            total: Some(all)
        })
    );

    assert_eq!(server.sent(), 1 << 20, "each byte once");
    // The server's count lags behind what the client has seen end.
    assert!((2..=8).contains(&server.peak()), "{}", server.peak());
    let starts: Vec<_> = server
        .requests()
        .iter()
        .map(|r| r.range().unwrap().0)
        .collect();
    assert_eq!(starts[0], 0);
    assert_eq!(starts.len(), 16);

    // Known by now: nothing is asked.
    assert_eq!(scratch.store.pull(&wanted, |_| ()).await.unwrap(), image);
    assert_eq!(server.requests().len(), 16);
}

#[tokio::test]
async fn lengths_around_the_piece() {
    for len in [
        512,
        PIECE - 512,
        PIECE,
        PIECE + 512,
        2 * PIECE,
        3 * PIECE + 1024,
    ] {
        let content = noise(len as usize, len);
        let server = Server::of(&content).await;
        let scratch = Scratch::new();
        scratch.pull(&server.url("/"), &content).await.unwrap();
        scratch.assert_holds(&content);
        assert_eq!(server.requests().len() as u64, len.div_ceil(PIECE), "{len}");
    }
}

#[tokio::test]
async fn broken_connections_are_continued() {
    let content = noise(1 << 20, 2);
    let served = content.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::of(&served, "\"v1\"", request);
        if request.n % 3 != 2 {
            reply.cut = Some(20_000);
        }
        reply
    })
    .await;
    let scratch = Scratch::new();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
    assert_eq!(server.sent(), 1 << 20, "no byte was fetched twice");
}

#[tokio::test]
async fn a_wrong_digest_is_no_image() {
    let content = noise(300_032, 3);
    for ranges in [true, false] {
        let served = content.clone();
        let server = Server::start(move |request| match ranges {
            true => Reply::of(&served, "\"v1\"", request),
            false => Reply::new(200, &served),
        })
        .await;
        let scratch = Scratch::new();
        let error = scratch.pull(&server.url("/"), b"other").await.unwrap_err();
        let Error::DigestMismatch {
            expected, found, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(**expected, Sha256::of(b"other").into());
        assert_eq!(**found, Sha256::of(&content).into());
        scratch.assert_empty();
    }
}

#[tokio::test]
async fn servers_without_ranges() {
    let content = noise(500_224, 4);
    for (length_known, cuts) in [(true, 0), (false, 0), (true, 2)] {
        let served = content.clone();
        let server = Server::start(move |request| {
            let mut reply = Reply::new(200, &served);
            if !length_known {
                reply.length = None;
            }
            if request.n < cuts {
                reply.cut = Some(100_000 * (request.n + 1));
            }
            reply
        })
        .await;
        let scratch = Scratch::new();
        scratch.pull(&server.url("/"), &content).await.unwrap();
        scratch.assert_holds(&content);
        assert_eq!(server.requests().len(), cuts + 1);
    }
    // Chunked bodies end with a mark of their own.
    let served = content.clone();
    let server = Server::start(move |_| {
        let mut body = Vec::new();
        for chunk in served.chunks(70_000) {
            body.extend(format!("{:x}\r\n", chunk.len()).bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        let reply = Reply::new(200, &body).with("Transfer-Encoding", "chunked");
        Reply {
            length: None,
            ..reply
        }
    })
    .await;
    let scratch = Scratch::new();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
}

#[tokio::test]
async fn a_server_that_loses_its_ranges_is_read_from_the_start() {
    let content = noise(500_224, 5);
    let served = content.clone();
    let server = Server::start(move |request| match request.n {
        0 => Reply {
            cut: Some(10_000),
            ..Reply::of(&served, "\"v1\"", request)
        },
        _ => Reply::new(200, &served).with("ETag", "\"v1\""),
    })
    .await;
    let scratch = Scratch::with(one_connection());
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
    assert_eq!(server.requests().len(), 2);
}

fn one_connection() -> StoreOptions {
    let mut options = options();
    options.tuning.connections = 1;
    options
}

#[tokio::test]
async fn a_content_that_changes_midway_starts_afresh() {
    let (old, new) = (noise(400_384, 6), noise(400_384, 7));
    let content = new.clone();
    let server = Server::start(move |request| match request.n {
        0..3 => Reply::of(&old, "\"old\"", request),
        _ => Reply::of(&new, "\"new\"", request),
    })
    .await;
    let scratch = Scratch::with(one_connection());
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
    let requests = server.requests();
    assert_eq!(requests[1].header("if-range"), Some("\"old\""));
    assert_eq!(requests.last().unwrap().header("if-range"), Some("\"new\""));
}

#[tokio::test]
async fn a_content_that_never_stops_changing_is_given_up() {
    let content = noise(400_384, 8);
    for ignore_if_range in [true, false] {
        let served = content.clone();
        let server = Server::start(move |request| {
            let etag = format!("\"{}\"", request.n);
            let reply = Reply::of(&served, &etag, request);
            match (ignore_if_range, request.range()) {
                (true, Some((start, end))) => {
                    let end = end.min(400_384);
                    let body = &served[start as usize..end as usize];
                    Reply::new(206, body)
                        .with("Content-Range", format!("bytes {start}-{}/400384", end - 1))
                        .with("ETag", etag)
                }
                // A whole answer to If-Range is a new content; here it is cut off each time.
                _ => Reply {
                    cut: Some(1000),
                    ..reply
                },
            }
        })
        .await;
        let scratch = Scratch::new();
        let error = scratch.pull(&server.url("/"), &content).await.unwrap_err();
        assert!(
            matches!(error, Error::Changed { .. } | Error::GaveUp { .. }),
            "{error}"
        );
        assert_eq!(scratch.images().len(), 0);
        assert!(server.requests().len() < 40);
    }
}

#[tokio::test]
async fn a_stall_is_noticed_and_continued() {
    let content = noise(200_192, 10);
    let served = content.clone();
    let server = Server::start(move |request| {
        let stall = (request.n == 0).then_some(30_000);
        Reply {
            stall,
            ..Reply::of(&served, "\"v1\"", request)
        }
    })
    .await;
    let scratch = Scratch::with(StoreOptions {
        tuning: Tuning {
            connections: 1,
            ..impatient().tuning
        },
        ..impatient()
    });
    let began = Instant::now();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert_eq!(server.requests()[1].range().unwrap().0, 30_000);
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let content = noise(4096, 11);
    let served = content.clone();
    let server = Server::start(move |request| match request.n {
        0 => Reply::new(503, b"").with("Retry-After", 1),
        _ => Reply::of(&served, "\"v1\"", request),
    })
    .await;
    let scratch = Scratch::new();
    let began = Instant::now();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_allows_one_connection_is_served_by_one() {
    let content = noise(1 << 20, 12);
    let served = content.clone();
    let active = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut reply = Reply::of(&served, "\"v1\"", request);
        reply.pace = Duration::from_millis(2);
        // Only every other request in a row is let in.
        if active.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            return Reply::new(429, b"");
        }
        reply
    })
    .await;
    let scratch = Scratch::new();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    scratch.assert_holds(&content);
}

#[tokio::test]
async fn redirects_are_followed() {
    let content = noise(200_192, 13);
    let served = content.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/latest/image" => Reply::redirect("../v1/image"),
        "/v1/image" => Reply::redirect("//localhost:1/"),
        _ => Reply::of(&served, "\"v1\"", request),
    })
    .await;
    let scratch = Scratch::new();
    // The second hop leads to a closed port: it was followed.
    let error = scratch
        .pull(&server.url("/latest/image"), &content)
        .await
        .unwrap_err();
    let Error::GaveUp { last, .. } = &error else {
        panic!("{error}")
    };
    assert!(last.to_string().contains("localhost:1"), "{error}");

    let served = content.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/0" | "/1" | "/2" | "/3" | "/4" | "/5" | "/6" => {
            let next = request.path[1..].parse::<u32>().unwrap() + 1;
            Reply::redirect(next)
        }
        _ => Reply::of(&served, "\"v1\"", request),
    })
    .await;
    scratch.pull(&server.url("/0"), &content).await.unwrap();
    scratch.assert_holds(&content);
}

#[tokio::test]
async fn nobody_listens() {
    let scratch = Scratch::new();
    let error = scratch.pull("http://127.0.0.1:1/", b"x").await.unwrap_err();
    let Error::GaveUp { attempts: 3, last } = &error else {
        panic!("{error}")
    };
    assert!(last.to_string().contains("refused"), "{error}");
    for bad in [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1/",
        "x",
    ] {
        let error = scratch.pull(bad, b"x").await.unwrap_err();
        assert!(matches!(error, Error::Url { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn too_large_is_refused_before_and_while_it_comes() {
    let content = noise(400_384, 14);
    for (ranges, length) in [(true, true), (false, true), (false, false)] {
        let served = content.clone();
        let server = Server::start(move |request| match ranges {
            true => Reply::of(&served, "\"v1\"", request),
            false => Reply {
                length: length.then_some(served.len() as u64),
                pace: Duration::from_millis(2),
                ..Reply::new(200, &served)
            },
        })
        .await;
        let max = ByteSize::from_bytes(300_032);
        let scratch = Scratch::with(StoreOptions {
            max_image_size: max,
            ..options()
        });
        let error = scratch.pull(&server.url("/"), &content).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        let tmp: u64 = scratch
            .tmp()
            .iter()
            .map(|p| p.metadata().unwrap().len())
            .sum();
        assert!(tmp <= 300_032, "{tmp}");
        assert_eq!(scratch.images().len(), 0);
    }
}

#[tokio::test]
async fn a_full_disk_is_noticed_before_the_download() {
    let content = noise(400_384, 15);
    for ranges in [true, false] {
        let served = content.clone();
        let server = Server::start(move |request| match ranges {
            true => Reply::of(&served, "\"v1\"", request),
            false => Reply::new(200, &served),
        })
        .await;
        let reserve = ByteSize::from_bytes(1 << 60);
        let scratch = Scratch::with(StoreOptions {
            reserve,
            ..options()
        });
        let error = scratch.pull(&server.url("/"), &content).await.unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(server.requests().len(), 1);
        assert_eq!(scratch.images().len(), 0);
    }
}

#[tokio::test]
async fn pulls_of_one_image_are_one_download() {
    let content = noise(1 << 20, 16);
    let served = content.clone();
    let server = Server::start(move |request| {
        let pace = Duration::from_millis(10);
        Reply {
            pace,
            ..Reply::of(&served, "\"v1\"", request)
        }
    })
    .await;
    let scratch = Scratch::new();
    let url = server.url("/");
    let pull = || scratch.pull(&url, &content);
    // One of them loses interest on the way.
    let (a, b, c, lost) = tokio::join!(
        pull(),
        pull(),
        pull(),
        tokio::time::timeout(Duration::from_millis(40), pull())
    );
    assert!(lost.is_err());
    let image = a.unwrap();
    assert_eq!((b.unwrap(), c.unwrap()), (image.clone(), image));
    assert_eq!(server.sent(), 1 << 20);
    scratch.assert_holds(&content);

    // Whoever asks under another format waits for the same file.
    let scratch = Scratch::new();
    let mut raw = request(&url, Sha256::of(&content).into());
    raw.format = Some(Format::Raw);
    let (a, b) = tokio::join!(
        scratch.store.pull(&raw, |_| ()),
        scratch.pull(&url, &content)
    );
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(server.sent(), 2 << 20);
}

#[tokio::test]
async fn a_cancelled_pull_stops_and_can_be_continued() {
    let content = noise(2 << 20, 17);
    let served = content.clone();
    let server = Server::start(move |request| {
        let pace = Duration::from_millis(5);
        Reply {
            pace,
            ..Reply::of(&served, "\"v1\"", request)
        }
    })
    .await;
    let mut options = options();
    // Nothing is saved but at the end.
    options.tuning.save_every = Duration::from_secs(3600);
    let scratch = Scratch::with(options);
    let url = server.url("/");
    let wanted = request(&url, Sha256::of(&content).into());
    for n in 1..=3 {
        let reached = tokio::sync::Notify::new();
        let pull = scratch.store.pull(&wanted, |p| {
            if p.done >= ByteSize::from_bytes(n * (300 << 10)) {
                reached.notify_one();
            }
        });
        tokio::select! {
            result = pull => panic!("{result:?}"),
            () = reached.notified() => (),
        }
    }
    assert_eq!(scratch.images().len(), 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = server.sent();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.sent(), sent, "it goes on");
    let report = scratch.store.sweep().unwrap();
    assert_eq!((report.resumable.len(), report.removed.len()), (1, 0));

    scratch.pull(&url, &content).await.unwrap();
    scratch.assert_holds(&content);
    // What was on its way at each cancellation is fetched again: blocks of four connections.
    let waste = server.sent() - (2 << 20);
    assert!(waste < 3 * 4 * (256 << 10) + (1 << 20), "{waste}");
    assert!(sent > 0 && waste < sent, "{waste} of {sent}");
}

#[tokio::test]
async fn old_bytes_that_turn_out_wrong_are_fetched_again() {
    let (old, new) = (noise(400_384, 18), noise(400_384, 19));
    let content = new.clone();
    // Without validators nothing tells the two apart.
    let server = Server::start(move |request| {
        let content = if request.n < 3 { &old } else { &new };
        let mut reply = Reply::of(content, "", request);
        reply.headers.retain(|(name, _)| *name != "ETag");
        reply.stall = (request.n == 2).then_some(100);
        reply
    })
    .await;
    let scratch = Scratch::with(one_connection());
    let url = server.url("/");
    let pull = scratch.pull(&url, &content);
    tokio::time::timeout(Duration::from_millis(300), pull)
        .await
        .unwrap_err();
    let image = scratch.pull(&url, &content).await.unwrap();
    assert_eq!(image.digest, Sha256::of(&content));
    scratch.assert_holds(&content);
}

#[tokio::test]
async fn records_of_any_kind_do_no_harm() {
    let content = noise(400_384, 20);
    let server = Server::of(&content).await;
    let url = server.url("/");
    let digest: Digest = Sha256::of(&content).into();
    let hex: String = digest.hex().chars().take(40).collect();
    let plan = |total: u64, piece: u64, done: &str| {
        format!(
            r#"{{"url":"{url}","validator":{{"etag":"\"v1\"","last_modified":null}},"plan":{{"total":{total},"piece":{piece},"done":{done}}}}}"#
        )
    };
    let whole = content.len() as u64;
    let records = [
        String::new(),
        "garbage".to_owned(),
        "{}".to_owned(),
        "[".repeat(100_000),
        " ".repeat(2 << 20),
        plan(0, 0, "[]"),
        plan(u64::MAX, 1, "[1]"),
        plan(whole, whole, "[200000]"),
        plan(whole, whole, &format!("[{whole}]")),
        plan(whole, 200_192, "[0,200192]"),
        plan(whole, whole, &format!("[{}]", whole + 1)),
        plan(whole + 1, whole + 1, "[5]"),
        plan(whole, whole, "[18446744073709551615]"),
        plan(whole, whole, "[-1]"),
    ];
    for record in &records {
        for part in [0, 200_000, whole, whole + 5] {
            let scratch = Scratch::new();
            let tmp = scratch.dir.path().join("tmp");
            std::fs::write(tmp.join(format!("256-{hex}.json")), record).unwrap();
            std::fs::write(
                tmp.join(format!("256-{hex}.part")),
                noise(part as usize, 99),
            )
            .unwrap();
            scratch.pull(&url, &content).await.unwrap();
            scratch.assert_holds(&content);
        }
    }
}

#[tokio::test]
async fn a_hostile_image_with_the_right_digest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evil.qcow2");
    assert_eq!(
        create_volume(&path, ByteSize::from_gib(1), Format::Qcow2).unwrap(),
        Created::New
    );
    let mut content = std::fs::read(&path).unwrap();
    // A backing file: offset 112, 11 bytes.
    content[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 120, 0, 0, 0, 11]);
    content[120..131].copy_from_slice(b"/etc/shadow");
    let server = Server::of(&content).await;
    let scratch = Scratch::new();
    let error = scratch.pull(&server.url("/"), &content).await.unwrap_err();
    assert_eq!(
        error.flaw(),
        Some(&Flaw::BackingFile {
            name: "/etc/shadow".into()
        })
    );
    scratch.assert_empty();
}

#[tokio::test]
async fn the_announced_format_counts() {
    let content = noise(4096, 21);
    let server = Server::of(&content).await;
    let scratch = Scratch::new();
    let mut wanted = request(&server.url("/"), Sha256::of(&content).into());
    wanted.format = Some(Format::Qcow2);
    let error = scratch.store.pull(&wanted, |_| ()).await.unwrap_err();
    assert_eq!(error.flaw(), Some(&Flaw::NoMagic));
    scratch.assert_empty();
    scratch.pull(&server.url("/"), &content).await.unwrap();
    let error = scratch.store.pull(&wanted, |_| ()).await.unwrap_err();
    assert!(
        matches!(error.flaw(), Some(Flaw::WrongFormat { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn digests_come_from_a_list() {
    let content = noise(70_144, 22);
    let sums = sha512_line(&content, "debian-12.raw") + &sha512_line(b"", "other.raw");
    let served = content.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/12/SHA512SUMS" => Reply::new(200, sums.as_bytes()),
        "/12/debian-12.raw" => Reply::of(&served, "\"v1\"", request),
        "/endless" => Reply {
            length: None,
            ..Reply::new(200, &vec![b'x'; 4 << 20])
        },
        "/flaky" if request.n % 2 == 0 => Reply::new(500, b""),
        "/flaky" => Reply::new(200, sums.as_bytes()),
        _ => Reply::new(404, b""),
    })
    .await;
    let scratch = Scratch::new();
    let wanted = |list: &str, name: Option<&str>| PullRequest {
        url: server.url("/12/debian-12.raw"),
        expected: Expected::Sums {
            url: if list.contains(':') {
                list.to_owned()
            } else {
                server.url(list)
            },
            name: name.map(str::to_owned),
        },
        format: Some(Format::Raw),
    };
    let pull = async |list, name| scratch.store.pull(&wanted(list, name), |_| ()).await;
    let image = pull("/12/SHA512SUMS", None).await.unwrap();
    assert_eq!(image.digest, Sha256::of(&content));
    // The store finds it by the publisher's digest from now on.
    let sha512 = sha512(&content);
    assert_eq!(scratch.store.get(&sha512).unwrap(), Some(image.clone()));
    let before = server.sent();
    pull("/12/SHA512SUMS", Some("debian-12.raw")).await.unwrap();
    assert!(server.sent() - before < 1000);
    assert!(pull("/flaky", None).await.is_ok());

    for (list, name, what) in [
        ("/12/SHA512SUMS", Some("missing.raw"), "does not list"),
        ("/12/SHA512SUMS", Some(""), "does not list"),
        ("/endless", None, "more than"),
        ("/none", None, "404"),
        ("http://sums.example/SHA512SUMS", None, "only https"),
    ] {
        let error = pull(list, name).await.unwrap_err();
        assert!(error.to_string().contains(what), "{list}: {error}");
    }
    // A list that names the digest of something else.
    let error = pull("/12/SHA512SUMS", Some("other.raw")).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

fn sha512(content: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest::Sha512(sha2::Sha512::digest(content).into())
}

fn sha512_line(content: &[u8], name: &str) -> String {
    format!("{}  {name}\n", sha512(content).hex())
}

/// What a name promises is not believed: a damaged image is downloaded again, under whatever is
/// layered over it.
#[tokio::test]
async fn a_damaged_image_is_mended_by_a_pull() {
    let content = noise(1 << 20, 70);
    let server = Server::of(&content).await;
    let scratch = Scratch::new();
    let url = server.url("/x.img");
    let image = scratch.pull(&url, &content).await.unwrap();
    let asked = server.requests().len();
    scratch.pull(&url, &content).await.unwrap();
    assert_eq!(
        server.requests().len(),
        asked,
        "a sound image is not fetched"
    );

    let damage: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes[4000] ^= 1,
        |bytes| bytes.truncate(512 * 100),
        |bytes| bytes.clear(),
    ];
    for damage in damage {
        let mut bytes = content.clone();
        damage(&mut bytes);
        std::fs::remove_file(&image.path).unwrap();
        std::fs::write(&image.path, bytes).unwrap();
        assert!(scratch.store.verify(&image.digest, |_| ()).is_err());
        scratch.pull(&url, &content).await.unwrap();
        scratch.assert_holds(&content);
    }
}

/// Servers that treat a range badly, and have the content all the same.
#[tokio::test]
async fn bad_answers_to_a_range_are_got_round() {
    let content = noise(300_000 / 512 * 512, 71);
    type Bend = fn(&[u8], &pull_support::Request) -> Reply;
    let servers: &[(&str, Bend)] = &[
        ("416", |content, request| match request.range() {
            Some(_) => Reply::new(416, b""),
            None => Reply::new(200, content),
        }),
        ("400", |content, request| match request.range() {
            Some(_) => Reply::new(400, b"bad"),
            None => Reply::new(200, content),
        }),
        ("501", |content, request| match request.range() {
            Some(_) => Reply::new(501, b"bad"),
            None => Reply::new(200, content),
        }),
        ("a total of *", |content, request| {
            let reply = Reply::of(content, "\"v1\"", request);
            match request.range() {
                Some((start, end)) => {
                    let last = end.min(content.len() as u64) - 1;
                    reply.with("Content-Range", format!("bytes {start}-{last}/*"))
                }
                None => reply,
            }
        }),
        ("an empty encoding", |content, request| {
            Reply::of(content, "\"v1\"", request).with("Content-Encoding", "")
        }),
        ("aws-chunked", |content, request| {
            Reply::of(content, "\"v1\"", request).with("Content-Encoding", "aws-chunked, identity")
        }),
    ];
    for (name, bend) in servers {
        let (served, bend) = (content.clone(), *bend);
        let server = Server::start(move |request| bend(&served, request)).await;
        let scratch = Scratch::new();
        let pulled = scratch.pull(&server.url("/x.img"), &content).await;
        pulled.unwrap_or_else(|error| panic!("{name}: {error}"));
        scratch.assert_holds(&content);
    }
    // A body that is encoded is none.
    let served = content.clone();
    let server = Server::start(move |request| {
        Reply::of(&served, "\"v1\"", request).with("Content-Encoding", "gzip")
    })
    .await;
    let scratch = Scratch::new();
    let error = scratch
        .pull(&server.url("/x.img"), &content)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("encoded"), "{error}");
}
