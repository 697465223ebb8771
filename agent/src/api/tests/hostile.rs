//! What a hostile or broken caller may send: the right status, an error as JSON,
//! and nothing changed.

use std::{sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::harness::{Bench, KEY, answer};
use crate::{api::MAX_BODY, config::Config};

struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// What the message must say.
    says: &'static str,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, says: &'static str) -> Case {
    let (method, path) = ("POST", "/v1/instances");
    Case {
        name,
        method,
        path,
        body: body.into(),
        status: 400,
        code: "invalid",
        says,
    }
}

/// The request for a good instance with one field changed.
fn with(field: &str, value: Value) -> Vec<u8> {
    let mut request = Bench::request("victim");
    request[field] = value;
    serde_json::to_vec(&request).unwrap()
}

/// The same, with a value that is not JSON or that no library would write.
fn with_text(field: &str, value: &str) -> Vec<u8> {
    String::from_utf8(with(field, json!("@@")))
        .unwrap()
        .replace("\"@@\"", value)
        .into_bytes()
}

fn volumes(mounts: &[&str]) -> Value {
    let volume = |(i, mount): (usize, &&str)| json!({"name": format!("v{i}"), "mount": mount});
    mounts.iter().enumerate().map(volume).collect()
}

static BOMB: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("#cloud-config\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    text
});

fn bodies() -> Vec<Case> {
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
    let ports = |n: u32| (1..=n).map(|p| p.to_string()).collect::<Vec<_>>();
    vec![
        case("empty body", "", "EOF"),
        case("no object", "[]", ""),
        case("truncated", "{\"name\": \"vic", "EOF"),
        case(
            "trailing garbage",
            [with("vcpus", json!(1)), b"{}".to_vec()].concat(),
            "trailing",
        ),
        case(
            "nested 100,000 deep",
            format!("{{\"name\":{}", "[".repeat(100_000)),
            "string",
        ),
        case(
            "nested in an ignored place",
            format!("{{\"x\":{}", "{\"x\":".repeat(50_000)),
            "x",
        ),
        case(
            "unknown field",
            with("priviledged", json!(true)),
            "priviledged",
        ),
        case(
            "the same field twice",
            with_text("vcpus", "1, \"vcpus\": 2"),
            "duplicate",
        ),
        case(
            "not UTF-8",
            with_text("name", "\"\u{0}\u{0}\"")
                .iter()
                .map(|b| if *b == 0 { 0xff } else { *b })
                .collect::<Vec<_>>(),
            "",
        ),
        case(
            "half a surrogate",
            with_text("name", "\"\\ud800\""),
            "hex escape",
        ),
        case("wrong type", with("name", json!(5)), "string"),
        case(
            "null where a value must be",
            with("vcpus", json!(null)),
            "null",
        ),
        case("negative", with("vcpus", json!(-1)), "-1"),
        case("fraction", with("vcpus", json!(1.5)), "1.5"),
        case(
            "beyond 64 bits",
            with_text("vcpus", "18446744073709551616"),
            "",
        ),
        case(
            "beyond any float",
            with_text("memory_mib", "1e400"),
            "range",
        ),
        case("not a number", with_text("vcpus", "NaN"), ""),
        case("no CPU", with("vcpus", json!(0)), "vcpus"),
        case(
            "too much memory",
            with("memory_mib", json!(u64::MAX)),
            "memory",
        ),
        case("too little memory", with("memory_mib", json!(1)), "memory"),
        case(
            "too large a disk",
            with("disk_mib", json!(u64::MAX)),
            "disk",
        ),
        case(
            "smaller than the image",
            with("disk_mib", json!(64 - 1)),
            "disk",
        ),
        case(
            "name climbs out",
            with("name", json!("../../etc/passwd")),
            "name",
        ),
        case("name is an option", with("name", json!("-rf")), "name"),
        case("NUL in the name", with("name", json!("a\0b")), "name"),
        case(
            "terminal codes in the name",
            with("name", json!("\u{1b}[2J")),
            "name",
        ),
        case("long name", with("name", json!("x".repeat(64))), "name"),
        case(
            "huge name",
            with("name", json!("x".repeat(500_000))),
            "name",
        ),
        case(
            "image climbs out",
            with("image", json!("../../../etc/shadow")),
            "image",
        ),
        case(
            "image nobody has",
            with("image", json!("windows:95")),
            "windows:95",
        ),
        case(
            "digest nobody has",
            with("image", json!(format!("sha256:{}", "a".repeat(64)))),
            "neither",
        ),
        case("257 keys", with("ssh_keys", json!(vec![KEY; 257])), "257"),
        case(
            "a private key",
            with("ssh_keys", json!([private])),
            "SSH key",
        ),
        case(
            "two keys in one",
            with("ssh_keys", json!([format!("{KEY}\n{KEY}")])),
            "SSH key",
        ),
        case(
            "1,025 ports",
            with("allowed_ports", json!(ports(1025))),
            "1025",
        ),
        case("port 0", with("allowed_ports", json!(["0"])), "port"),
        case(
            "port 65536",
            with("allowed_ports", json!(["65536"])),
            "port",
        ),
        case(
            "port is a rule",
            with("allowed_ports", json!(["22 accept; flush ruleset"])),
            "port",
        ),
        case(
            "ports backwards",
            with("allowed_ports", json!(["443-80"])),
            "port",
        ),
        case("17 volumes", with("volumes", volumes(&["/m"; 17])), "17"),
        case(
            "two at one mount point",
            with("volumes", volumes(&["/data", "/data"])),
            "/data",
        ),
        case(
            "mount climbs out",
            with("volumes", volumes(&["/etc/.."])),
            "mount",
        ),
        case(
            "mount over the system",
            with("volumes", volumes(&["/usr/lib"])),
            "mount",
        ),
        case(
            "mount with a line end",
            with("volumes", volumes(&["/data\n/etc"])),
            "mount",
        ),
        case(
            "relative mount",
            with("volumes", volumes(&["data"])),
            "mount",
        ),
        case(
            "volume without size",
            with("volumes", json!([{"name": "v", "size_mib": 0}])),
            "size",
        ),
        case(
            "unknown field inside",
            with("volumes", json!([{"name": "v", "path": "/dev/sda"}])),
            "path",
        ),
        case("alias bomb", with("cloud_init", json!(*BOMB)), "cloud-init"),
        case(
            "cloud-init that is none",
            with("cloud_init", json!("rm -rf /")),
            "cloud-init",
        ),
        case(
            "cloud-init 900 KiB deep",
            with(
                "cloud_init",
                json!(format!("#cloud-config\na: {}", "[".repeat(900_000))),
            ),
            "cloud-init",
        ),
        case(
            "firmware nobody knows",
            with("firmware", json!("coreboot")),
            "coreboot",
        ),
    ]
}

fn paths() -> Vec<Case> {
    let at = |name, method, path, status, code| Case {
        name,
        method,
        path,
        status,
        code,
        body: Vec::new(),
        says: "",
    };
    let body = |name, method, path, body: Value, code| Case {
        body: serde_json::to_vec(&body).unwrap(),
        ..at(name, method, path, 400, code)
    };
    vec![
        at("no such path", "GET", "/v2/instances", 404, "not_found"),
        at(
            "a path that climbs",
            "GET",
            "/v1/../../etc/passwd",
            404,
            "not_found",
        ),
        at(
            "climbing instance",
            "GET",
            "/v1/instances/..%2F..%2Fetc",
            404,
            "not_found",
        ),
        at(
            "NUL in a reference",
            "GET",
            "/v1/instances/a%00b",
            400,
            "invalid",
        ),
        at(
            "reference not UTF-8",
            "GET",
            "/v1/instances/%ff%fe",
            400,
            "invalid",
        ),
        at(
            "SQL in a reference",
            "GET",
            "/v1/instances/x'%20OR%20'1'='1",
            404,
            "not_found",
        ),
        at(
            "globs in a reference",
            "DELETE",
            "/v1/instances/******",
            404,
            "not_found",
        ),
        at(
            "method nobody takes",
            "PUT",
            "/v1/instances",
            405,
            "method_not_allowed",
        ),
        at(
            "made-up method",
            "BREW",
            "/v1/status",
            405,
            "method_not_allowed",
        ),
        at(
            "unknown parameter",
            "GET",
            "/v1/events?evil=1",
            400,
            "invalid",
        ),
        at(
            "parameter of a wrong type",
            "GET",
            "/v1/events?after=soon",
            400,
            "invalid",
        ),
        at(
            "deleting nothing",
            "DELETE",
            "/v1/volumes/nothing",
            404,
            "not_found",
        ),
        at(
            "removing nothing",
            "DELETE",
            "/v1/images/nothing",
            404,
            "not_found",
        ),
        at(
            "console without upgrade",
            "GET",
            "/v1/instances/good/console/attach",
            426,
            "upgrade_required",
        ),
        body(
            "volume climbs out",
            "POST",
            "/v1/volumes",
            json!({"name": "../x"}),
            "invalid",
        ),
        body(
            "volume without size",
            "POST",
            "/v1/volumes",
            json!({"name": "x", "size_mib": 0}),
            "invalid",
        ),
        body(
            "volume beyond all",
            "POST",
            "/v1/volumes",
            json!({"name": "x", "size_mib": u64::MAX}),
            "invalid",
        ),
        body(
            "import of a relative path",
            "POST",
            "/v1/images/import",
            json!({"name": "x", "path": "etc/passwd"}),
            "invalid",
        ),
        body(
            "import as a digest",
            "POST",
            "/v1/images/import",
            json!({"name": "x", "path": "/x", "digest": "md5:1"}),
            "invalid",
        ),
        body(
            "pull of a path",
            "POST",
            "/v1/images/pull",
            json!({"image": "/etc/passwd"}),
            "invalid",
        ),
        body(
            "ports that are none",
            "PATCH",
            "/v1/instances/good/ports",
            json!({"allow": ["any"]}),
            "invalid",
        ),
        body(
            "change of what is not there",
            "PATCH",
            "/v1/instances/good/ports",
            json!({"open": ["80"]}),
            "invalid",
        ),
        body(
            "force by text",
            "POST",
            "/v1/instances/good/stop",
            json!({"force": "yes"}),
            "invalid",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_and_change_nothing() {
    let bench = Bench::new().await;
    bench.image("tiny").await;
    bench.instance("good").await;
    // The last event of the preparation is recorded by now or in a moment.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = bench.records();
    let cases: Vec<_> = bodies().into_iter().chain(paths()).collect();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let answer = bench.send(case.method, case.path, &case.body).await;
        let right = answer.status == case.status
            && answer.code().as_deref() == Some(case.code)
            && answer.body.contains(case.says)
            && answer.body.len() < 1024
            && bench.records() == before;
        if !right {
            wrong.push(format!("{}: {answer:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_transfers_are_refused_and_change_nothing() {
    let bench = Bench::new().await;
    let before = bench.records();
    let head = |more: &str| {
        format!(
            "POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}\r\n"
        )
    };
    let fields: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    let table: [(&str, Vec<u8>, u16, Option<&str>); 9] = [
        (
            "a body too large",
            head(&format!("Content-Length: {}\r\n", MAX_BODY + 1)).into(),
            413,
            Some("too_large"),
        ),
        (
            "a length beyond numbers",
            head("Content-Length: 99999999999999999999999\r\n").into(),
            400,
            None,
        ),
        (
            "two lengths",
            head("Content-Length: 5\r\nContent-Length: 6\r\n").into(),
            400,
            None,
        ),
        (
            "not JSON by name",
            head("Content-Length: 2\r\n")
                .replace("application/json", "text/plain")
                .into_bytes()
                .into_iter()
                .chain(*b"{}")
                .collect(),
            415,
            Some("unsupported_media_type"),
        ),
        ("200 header fields", head(&fields).into(), 431, None),
        (
            "a header without end",
            head(&format!("X: {}\r\n", "y".repeat(200_000))).into(),
            431,
            None,
        ),
        (
            "no HTTP at all",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n".to_vec(),
            400,
            None,
        ),
        (
            "key with a space",
            head("Content-Length: 2\r\nIdempotency-Key: a b\r\n")
                .into_bytes()
                .into_iter()
                .chain(*b"{}")
                .collect(),
            400,
            Some("invalid"),
        ),
        (
            "last event of no kind",
            b"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: x\r\n\r\n".to_vec(),
            400,
            Some("invalid"),
        ),
    ];
    for (name, request, status, code) in table {
        let answer = bench.raw(&request).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        // What is no HTTP is refused before any of our code sees it.
        assert_eq!(answer.code().as_deref(), code, "{name}: {answer:?}");
        assert_eq!(bench.records(), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_body_is_cut_off() {
    let bench = Bench::new().await;
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    let head = "POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
    let mut sent = 0;
    while sent < 64 * MAX_BODY && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x1_0000;
    }
    assert!(sent < 4 * MAX_BODY, "{sent} bytes were taken");
    let answer = answer(&mut stream).await;
    // The answer may be lost with the connection; it is never another one.
    assert!(matches!(answer.status, 413 | 0), "{answer:?}");
}

/// Time is simulated: nothing but the slow caller is waited for.
#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    let bench = Bench::new().await;
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    let head = "POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = answer(&mut stream).await;
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (408, Some("request_timeout")),
        "{answer:?}"
    );
    assert!(answer.head.contains("connection: close"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_given_up() {
    let bench = Bench::new().await;
    let mut stream = UnixStream::connect(&bench.socket).await.unwrap();
    stream
        .write_all(b"GET /v1/status HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    let answer = answer(&mut stream).await;
    assert!(matches!(answer.status, 408 | 0), "{answer:?}");
    assert!(
        began.elapsed() <= Duration::from_secs(11),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_says_so() {
    let bench = Bench::with(|c: &mut Config| c.limits.instances = 1).await;
    bench.image("tiny").await;
    bench.instance("first").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = bench.records();
    for (field, value) in [
        ("vcpus", json!(1)),
        ("vcpus", json!(65)),
        ("memory_mib", json!(70_000)),
    ] {
        let answer = bench
            .send("POST", "/v1/instances", &with(field, value))
            .await;
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (507, Some("no_capacity")),
            "{answer:?}"
        );
        assert_eq!(bench.records(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_are_told_to_come_back() {
    let bench = Bench::new().await;
    let mut held = Vec::new();
    // This process's own user has 16 more than others.
    for _ in 0..256 + 16 {
        held.push(UnixStream::connect(&bench.socket).await.unwrap());
    }
    // The accepting task may be behind.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = bench.raw(b"").await;
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (503, Some("unavailable")),
        "{answer:?}"
    );
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.send("GET", "/v1/status", b"").await.status, 200);
}
