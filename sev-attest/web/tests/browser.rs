//! The page in a real browser: what it says of a report is what the command says.
//!
//! `web/test.sh` builds the page and the command, and runs this. Chromium is driven by chromedriver
//! over loopback; the page is served from loopback too, and once opened as a file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod driver;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use driver::Browser;

const AT: &str = "2026-08-18T00:00:00Z";

fn path_of(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: run web/test.sh"),
    }
}

fn vector(name: &str) -> PathBuf {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    vectors.join(name).canonicalize().unwrap()
}

/// Serves the files of a directory and keeps the paths that were asked for.
fn serve(directory: PathBuf) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(request) = lines.next() else {
                continue;
            };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request
                .split(' ')
                .nth(1)
                .unwrap()
                .trim_start_matches('/')
                .to_owned();
            log.lock().unwrap().push(path.clone());
            let kind = match path.rsplit('.').next() {
                Some("html") => "text/html",
                Some("css") => "text/css",
                _ => "text/javascript",
            };
            let body = std::fs::read(directory.join(&path));
            let status = if body.is_ok() {
                "200 OK"
            } else {
                "404 Not Found"
            };
            let body = body.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    (url, asked)
}

/// What the command says of the report, as the page should say it.
fn command(report: &Path, certificates: Option<&Path>, more: &[&str]) -> Value {
    let mut command = Command::new(path_of("SEV_ATTEST_BIN"));
    command
        .arg("verify")
        .arg(report)
        .args(["--offline", "--json", "--at", AT]);
    let empty = tempfile::tempdir().unwrap();
    command.arg("--cache-dir").arg(empty.path()).args(more);
    if let Some(certificates) = certificates {
        command.arg("--certs").arg(certificates);
    }
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

/// What the page says of these files.
fn page(browser: &Browser, url: &str, files: &[&Path], fields: &[(&str, &str)]) -> (String, Value) {
    browser.go(url);
    browser.script(&format!("document.getElementById('at').value = '{AT}'"));
    for (id, value) in fields {
        browser.script(&format!(
            "document.getElementById('{id}').value = '{value}'"
        ));
    }
    browser.give("#files", files);
    let outcome = browser.wait("return document.body.dataset.outcome");
    let text = browser.script("return document.querySelector('#raw pre').textContent");
    let outcome = outcome.as_str().unwrap().to_owned();
    (
        outcome,
        serde_json::from_str(text.as_str().unwrap()).unwrap_or(Value::Null),
    )
}

#[test]
#[ignore = "needs Chromium and the built page: run web/test.sh"]
fn the_page_says_what_the_command_says() {
    let dist = path_of("SEV_ATTEST_WEB_DIST");
    let (url, asked) = serve(dist.clone());
    let url = format!("{url}index.html");
    let browser = Browser::start();

    let (report, vcek) = (
        vector("az-milan-v3-report.bin"),
        vector("az-milan-v3-vcek.der"),
    );
    let bytes = std::fs::read(&report).unwrap();
    let measurement = hex::encode(&bytes[0x90..0xc0]);

    // genuine, with nothing expected and with the right digest
    let expected = command(&report, Some(&vcek), &[]);
    assert_eq!(expected["outcome"], "incomplete");
    let (outcome, said) = page(&browser, &url, &[&report, &vcek], &[]);
    assert_eq!(said, expected);
    assert_eq!(outcome, "open", "nothing was expected: no green light");
    browser.screenshot("nothing-expected");
    let (outcome, said) = page(
        &browser,
        &url,
        &[&report, &vcek],
        &[("measurement", &measurement)],
    );
    assert_eq!(
        said,
        command(&report, Some(&vcek), &["--measurement", &measurement])
    );
    assert_eq!(outcome, "open", "it can be an old report: no green light");
    let data = hex::encode(&bytes[0x50..0x90]);
    let (outcome, said) = page(
        &browser,
        &url,
        &[&report, &vcek],
        &[("measurement", &measurement), ("report_data", &data)],
    );
    let flags = ["--measurement", &measurement, "--report-data", &data];
    assert_eq!(said, command(&report, Some(&vcek), &flags));
    assert_eq!(outcome, "genuine");
    let summary = browser.script("return document.querySelector('#summary').textContent");
    let summary = summary.as_str().unwrap();
    assert!(
        summary.starts_with("verdict: genuine and as expected\n"),
        "{summary}"
    );
    assert!(summary.lines().count() <= 40, "{summary}");
    browser.screenshot("genuine");

    // without certificates
    let (outcome, said) = page(&browser, &url, &[&report], &[]);
    assert_eq!(said, command(&report, None, &[]));
    assert_eq!(outcome, "undecided");

    // tampered, and with another chip's certificate
    let directory = tempfile::tempdir().unwrap();
    let tampered = directory.path().join("tampered.bin");
    let mut changed = bytes.clone();
    changed[0x90] ^= 1;
    std::fs::write(&tampered, changed).unwrap();
    let (outcome, said) = page(&browser, &url, &[&tampered, &vcek], &[]);
    assert_eq!(said, command(&tampered, Some(&vcek), &[]));
    assert_eq!(outcome, "refused");
    browser.screenshot("refused");
    let other = vector("coco-milan-vcek.der");
    let (outcome, said) = page(&browser, &url, &[&report, &other], &[]);
    assert_eq!(said, command(&report, Some(&other), &[]));
    assert_eq!(outcome, "refused");

    // Genoa, and a file that is neither
    let (report, vcek) = (vector("az-genoa-report.bin"), vector("az-genoa-vcek.der"));
    let (outcome, said) = page(
        &browser,
        &url,
        &[&report, &vcek],
        &[("measurement", &measurement)],
    );
    assert_eq!(
        said,
        command(&report, Some(&vcek), &["--measurement", &measurement])
    );
    assert_eq!(outcome, "refused");
    let nonsense = directory.path().join("nonsense");
    std::fs::write(&nonsense, "hello").unwrap();
    let (outcome, said) = page(&browser, &url, &[&nonsense], &[]);
    assert_eq!((outcome.as_str(), said), ("undecided", Value::Null));
    let title = browser.script("return document.querySelector('#verdict').textContent");
    assert!(
        title.as_str().unwrap().starts_with("Nothing was verified"),
        "{title}"
    );

    // dropped instead of chosen, on a page that was opened as a file
    let file_url = format!(
        "file://{}",
        dist.canonicalize().unwrap().join("index.html").display()
    );
    browser.go(&file_url);
    browser.script(&format!("document.getElementById('at').value = '{AT}'"));
    browser.drop_files(&[&report, &vcek]);
    let outcome = browser.wait("return document.body.dataset.outcome");
    assert_eq!(outcome, "open");
    let text = browser.script("return document.querySelector('#raw pre').textContent");
    let said: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(said, command(&report, Some(&vcek), &[]));

    // in the dark, and on a small screen
    browser.dark();
    browser.screenshot("dark");

    // the page asked for its own four files, and its policy lets it ask for nothing else
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    asked.dedup();
    assert_eq!(asked, ["app.js", "index.html", "style.css", "verify.js"]);
    browser.go(&url);
    let blocked = browser
        .script("return fetch('index.html').then(() => 'reached', (error) => 'blocked: ' + error)");
    assert!(
        blocked.as_str().unwrap().starts_with("blocked"),
        "{blocked}"
    );
}

/// The npm package as a module of a page, without a bundler.
#[test]
#[ignore = "needs Chromium and the built package: run web/test.sh"]
fn the_npm_package_says_what_the_command_says() {
    let package = path_of("SEV_ATTEST_NPM_DIST");
    let site = tempfile::tempdir().unwrap();
    for name in ["index.js", "wasm.js"] {
        std::fs::copy(package.join(name), site.path().join(name)).unwrap();
    }
    std::fs::write(
        site.path().join("index.html"),
        "<!doctype html><title>t</title>",
    )
    .unwrap();
    let (url, _) = serve(site.path().to_owned());
    let browser = Browser::start();
    browser.go(&format!("{url}index.html"));
    let (report, vcek) = (
        vector("az-milan-v3-report.bin"),
        vector("az-milan-v3-vcek.der"),
    );
    let hex = |path: &Path| hex::encode(std::fs::read(path).unwrap());
    let appraise = |report: &str, options: &str| {
        browser.script(&format!(
            "const bytes = (hex) => Uint8Array.from(hex.match(/../g), (b) => parseInt(b, 16));
             return import('{url}index.js')
                .then(({{ appraise }}) => appraise(bytes('{report}'), {{
                    certificates: [bytes('{vcek}')], at: new Date('{AT}'), {options} }}))
                .then((result) => result.appraisal, (error) => error.name)",
            vcek = hex(&vcek),
        ))
    };
    let genuine = hex(&report);
    for (options, flags) in [
        ("", &[][..]),
        (
            "anyGuest: true, anyTime: true",
            &["--any-guest", "--any-time"],
        ),
    ] {
        let expected = command(&report, Some(&vcek), flags);
        assert_eq!(appraise(&genuine, options), expected);
    }
    assert_eq!(appraise("00", ""), "AttestationError");
}
