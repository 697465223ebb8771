//! Servers that lie, one line each: what is found out, and after how many requests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod pull_support;

use std::time::Duration;

use disk::{Error, Flaw};
use pull_support::{Reply, Request, Scratch, Server, impatient, noise, options};

/// What each lie leads to, with how many requests at most.
#[tokio::test]
async fn lies_are_found_out() {
    type Lie = fn(&[u8], &Request) -> Reply;
    type Check = fn(&Error) -> bool;
    let lies: &[(&str, Lie, Check, usize)] = &[
        (
            "Content-Length above the body",
            |content, _| Reply {
                length: Some(content.len() as u64 * 2),
                ..Reply::new(200, content)
            },
            |e| matches!(e, Error::GaveUp { last, .. } if matches!(**last, Error::Transfer { .. })),
            3,
        ),
        (
            "Content-Length below the body",
            |content, _| Reply {
                length: Some(1024),
                ..Reply::new(200, content)
            },
            |e| matches!(e, Error::DigestMismatch { .. }),
            1,
        ),
        (
            "a total above the content, rest missing",
            |content, request| {
                let (start, end) = request.range().unwrap();
                let total = content.len() as u64;
                if start >= total {
                    return Reply::new(416, b"");
                }
                let end = end.min(total);
                Reply::new(206, &content[start as usize..end as usize]).with(
                    "Content-Range",
                    format!("bytes {start}-{}/{}", end - 1, total * 3),
                )
            },
            |e| matches!(e, Error::Changed { .. }),
            60,
        ),
        (
            "another part than asked for",
            |content, _| {
                Reply::new(206, &content[512..1024])
                    .with("Content-Range", format!("bytes 512-1023/{}", content.len()))
            },
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "a part without its place",
            |content, _| Reply::new(206, &content[..1024]),
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "a part of an unknown total",
            |content, _| Reply::new(206, &content[..1024]).with("Content-Range", "bytes 0-1023/*"),
            |e| matches!(e, Error::Protocol { .. }),
            2,
        ),
        (
            "more bytes than asked for",
            |content, request| {
                let mut reply = Reply::of(content, "\"v\"", request);
                reply.body = content.to_vec();
                reply.length = Some(content.len() as u64);
                reply
            },
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "an empty part",
            |content, request| {
                let (total, start) = (content.len(), request.range().unwrap().0);
                Reply::new(206, b"").with(
                    "Content-Range",
                    format!("bytes {start}-{}/{total}", start + 511),
                )
            },
            |e| matches!(e, Error::GaveUp { .. }),
            12,
        ),
        (
            "an encoded body",
            |content, request| {
                Reply::of(content, "\"v\"", request).with("Content-Encoding", "gzip")
            },
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "several parts in one",
            |content, _| {
                Reply::new(206, content).with("Content-Type", "multipart/byteranges; boundary=x")
            },
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "no content",
            |_, _| Reply {
                length: None,
                ..Reply::new(204, b"")
            },
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "an empty file",
            |_, _| Reply::new(200, b""),
            |e| e.flaw() == Some(&Flaw::Empty),
            1,
        ),
        (
            "an empty file, by range",
            |_, _| Reply::new(416, b"").with("Content-Range", "bytes */0"),
            // Asked for the whole of it, it gives the same answer.
            |e| matches!(e, Error::Status { status: 416, .. }),
            2,
        ),
        (
            "a web page",
            |_, _| Reply::new(200, b"<html>log in</html>"),
            |e| matches!(e, Error::DigestMismatch { .. }),
            1,
        ),
        (
            "not found",
            |_, _| Reply::new(404, b"<html>"),
            |e| matches!(e, Error::Status { status: 404, .. }),
            1,
        ),
        (
            "not changed",
            |_, _| Reply {
                length: None,
                ..Reply::new(304, b"")
            },
            |e| matches!(e, Error::Status { status: 304, .. }),
            1,
        ),
        (
            "an error that stays",
            |_, _| Reply::new(502, b""),
            |e| matches!(e, Error::GaveUp { last, .. } if matches!(**last, Error::Status { status: 502, .. })),
            3,
        ),
        (
            "a pause that is too long",
            |_, _| Reply::new(503, b"").with("Retry-After", 3600),
            |e| {
                matches!(
                    e,
                    Error::Status {
                        status: 503,
                        retry_after: Some(_),
                        ..
                    }
                )
            },
            1,
        ),
        (
            "silence",
            |content, _| Reply {
                stall: Some(0),
                ..Reply::new(200, content)
            },
            |e| matches!(e, Error::GaveUp { last, .. } if matches!(**last, Error::Stalled { .. })),
            3,
        ),
        (
            "no answer at all",
            |content, _| Reply {
                delay: Duration::from_secs(60),
                ..Reply::new(200, content)
            },
            |e| matches!(e, Error::GaveUp { last, .. } if matches!(**last, Error::Stalled { .. })),
            3,
        ),
        (
            "a redirect to nowhere",
            |_, _| Reply::new(302, b""),
            |e| matches!(e, Error::Protocol { .. }),
            1,
        ),
        (
            "a redirect in a circle",
            |_, request| Reply::redirect(format!("/{}", request.n)),
            |e| matches!(e, Error::Protocol { .. }),
            9,
        ),
        (
            "a redirect to a file",
            |_, _| Reply::redirect("file:///etc/passwd"),
            |e| matches!(e, Error::Url { .. }),
            1,
        ),
        (
            "a redirect with a password",
            |_, _| Reply::redirect("http://user:secret@127.0.0.1:9/"),
            |e| matches!(e, Error::Url { .. }) && !e.to_string().contains("secret"),
            1,
        ),
        (
            "garbage in the head",
            |content, _| Reply {
                headers: vec![("\0\0", "x".into())],
                ..Reply::new(200, content)
            },
            |e| matches!(e, Error::GaveUp { .. }),
            3,
        ),
        (
            "an endless head",
            |content, _| Reply::new(200, content).with("X", "y".repeat(2 << 20)),
            |e| matches!(e, Error::GaveUp { .. }),
            3,
        ),
    ];
    let content = noise(200_192, 9);
    for (name, lie, check, most) in lies {
        let (served, lie) = (content.clone(), *lie);
        let server = Server::start(move |request| lie(&served, request)).await;
        let silent = matches!(*name, "silence" | "no answer at all");
        let scratch = Scratch::with(if silent { impatient() } else { options() });
        let error = scratch
            .pull(&server.url("/?token=hidden"), &content)
            .await
            .unwrap_err();
        assert!(check(&error), "{name}: {error} ({error:?})");
        assert!(!error.to_string().contains("hidden"), "{name}: {error}");
        let n = server.requests().len();
        assert!(n <= *most, "{name}: {n} requests");
        assert_eq!(scratch.images().len(), 0, "{name}");
    }
}
