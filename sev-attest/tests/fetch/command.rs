//! The command against the scripted service.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sev_attest::product::Product;
use sev_attest_issuer::{CrlSpec, RsaKey};

use crate::server::{Reply, Server};
use crate::support::{GENOA_CHAIN, MILAN_CHAIN, MILAN_CRL, MILAN_VLEK_CHAIN, files, milan, vector};

fn sev_attest(cache: &Path, url: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sev-attest"))
        .arg("fetch")
        .args(args)
        .args([
            "--kds-url",
            url,
            "--max-wait",
            "10",
            "--request-timeout",
            "5",
        ])
        .arg("--cache-dir")
        .arg(cache)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(directory: &Path) -> String {
    let path = directory.join("report.bin");
    fs::write(&path, milan().0.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn kds(path: &str) -> Reply {
    match path {
        "/vcek/v1/Milan/cert_chain" => Reply::Ok(MILAN_CHAIN.into()),
        "/vlek/v1/Milan/cert_chain" => Reply::Ok(MILAN_VLEK_CHAIN.into()),
        "/vcek/v1/Milan/crl" => Reply::Ok(MILAN_CRL.to_vec()),
        _ if path.starts_with("/vcek/v1/Milan/") => Reply::Ok(milan().1),
        _ => Reply::status(404),
    }
}

#[test]
fn each_kind() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let server = Server::start(vec![], kds);
    let report = report(directory.path());
    let file = directory.path().join("out");
    let file = file.to_str().unwrap();
    for (args, expected) in [
        (
            vec!["ca", "--product", "milan", "-o", file],
            MILAN_CHAIN.replace('\r', "").into_bytes(),
        ),
        (
            vec!["vlek", "--product", "Milan", "-o", file],
            MILAN_VLEK_CHAIN.into(),
        ),
        (
            vec!["crl", "--product", "milan", "-o", file],
            MILAN_CRL.to_vec(),
        ),
        (vec!["vcek", &report, "-o", file], milan().1),
    ] {
        let _ = fs::remove_file(file);
        let output = sev_attest(&cache, &server.url, &args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        let line = text(&output.stdout);
        assert!(line.starts_with(&server.url), "{line}");
        let written = fs::read(file).unwrap();
        let squeezed = |bytes: &[u8]| {
            let all = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
            all.copied().collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&written), squeezed(&expected), "{args:?}");
    }
    assert_eq!(files(&cache).len(), 4);
    // from the cache now, to standard output, as PEM
    let output = sev_attest(&cache, &server.url, &["vcek", &report, "--pem", "-o", "-"]);
    assert!(text(&output.stdout).starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_link_named_as_output_is_written_through() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let name = link.to_str().unwrap();
    let args = ["crl", "--product", "milan", "-o", name];
    let output = sev_attest(directory.path(), &server.url, &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/null"));
}

#[test]
fn by_chip_and_tcb() {
    let (report, vcek) = milan();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let chip = hex::encode(report.chip_id.0);
    let tcb = report
        .reported_tcb
        .0
        .to_le_bytes()
        .map(|svn| svn.to_string());
    let mut args = vec![
        "vcek",
        "--product",
        "milan",
        "--hwid",
        &chip,
        "--bl-spl",
        &tcb[0],
    ];
    args.extend([
        "--tee-spl",
        &tcb[1],
        "--snp-spl",
        &tcb[6],
        "--ucode-spl",
        &tcb[7],
        "-o",
        "-",
    ]);
    let output = sev_attest(directory.path(), &server.url, &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, vcek);
    // one that is not the chip's is not taken
    args[6] = "77";
    let output = sev_attest(directory.path(), &server.url, &args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    for (position, value) in [(4, "00"), (4, "zz"), (2, "turin"), (2, "rome")] {
        let mut wrong = args.clone();
        wrong[position] = value;
        let output = sev_attest(directory.path(), &server.url, &wrong);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}

#[test]
fn bundle() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let report = report(directory.path());
    let target = directory.path().join("bundle");
    let target = target.to_str().unwrap();
    // past the list's end the service's word counts as it is: the appraisal judges it
    let server = Server::start(vec![], kds);
    let output = sev_attest(&cache, &server.url, &["--bundle", target, &report]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("the revocation list is valid until 2026-09-10T00:00:00Z"),
        "{said}"
    );
    assert!(
        said.ends_with(&format!("--offline --certs {target} {report}\n")),
        "{said}"
    );
    assert_eq!(files(Path::new(target)).len(), 3);
}

#[test]
fn exit_status_tells_what_failed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let report = report(directory.path());
    let status = |script: Vec<Reply>, args: &[&str]| {
        let server = Server::start(script, |_| Reply::Ok(GENOA_CHAIN.into()));
        let output = sev_attest(&cache, &server.url, args);
        let said = text(&output.stderr);
        assert!(
            said.starts_with("sev-attest: ") || said.starts_with("error: "),
            "{said}"
        );
        output.status.code().unwrap()
    };
    let ca = ["ca", "--product", "milan"];
    assert_eq!(status(vec![], &ca), 1, "not genuine");
    assert_eq!(status(vec![Reply::status(404)], &ca), 3, "not there");
    assert_eq!(status(vec![Reply::busy("3600")], &ca), 3, "busy");
    assert_eq!(
        status(vec![Reply::status(404); 2], &["vcek", &report]),
        3,
        "no such key"
    );
    assert_eq!(status(vec![], &["vcek", "/nonexistent"]), 2);
    assert_eq!(status(vec![], &["vcek"]), 2);
    let newer = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/az-milan-v3-report.bin"
    );
    assert_eq!(
        status(vec![], &["vcek", newer, "--product", "genoa"]),
        2,
        "the report says another product"
    );
    assert_eq!(status(vec![], &["ca", "--product", "rome"]), 2);
    let text_file = directory.path().join("text");
    fs::write(&text_file, "hello").unwrap();
    assert_eq!(status(vec![], &["vcek", text_file.to_str().unwrap()]), 2);
    let wrong = sev_attest(&cache, "ftp://host", &ca);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(files(&cache).is_empty());
}

#[test]
fn a_foreign_root_has_a_cache_of_its_own() {
    // AMD's root given by hand is handled as any other: what it signs lies apart from AMD's
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let root = directory.path().join("root.pem");
    fs::write(&root, MILAN_CHAIN).unwrap();
    let report = report(directory.path());
    let server = Server::start(vec![], kds);
    let args = ["vcek", &report, "--foreign-root", root.to_str().unwrap()];
    let output = sev_attest(&cache, &server.url, &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let kept = files(&cache);
    assert!(
        kept.len() == 1 && kept[0].starts_with(cache.join("foreign")),
        "{kept:?}"
    );
    // a leaf under another root is not taken
    let output = sev_attest(&cache, &server.url, &args[..2]);
    assert!(output.status.success());
    fs::write(&root, GENOA_CHAIN).unwrap();
    let output = sev_attest(&cache, &server.url, &args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let leaf = directory.path().join("leaf.der");
    fs::write(&leaf, vector("virtee-milan-vcek.der")).unwrap();
    let args = ["vcek", &report, "--foreign-root", leaf.to_str().unwrap()];
    assert_eq!(
        sev_attest(&cache, &server.url, &args).status.code(),
        Some(2)
    );
}

#[test]
fn verify_asks_cache_then_service_unless_offline() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let report = report(directory.path());
    let verify = |url: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .args(["verify", &report, "--kds-url", url, "--max-wait", "10"])
            .args(["--any-guest", "--any-time"])
            .args(["--at", "2026-08-18T00:00:00Z", "--cache-dir"])
            .arg(&cache)
            .args(more)
            .output()
            .unwrap();
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let server = Server::start(vec![], kds);
    let (status, said) = verify(&server.url, &["--offline"]);
    assert_eq!(status, 3, "{said}");
    assert!(server.requests().is_empty());
    // a service that lies or has nothing decides nothing, and leaves nothing behind
    for reply in [
        Reply::Ok(b"garbage".to_vec()),
        Reply::Ok(vector("coco-milan-vcek.der")),
        Reply::status(404),
    ] {
        let wrong = Server::start(vec![], move |_| reply.clone());
        let (status, said) = verify(&wrong.url, &[]);
        assert_eq!(status, 3, "{said}");
        assert!(files(&cache).is_empty());
    }
    let (status, said) = verify(&server.url, &[]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(server.requests().len(), 1);
    let (status, said) = verify(&server.url, &["--offline"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(server.requests().len(), 1);
    // the revocation list only when it is asked for
    let (status, said) = verify(&server.url, &["--require-crl"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(server.requests()[1..], ["/vcek/v1/Milan/crl"]);
}

/// A list at hand, of whatever issuer, may be an old one: the sources are asked all the same.
#[test]
fn a_required_list_is_always_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let report = report(directory.path());
    let vcek = directory.path().join("vcek.der");
    fs::write(&vcek, milan().1).unwrap();
    let certs = directory.path().join("certs");
    fs::create_dir(&certs).unwrap();
    let other = CrlSpec::new(Product::Genoa).sign(&RsaKey::ark());
    let old = CrlSpec::new(Product::Milan).sign(&RsaKey::ark());
    for (name, list) in [("a", other), ("b", old), ("c", MILAN_CRL.to_vec())] {
        fs::write(certs.join("crl.der"), list).unwrap();
        let server = Server::start(vec![], kds);
        let output = Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .args(["verify", &report, "--kds-url", &server.url, "--require-crl"])
            .args(["--any-guest", "--any-time"])
            .args(["--max-wait", "10", "--at", "2026-08-18T00:00:00Z"])
            .arg("--certs")
            .arg(&vcek)
            .arg("--certs")
            .arg(&certs)
            .arg("--cache-dir")
            .arg(directory.path().join(name))
            .output()
            .unwrap();
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(server.requests(), ["/vcek/v1/Milan/crl"], "{name}");
    }
}

/// What was fetched and verified serves, whether or not it can be kept.
#[test]
fn verify_does_without_a_cache_that_fails() {
    let directory = tempfile::tempdir().unwrap();
    let report = report(directory.path());
    let file = directory.path().join("file");
    fs::write(&file, "no directory").unwrap();
    let server = Server::start(vec![], kds);
    let verify = |cache: &Path| {
        Command::new(env!("CARGO_BIN_EXE_sev-attest"))
            .args(["verify", &report, "--kds-url", &server.url, "--require-crl"])
            .args(["--any-guest", "--any-time"])
            .args(["--max-wait", "10", "--at", "2026-08-18T00:00:00Z"])
            .arg("--cache-dir")
            .arg(cache)
            .output()
            .unwrap()
    };
    let output = verify(&file);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(file.to_str().unwrap()));
    // what can't be read there is as absent
    let cache = directory.path().join("cache");
    verify(&cache);
    for kept in files(&cache) {
        fs::remove_file(&kept).unwrap();
        fs::create_dir(&kept).unwrap();
    }
    let output = verify(&cache);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(cache.to_str().unwrap()));
    // `fetch` is asked to keep it, and says that it can't
    let output = sev_attest(&file, &server.url, &["ca", "--product", "milan"]);
    assert_eq!(output.status.code(), Some(2));
}
