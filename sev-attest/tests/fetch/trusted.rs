//! What is kept, how it is used again, and what a bundle holds.

use std::fs;
use std::path::Path;

use sev_attest::cert::{Certificate, Crl};
use sev_attest::fetch::{FetchError, Fetcher, ForeignRoot, Origin, Trust, bundle, pem};
use sev_attest::product::Product;
use sev_attest::report::{Report, SigningKey};
use sev_attest::source::CertificateSource;
use sev_attest::time::UnixTime;
use sev_attest_issuer::{CertSpec, CrlSpec, Issuer, LeafKey, ReportSpec, RsaKey};

use crate::server::{Reply, Server};
use crate::support::{
    CRL_DAY, GENOA_CHAIN, MILAN_CHAIN, MILAN_CRL, MILAN_VLEK_CHAIN, client, crl_day, fetcher,
    files, milan, offline, parse, vector, wanted,
};

/// The service as it should be, for Milan.
fn kds(path: &str) -> Reply {
    match path {
        "/vcek/v1/Milan/cert_chain" => Reply::Ok(MILAN_CHAIN.into()),
        "/vlek/v1/Milan/cert_chain" => Reply::Ok(MILAN_VLEK_CHAIN.into()),
        "/vcek/v1/Milan/crl" | "/vlek/v1/Milan/crl" => Reply::Ok(MILAN_CRL.to_vec()),
        _ if path.starts_with("/vcek/v1/Milan/") => Reply::Ok(milan().1),
        _ => Reply::status(404),
    }
}

#[test]
fn once_fetched_it_serves_from_the_cache() {
    let (report, vcek) = milan();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, directory.path());
    let first = fetcher.leaf(&wanted(&report), crl_day()).unwrap().unwrap();
    assert!(matches!(first.origin, Origin::Service(_)));
    let second = fetcher.leaf(&wanted(&report), crl_day()).unwrap().unwrap();
    assert_eq!(second.document.der(), vcek);
    assert_eq!(server.requests().len(), 1);
    let third = offline(directory.path())
        .leaf(&wanted(&report), crl_day())
        .unwrap();
    let Origin::Cache(path) = third.unwrap().origin else {
        panic!("not from the cache")
    };
    assert_eq!(fs::read(path).unwrap(), vcek);
}

#[test]
fn a_kept_certificate_that_ran_out_serves_only_without_a_better_one() {
    let (report, vcek) = milan();
    let directory = tempfile::tempdir().unwrap();
    let late = UnixTime::from_rfc3339("2060-01-01T00:00:00Z").unwrap();
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, directory.path());
    fetcher.leaf(&wanted(&report), crl_day()).unwrap();
    let found = fetcher.leaf(&wanted(&report), late).unwrap().unwrap();
    assert!(matches!(found.origin, Origin::Service(_)));
    assert_eq!(server.requests().len(), 2);
    let kept = offline(directory.path()).leaf(&wanted(&report), late);
    assert_eq!(kept.unwrap().unwrap().document.der(), vcek);
    let gone = Server::start(vec![], |_| Reply::status(404));
    let fetcher = crate::support::fetcher(&gone.url, directory.path());
    let kept = fetcher.leaf(&wanted(&report), late).unwrap().unwrap();
    assert!(matches!(kept.origin, Origin::Cache(_)));
    let failing = Server::start(vec![], |_| Reply::status(400));
    let fetcher = crate::support::fetcher(&failing.url, directory.path());
    fetcher.leaf(&wanted(&report), late).unwrap_err();
    let fetcher = fetcher.forgiving();
    assert!(fetcher.leaf(&wanted(&report), late).unwrap().is_some());
    assert_eq!(CertificateSource::notes(&fetcher).len(), 1);
}

#[test]
fn the_request_is_the_services() {
    let (report, _) = milan();
    let server = Server::start(vec![], kds);
    let directory = tempfile::tempdir().unwrap();
    fetcher(&server.url, directory.path())
        .leaf(&wanted(&report), crl_day())
        .unwrap();
    let chip = hex::encode(report.chip_id.0);
    let tcb = report.reported_tcb.0.to_le_bytes();
    let expected = format!(
        "/vcek/v1/Milan/{chip}?blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb[0], tcb[1], tcb[6], tcb[7]
    );
    assert_eq!(server.requests(), [expected]);
}

#[test]
fn a_damaged_cache_is_as_none() {
    let (report, vcek) = milan();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, directory.path());
    fetcher.leaf(&wanted(&report), crl_day()).unwrap();
    let [path] = &files(directory.path())[..] else {
        panic!("one file expected")
    };
    for poison in [
        Vec::new(),
        b"garbage".to_vec(),
        vcek[..100].to_vec(),
        vector("coco-milan-vcek.der"),
    ] {
        fs::write(path, &poison).unwrap();
        assert!(
            offline(directory.path())
                .leaf(&wanted(&report), crl_day())
                .unwrap()
                .is_none()
        );
        let again = fetcher.leaf(&wanted(&report), crl_day()).unwrap().unwrap();
        assert!(matches!(again.origin, Origin::Service(_)));
        assert_eq!(fs::read(path).unwrap(), vcek);
    }
}

#[test]
fn chains() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, directory.path());
    for key in [SigningKey::Vcek, SigningKey::Vlek] {
        let found = fetcher.chain(Product::Milan, key).unwrap().unwrap();
        assert!(matches!(found.origin, Origin::Service(_)));
        let found = fetcher.chain(Product::Milan, key).unwrap().unwrap();
        assert!(matches!(found.origin, Origin::Cache(_)));
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn foreign_chains_are_not_kept() {
    let blocks: Vec<&str> = MILAN_CHAIN
        .split_inclusive("-----END CERTIFICATE-----\n")
        .collect();
    let swapped = [blocks[1], blocks[0]].concat();
    let twice = [blocks[0], blocks[0]].concat();
    let mixed = [
        blocks[0],
        GENOA_CHAIN
            .split_inclusive("-----END CERTIFICATE-----\n")
            .nth(1)
            .unwrap(),
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("another product's", GENOA_CHAIN.to_owned()),
        ("the other kind's", MILAN_VLEK_CHAIN.to_owned()),
        ("in another order", swapped),
        ("twice the same", twice),
        ("of two products", mixed),
        ("one certificate", blocks[0].to_owned()),
        ("three certificates", [MILAN_CHAIN, blocks[1]].concat()),
        ("none", String::new()),
    ] {
        let server = Server::start(vec![], move |_| Reply::Ok(text.clone().into()));
        let error = fetcher(&server.url, directory.path())
            .chain(Product::Milan, SigningKey::Vcek)
            .unwrap_err();
        assert!(
            matches!(error, FetchError::NotGenuine { .. }),
            "{name}: {error}"
        );
        assert!(files(directory.path()).is_empty(), "{name}");
    }
}

#[test]
fn a_revocation_list_is_of_its_root() {
    let at = crl_day();
    let directory = tempfile::tempdir().unwrap();
    let mut forged = MILAN_CRL.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let server = Server::start(
        vec![Reply::Ok(forged), Reply::Ok(b"garbage".to_vec())],
        |_| Reply::Ok(MILAN_CRL.to_vec()),
    );
    let fetcher = fetcher(&server.url, directory.path());
    for product in [Product::Milan, Product::Milan, Product::Genoa] {
        let error = fetcher.crl(product, SigningKey::Vcek, at).unwrap_err();
        assert!(matches!(error, FetchError::NotGenuine { .. }), "{error}");
        assert!(files(directory.path()).is_empty());
    }
    fetcher
        .crl(Product::Milan, SigningKey::Vcek, at)
        .unwrap()
        .unwrap();
    assert_eq!(files(directory.path()).len(), 1);
}

fn age(path: &Path, hours: u64) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(then).unwrap();
}

#[test]
fn a_revocation_list_is_renewed_each_day_while_the_service_answers() {
    let at = crl_day();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Ok(MILAN_CRL.to_vec())], |_| Reply::status(404));
    let fetcher = fetcher(&server.url, directory.path());
    let crl = |at| fetcher.crl(Product::Milan, SigningKey::Vcek, at);
    assert!(matches!(
        crl(at).unwrap().unwrap().origin,
        Origin::Service(_)
    ));
    assert!(matches!(crl(at).unwrap().unwrap().origin, Origin::Cache(_)));
    assert_eq!(server.requests().len(), 1);
    // a day later it is asked for again; the service fails, and the old one is valid still
    age(&files(directory.path())[0], 25);
    assert!(matches!(crl(at).unwrap().unwrap().origin, Origin::Cache(_)));
    assert_eq!(server.requests().len(), 2);
    // past its end it does not stand in for an answer
    let later = UnixTime::from_rfc3339("2026-12-01T00:00:00Z").unwrap();
    assert!(crl(later).is_err());
    // but without a network there is no better one, and the appraisal judges it
    let kept = offline(directory.path()).crl(Product::Milan, SigningKey::Vcek, later);
    assert_eq!(kept.unwrap().unwrap().document.der(), MILAN_CRL);
}

#[test]
fn a_bundle_has_all_that_the_report_needs() {
    let (report, vcek) = milan();
    let cache = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let directory = target.path().join("new");
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, cache.path());
    let made = bundle(&fetcher, &report, &[], &directory, crl_day()).unwrap();
    assert_eq!(
        made.files,
        ["vcek.der", "cert_chain.pem", "crl.der"].map(|name| directory.join(name))
    );
    assert_eq!(
        made.crl_until,
        UnixTime::from_rfc3339("2026-09-10T00:00:00Z")
    );
    assert_eq!(fs::read(directory.join("vcek.der")).unwrap(), vcek);
    let chain = fs::read(directory.join("cert_chain.pem")).unwrap();
    Trust::Amd
        .chain(&chain, Product::Milan, SigningKey::Vcek)
        .unwrap();
    let crl = fs::read(directory.join("crl.der")).unwrap();
    assert!(Crl::parse(&crl).unwrap().next_update().is_some());
    // what is at hand is not fetched
    let before = server.requests().len();
    let again = target.path().join("again");
    let at_hand = [parse(&vector("coco-milan-vcek.der")), parse(&vcek)];
    bundle(&fetcher, &report, &at_hand, &again, crl_day()).unwrap();
    assert_eq!(server.requests().len(), before);
}

/// What is at hand serves a masked report whose key it is, and one that ran out where no other is.
#[test]
fn a_bundle_takes_the_right_certificate_at_hand() {
    let issuer = Issuer::new(Product::Milan);
    let spec = ReportSpec::new(Product::Milan);
    let vcek = |chip: u8, key: &LeafKey, not_after: &str| {
        let mut spec = spec.clone();
        spec.chip_id[0] = chip;
        let mut certificate = CertSpec::vcek(&spec, key);
        certificate.not_after = not_after.to_owned();
        parse(&certificate.sign(&RsaKey::ask()))
    };
    let (key, other) = (LeafKey::default(), LeafKey::new(3));
    let chip = spec.chip_id[0];
    let [good, of_another, old] = [
        vcek(chip, &key, "450101000000Z"),
        vcek(1, &other, "450101000000Z"),
        vcek(chip, &key, "260101000000Z"),
    ];
    let root = ForeignRoot {
        ark: parse(&issuer.ark),
        intermediates: vec![parse(&issuer.ask)],
    };
    let served = good.der().to_vec();
    let chain = pem("CERTIFICATE", &issuer.ask) + &pem("CERTIFICATE", &issuer.ark);
    let crl = CrlSpec::new(Product::Milan).sign(&RsaKey::ark());
    let server = |has_vcek: bool| {
        let (served, chain, crl) = (served.clone(), chain.clone(), crl.clone());
        Server::start(vec![], move |path| match path {
            "/vcek/v1/Milan/cert_chain" => Reply::Ok(chain.clone().into()),
            "/vcek/v1/Milan/crl" => Reply::Ok(crl.clone()),
            _ if has_vcek => Reply::Ok(served.clone()),
            _ => Reply::status(404),
        })
    };
    let target = tempfile::tempdir().unwrap();
    let bundled = |url: &str, spec: &ReportSpec, at_hand: &[Certificate]| {
        let trust = Trust::Foreign(Box::new(root.clone()));
        let fetcher = Fetcher::new(trust, None, Some(client(url)));
        let report = Report::parse(&key.sign_report(spec.to_bytes())).unwrap();
        bundle(&fetcher, &report, at_hand, target.path(), crl_day()).unwrap();
        parse(&fs::read(target.path().join("vcek.der")).unwrap())
    };
    let (with, without) = (server(true), server(false));
    let mut masked = spec.clone();
    masked.chip_id = [0; 64];
    let at_hand = [of_another, old.clone(), good.clone()];
    assert_eq!(bundled(&without.url, &masked, &at_hand), good);
    assert_eq!(bundled(&without.url, &spec, &at_hand), good);
    assert_eq!(bundled(&with.url, &spec, &at_hand[..2]), good);
    assert_eq!(bundled(&without.url, &spec, &at_hand[..2]), old);
}

#[test]
fn a_bundle_is_whole_or_not_there() {
    let (report, _) = milan();
    let target = tempfile::tempdir().unwrap();
    for missing in ["cert_chain", "crl", "?blSPL"] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(vec![], move |path| {
            if path.contains(missing) {
                Reply::status(404)
            } else {
                kds(path)
            }
        });
        let directory = target.path().join("bundle");
        bundle(
            &fetcher(&server.url, cache.path()),
            &report,
            &[],
            &directory,
            crl_day(),
        )
        .unwrap_err();
        assert!(!directory.exists(), "{missing}");
    }
    let cache = tempfile::tempdir().unwrap();
    let error = bundle(
        &offline(cache.path()),
        &report,
        &[],
        target.path(),
        crl_day(),
    );
    assert!(error.is_err());
}

#[test]
fn vleks_are_said_not_to_be_public() {
    let (report, _) = milan();
    let mut bytes = report.as_bytes().to_vec();
    bytes[0x48] = 1 << 2;
    let report = Report::parse(&bytes).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(vec![], kds);
    let fetcher = fetcher(&server.url, directory.path());
    assert!(fetcher.leaf(&wanted(&report), crl_day()).unwrap().is_none());
    let error = bundle(&fetcher, &report, &[], directory.path(), crl_day()).unwrap_err();
    assert!(matches!(error, FetchError::VlekNotPublic), "{error}");
    assert!(server.requests().is_empty(), "{CRL_DAY}");
}
