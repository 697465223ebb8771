//! What can go wrong between here and the service. Each time: the right error, no endless wait, and
//! nothing in the cache that did not verify.

use std::net::TcpListener;
use std::time::{Duration, Instant, SystemTime};

use sev_attest::fetch::{FetchError, MAX_ANSWER};

use crate::server::{Reply, Server};
use crate::support::{crl_day, fetcher, files, milan, parse, vector, wanted};

struct Outcome {
    result: Result<Option<Vec<u8>>, FetchError>,
    requests: usize,
    took: Duration,
    kept: usize,
}

/// Asks a service that answers by `script` and then with the right certificate.
fn fetch(script: Vec<Reply>) -> Outcome {
    let (report, vcek) = milan();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(script, move |_| Reply::Ok(vcek.clone()));
    let start = Instant::now();
    let result = fetcher(&server.url, directory.path()).leaf(&wanted(&report), crl_day());
    Outcome {
        result: result.map(|found| found.map(|found| found.document.der().to_vec())),
        requests: server.requests().len(),
        took: start.elapsed(),
        kept: files(directory.path()).len(),
    }
}

#[track_caller]
fn succeeds(script: Vec<Reply>, requests: usize) -> Duration {
    let outcome = fetch(script);
    assert_eq!(outcome.result.unwrap().unwrap(), milan().1);
    assert_eq!((outcome.requests, outcome.kept), (requests, 1));
    outcome.took
}

#[track_caller]
fn fails(script: Vec<Reply>, requests: usize) -> FetchError {
    let outcome = fetch(script);
    let error = outcome.result.unwrap_err();
    assert_eq!((outcome.requests, outcome.kept), (requests, 0), "{error}");
    error
}

#[test]
fn busy_then_ready() {
    let took = succeeds(vec![Reply::busy("1")], 2);
    assert!(took >= Duration::from_secs(1), "it did not wait: {took:?}");
    succeeds(vec![Reply::busy("0"), Reply::busy("0")], 3);
    // a header that says nothing is no wish: back-off decides
    let took = succeeds(vec![Reply::busy("soon"), Reply::status(429)], 3);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn busy_until_a_date() {
    let date = SystemTime::now() + Duration::from_secs(2);
    let took = succeeds(vec![Reply::busy(&httpdate::fmt_http_date(date))], 2);
    // dates have whole seconds
    assert!(took >= Duration::from_millis(900), "{took:?}");
}

#[test]
fn busy_for_too_long() {
    let outcome = fetch(vec![Reply::busy("3600")]);
    assert!(outcome.took < Duration::from_secs(1), "{:?}", outcome.took);
    let error = outcome.result.unwrap_err();
    assert!(
        matches!(
            error,
            FetchError::AskedToWait {
                seconds: 3600,
                limit: 3,
                ..
            }
        ),
        "{error}"
    );
    // waits add up to the limit
    let error = fails(vec![Reply::busy("2"), Reply::busy("2")], 2);
    assert!(
        matches!(error, FetchError::AskedToWait { seconds: 2, .. }),
        "{error}"
    );
}

#[test]
fn waits_for_several_documents_add_up() {
    // the second product is asked for after the first is not known
    let script = vec![Reply::busy("2"), Reply::status(404), Reply::busy("2")];
    let error = fails(script, 3);
    assert!(
        matches!(error, FetchError::AskedToWait { seconds: 2, .. }),
        "{error}"
    );
}

#[test]
fn server_errors() {
    for code in [500, 502, 503, 504] {
        succeeds(vec![Reply::status(code), Reply::status(code)], 3);
    }
    let error = fails(vec![Reply::status(500); 5], 3);
    assert!(
        matches!(&error, FetchError::GaveUp { attempts: 3, last }
        if matches!(**last, FetchError::Status { status: 500, .. })),
        "{error}"
    );
}

#[test]
fn what_asking_again_does_not_change() {
    for code in [400, 401, 403, 410, 501, 204] {
        let error = fails(vec![Reply::status(code)], 1);
        assert!(
            matches!(error, FetchError::Status { status, .. } if status == code),
            "{error}"
        );
    }
}

#[test]
fn unknown_chip() {
    // a report of version 2 does not say its product: each is tried that its chip id and TCB allow
    let (report, _) = milan();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], |_| Reply::status(404));
    let found = fetcher(&server.url, directory.path()).leaf(&wanted(&report), crl_day());
    assert!(found.unwrap().is_none());
    let asked = server.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("/vcek/v1/Milan/") && asked[1].starts_with("/vcek/v1/Genoa/"));
}

#[test]
fn truncated_body() {
    let vcek = milan().1;
    succeeds(vec![Reply::Truncated(vcek.clone())], 2);
    let error = fails(vec![Reply::Truncated(vcek); 3], 3);
    assert!(matches!(error, FetchError::GaveUp { .. }), "{error}");
}

#[test]
fn oversized_body() {
    let error = fails(vec![Reply::Endless(8 << 20)], 1);
    assert!(
        matches!(
            error,
            FetchError::TooLarge {
                limit: MAX_ANSWER,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn redirects_are_refused() {
    let elsewhere = Server::start(vec![], |_| Reply::Ok(milan().1));
    for code in [301, 302, 303, 307, 308] {
        let location = format!("Location: {}/x", elsewhere.url);
        let error = fails(vec![Reply::Status(code, vec![location])], 1);
        assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
    }
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn silence_ends() {
    let outcome = fetch(vec![Reply::Hang(Duration::from_secs(20)); 3]);
    assert!(matches!(outcome.result, Err(FetchError::GaveUp { .. })));
    assert!(outcome.took < Duration::from_secs(8), "{:?}", outcome.took);
    // a byte now and then does not extend the time
    let outcome = fetch(vec![Reply::Drip(Duration::from_secs(20)); 3]);
    assert!(matches!(outcome.result, Err(FetchError::GaveUp { .. })));
    assert!(outcome.took < Duration::from_secs(8), "{:?}", outcome.took);
}

#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let error = fetcher(&url, directory.path())
        .leaf(&wanted(&milan().0), crl_day())
        .unwrap_err();
    assert!(
        matches!(error, FetchError::GaveUp { attempts: 3, .. }),
        "{error}"
    );
}

#[test]
fn no_http_and_no_tls() {
    fails(vec![Reply::Noise; 3], 3);
    // https:// does not fall back to plain text
    let server = Server::start(vec![], |_| Reply::Ok(milan().1));
    let directory = tempfile::tempdir().unwrap();
    let url = server.url.replace("http://", "https://");
    let fetched = fetcher(&url, directory.path()).leaf(&wanted(&milan().0), crl_day());
    assert!(fetched.is_err());
    assert!(
        server
            .requests()
            .iter()
            .all(|path| !path.starts_with("/vcek"))
    );
}

#[test]
fn garbage_is_not_kept() {
    let vcek = milan().1;
    let mut tampered = vcek.clone();
    tampered[700] ^= 1;
    let mut signature = vcek.clone();
    let last = signature.len() - 1;
    signature[last] ^= 1;
    let mut trailing = vcek.clone();
    trailing.push(0);
    for body in [
        Vec::new(),
        b"<html>Too many requests</html>".to_vec(),
        vec![0x30; 4000],
        vcek[..vcek.len() - 1].to_vec(),
        trailing,
        tampered,
        signature,
    ] {
        let error = fails(vec![Reply::Ok(body)], 1);
        assert!(matches!(error, FetchError::NotGenuine { .. }), "{error}");
    }
}

#[test]
fn another_certificate_is_not_kept() {
    for name in [
        // genuine, of another chip or product
        "coco-milan-vcek.der",
        "az-milan-v3-vcek.der",
        "az-genoa-vcek.der",
        "virtee-turin-vcek.der",
        // of no chain of AMD's
        "coco-milan-vcek-invalid-legacy.der",
        "coco-milan-vcek-invalid-new.der",
    ] {
        let error = fails(vec![Reply::Ok(vector(name))], 1);
        assert!(
            matches!(error, FetchError::NotGenuine { .. }),
            "{name}: {error}"
        );
    }
    // and the same one is
    assert_eq!(parse(&milan().1).der(), milan().1);
    succeeds(vec![], 1);
}

#[test]
fn a_masked_chip_is_not_asked_for() {
    let (report, vcek) = milan();
    let mut bytes = report.as_bytes().to_vec();
    bytes[0x1a0..0x1e0].fill(0);
    let masked = sev_attest::report::Report::parse(&bytes).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], move |_| Reply::Ok(vcek.clone()));
    let error = fetcher(&server.url, directory.path())
        .leaf(&wanted(&masked), crl_day())
        .unwrap_err();
    assert!(matches!(error, FetchError::MaskedChip), "{error}");
    assert!(server.requests().is_empty());
}
