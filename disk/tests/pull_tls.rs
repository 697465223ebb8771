//! Downloads over TLS: trusted are the machine's certificates, or those of `SSL_CERT_FILE`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod pull_support;

use std::{path::Path, process::Command, sync::Arc};

use disk::{Expected, ImageStore, PullRequest, Sha256};
use pull_support::{Reply, Server, noise, options};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

const ROLE: &str = "DISK_TEST_URLS";

/// Pulls, and prints how that went.
#[test]
#[ignore = "run by `client`"]
fn client_process() {
    let urls = std::env::var(ROLE).unwrap();
    let (list, image) = urls.split_once(' ').unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open_with(dir.path(), options()).unwrap();
    let wanted = PullRequest {
        url: image.to_owned(),
        expected: Expected::Sums {
            url: list.to_owned(),
            name: None,
        },
        format: None,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(store.pull(&wanted, |_| ())) {
        Ok(image) => println!("PULLED {}", image.digest),
        Err(error) => println!("ERROR {error}"),
    }
}

/// What a process that trusts the certificates in `roots` gets.
fn client(urls: &str, roots: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "client_process", "--nocapture", "--ignored"])
        .env(ROLE, urls)
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text
        .lines()
        .filter(|l| l.starts_with("PULLED") || l.starts_with("ERROR"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A certificate for `names` with its key, as `name.crt` and `name.key`.
fn certificate(dir: &Path, name: &str, names: &str) {
    let file = |suffix| dir.join(format!("{name}.{suffix}"));
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName={names}")])
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("crt"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn acceptor(dir: &Path, name: &str) -> TlsAcceptor {
    let file = |suffix| dir.join(format!("{name}.{suffix}"));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("crt")).unwrap()],
            PrivateKeyDer::from_pem_file(file("key")).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[test]
fn who_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificate(dir, "good", "DNS:localhost,IP:127.0.0.1");
    certificate(dir, "other", "DNS:elsewhere.example");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let content = noise(300_032, 41);
    let digest = Sha256::of(&content);
    let serve = |name| {
        let content = content.clone();
        let handler = move |request: &pull_support::Request| match request.path.as_str() {
            "/SHA256SUMS" => Reply::new(200, format!("{} *a.img\n", digest.hex()).as_bytes()),
            _ => Reply::of(&content, "\"v1\"", request),
        };
        runtime.block_on(Server::start_with(Some(acceptor(dir, name)), handler))
    };
    let urls = |server: &Server| {
        let host = format!("https://localhost:{}", server.port());
        format!("{host}/SHA256SUMS {host}/a.img")
    };

    let server = serve("good");
    assert_eq!(
        client(&urls(&server), &dir.join("good.crt")),
        format!("PULLED {digest}")
    );

    let asked = server.requests().len();
    let stranger = client(&urls(&server), &dir.join("other.crt"));
    assert!(
        stranger.starts_with("ERROR") && stranger.contains("certificate"),
        "{stranger}"
    );
    assert_eq!(
        server.requests().len(),
        asked,
        "asked over a connection that is not trusted"
    );

    let wrong_name = serve("other");
    let answer = client(&urls(&wrong_name), &dir.join("other.crt"));
    assert!(
        answer.starts_with("ERROR") && answer.contains("certificate"),
        "{answer}"
    );

    std::fs::write(dir.join("none.crt"), "").unwrap();
    let answer = client(&urls(&server), &dir.join("none.crt"));
    assert!(answer.contains("ca-certificates"), "{answer}");
}
