//! Evidence as tools and clouds hand it out: read without hand work, and refused in words that say
//! where was looked.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384};

use sev_attest::appraise::{Outcome, Status, appraise_evidence};
use sev_attest::assemble;
use sev_attest::formats::{Evidence, Form, FormatError, OtherTee, read_certificates, read_report};
use sev_attest::hex_bytes::HexBytes;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::time::UnixTime;
use sev_attest_issuer::ReportSpec;
use sev_attest_issuer::certificate::{CertSpec, Extension};

use crate::support::{Case, at, data, simulated_policy};

fn form(name: &str) -> Vec<u8> {
    data(&format!("forms/{name}"))
}

#[track_caller]
fn read(name: &str) -> Evidence {
    read_report(&form(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn refused(bytes: &[u8]) -> FormatError {
    match read_report(bytes) {
        Err(error) => error,
        Ok(evidence) => panic!("read as {}", evidence.form.name()),
    }
}

/// A time at which the certificates in all forms are valid.
fn at_forms() -> UnixTime {
    UnixTime::from_rfc3339("2026-11-20T00:00:00Z").unwrap()
}

/// Nothing expected of guest and time.
fn any() -> Policy {
    let mut policy = Policy::default();
    policy.any_guest = true;
    policy.any_time = true;
    policy
}

/// The findings that fail for evidence as it came, with nothing expected.
fn failures(evidence: &Evidence, policy: &Policy) -> (Outcome, Vec<String>) {
    let at = at_forms();
    let chain = assemble::chain(&evidence.report, &evidence.bundle, at);
    let appraisal = appraise_evidence(evidence, chain.as_ref(), policy, at);
    let failed = appraisal
        .failures()
        .map(|finding| finding.id.to_string())
        .collect();
    (appraisal.outcome, failed)
}

/// Each form with the number of certificates in it, and whether its own chain makes it genuine.
#[test]
fn each_form_is_read() {
    let raw = data("az-milan-v3-report.bin");
    for (name, expected, certificates, same, genuine) in [
        ("attestation-api.json", Form::Json, 1, true, true),
        ("report-and-thim.json", Form::Json, 3, true, true),
        ("vcek_chain_pem.json", Form::Json, 3, false, true),
        ("aleph.json", Form::Json, 0, true, false),
        ("aleph-ratls.pem", Form::RaTls, 0, true, false),
        ("sev5.json", Form::Json, 0, true, false),
        ("automata.json", Form::Json, 1, true, true),
        ("ccf.json", Form::Json, 3, true, true),
        ("kbs.json", Form::Json, 0, true, false),
        ("maa.json", Form::Json, 3, true, true),
        ("dstack.json", Form::Json, 2, false, true),
        ("go-sev-guest.proto.bin", Form::Protobuf, 1, false, false),
        ("sevsnp-tsm-report.cbor", Form::Cbor, 3, false, true),
        ("bom.b64", Form::Base64, 0, true, false),
        ("colon.hex", Form::Hex, 0, true, false),
        ("xxd.txt", Form::HexDump, 0, true, false),
        ("azure-v2.hcl", Form::AzureHcl, 0, false, false),
    ] {
        let evidence = read(name);
        assert_eq!(evidence.form, expected, "{name}");
        assert_eq!(evidence.bundle.certificates.len(), certificates, "{name}");
        if same {
            assert_eq!(evidence.report.as_bytes()[..], raw, "{name}");
        }
        if genuine {
            let mut policy = any();
            policy.vmpl = vec![0, 1, 2, 3];
            let (outcome, failed) = failures(&evidence, &policy);
            assert_eq!((outcome, failed), (Outcome::Genuine, vec![]), "{name}");
        }
    }
}

/// What Azure hands out as certificates, with nothing else in it.
#[test]
fn certificates_of_azure() {
    for name in ["thim.json", "host-amd-cert-base64"] {
        let bundle = read_certificates(&form(name)).unwrap();
        assert_eq!(bundle.certificates.len(), 3, "{name}");
        let evidence = read("aleph.json");
        let chain = assemble::chain(&evidence.report, &bundle, at());
        let appraisal = appraise_evidence(&evidence, chain.as_ref(), &any(), at());
        assert!(appraisal.is_genuine(), "{name}:\n{}", appraisal.to_text());
        // A report was not asked for, and its want is told as such.
        let error = read_report(&form(name)).unwrap_err().to_string();
        assert!(error.contains("not a report"), "{error}");
    }
    let error = read_certificates(br#"{"vcekCert": "", "tcbm": "DB18000000000004"}"#);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("no certificate") && error.contains("vcekCert"),
        "{error}"
    );
}

/// A container in a container, as Tinfoil, Azure's attestation service and ratsd have it.
#[test]
fn containers_in_containers() {
    let raw = data("az-milan-v3-report.bin");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&raw).unwrap();
    let gzip = gzip.finish().unwrap();
    let inner = json!({ "SnpReport": STANDARD.encode(&raw) }).to_string();
    let cbor = {
        let bytes = |bytes: &[u8]| ciborium::Value::Bytes(bytes.to_vec());
        let text = |text: &str| ciborium::Value::Text(text.to_owned());
        let encode = |value: &ciborium::Value| {
            let mut out = Vec::new();
            ciborium::into_writer(value, &mut out).unwrap();
            out
        };
        let report = encode(&ciborium::Value::Map(vec![
            (text("outblob"), bytes(&raw)),
            (text("provider"), bytes(b"sev_guest\n")),
        ]));
        let collection = encode(&ciborium::Value::Map(vec![(
            text("configfs-tsm"),
            ciborium::Value::Array(vec![text("a media type"), bytes(&report)]),
        )]));
        let sign1 = ciborium::Value::Array(vec![
            bytes(&[0xa0]),
            ciborium::Value::Map(vec![]),
            bytes(&collection),
            bytes(&[0; 64]),
        ]);
        encode(&ciborium::Value::Tag(18, Box::new(sign1)))
    };
    for (name, bytes, expected) in [
        (
            "tinfoil",
            json!({
                "format": "https://tinfoil.sh/predicate/sev-snp-guest/v2",
                "body": STANDARD.encode(&gzip),
            })
            .to_string()
            .into_bytes(),
            Form::Json,
        ),
        ("gzip", gzip.clone(), Form::Gzip),
        (
            "MAA's request",
            json!({ "report": STANDARD.encode(inner), "nonce": 1 })
                .to_string()
                .into_bytes(),
            Form::Json,
        ),
        (
            "a list",
            json!([{ "x": [STANDARD.encode(&raw)] }])
                .to_string()
                .into_bytes(),
            Form::Json,
        ),
        (
            "a string",
            json!(STANDARD.encode(&raw)).to_string().into_bytes(),
            Form::Json,
        ),
        ("a token of ratsd", cbor, Form::Cbor),
        (
            "under a name that nobody knows",
            json!({ "zz": { "yy": hex::encode(&raw) } })
                .to_string()
                .into_bytes(),
            Form::Json,
        ),
        (
            "dstack, version 1",
            rmp_serde::to_vec_named(&json!({
                "version": 1,
                "platform": { "kind": "sev-snp", "data": { "report": raw, "cert_chain": [] } },
            }))
            .unwrap(),
            Form::MessagePack,
        ),
        (
            "UTF-16",
            std::iter::once(0xfeff)
                .chain(hex::encode(&raw).encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect(),
            Form::Hex,
        ),
    ] {
        let evidence = read_report(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(evidence.form, expected, "{name}");
        assert_eq!(evidence.report.as_bytes()[..], raw, "{name}");
    }
}

/// The answer to a guest's request with its header, bare and in the kernel's buffer.
#[test]
fn a_message_with_its_header() {
    let raw = data("az-milan-v3-report.bin");
    let mut header = [0; 32];
    header[4..8].copy_from_slice(&0x4a0u32.to_le_bytes());
    let bare = [&header[..], &raw].concat();
    let mut padded = bare.clone();
    padded.resize(4000, 0);
    for bytes in [&bare, &padded] {
        let evidence = read_report(bytes).unwrap();
        assert_eq!(evidence.form, Form::Message);
        assert_eq!(evidence.report.as_bytes()[..], raw);
    }
    let error = refused(&bare[..1000]).to_string();
    assert!(error.contains("report begins at byte 32"), "{error}");
    header[0] = 0x16;
    let error = refused(&[&header[..], &[0; 1184]].concat()).to_string();
    assert!(error.contains("status 0x16"), "{error}");
}

fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// An HCL report around a report whose data is the hash of the claims.
fn azure(claims: &str) -> (Case, Vec<u8>) {
    let mut spec = ReportSpec::new(Product::Genoa);
    spec.report_data = [0; 64];
    spec.report_data[..32].copy_from_slice(&Sha256::digest(claims));
    let case = Case::of(spec);
    let mut hcl = vec![0; 32];
    hcl[..4].copy_from_slice(b"HCLA");
    hcl.extend(case.bytes());
    let len = u32::try_from(claims.len()).unwrap();
    for number in [len + 20, 1, 2, 1, len] {
        hcl.extend(number.to_le_bytes());
    }
    hcl.extend(claims.as_bytes());
    hcl.resize(2600, 0);
    (case, hcl)
}

fn finding(evidence: &Evidence, case: &Case, policy: &Policy, id: &str) -> Option<Status> {
    let appraisal = appraise_evidence(evidence, Some(&case.chain()), policy, at());
    let found = appraisal.findings.iter().find(|finding| finding.id == id);
    found.map(|finding| finding.status)
}

/// Azure's claims count as far as the report data is their hash, and hold the nonce.
#[test]
fn claims_of_azure_are_bound() {
    let nonce = [&[0x6a; 16][..], &[0; 48]].concat();
    let claims = json!({ "keys": [], "user-data": hex::encode_upper(&nonce) }).to_string();
    let (case, hcl) = azure(&claims);
    let mut policy = simulated_policy();
    let evidence = read_report(&hcl).unwrap();
    let status = |evidence: &Evidence, policy: &Policy, id: &str| {
        finding(evidence, &case, policy, id).unwrap()
    };
    assert_eq!(status(&evidence, &policy, "azure.claims"), Status::Ok);
    policy.report_data = Some(HexBytes(nonce.clone().try_into().unwrap()));
    assert_eq!(status(&evidence, &policy, "report_data"), Status::Ok);
    // The report data itself may be expected as well.
    policy.report_data = Some(HexBytes(case.spec.report_data));
    assert_eq!(status(&evidence, &policy, "report_data"), Status::Ok);
    policy.report_data = Some(HexBytes([1; 64]));
    assert_eq!(status(&evidence, &policy, "report_data"), Status::Failed);

    // One digit of the nonce altered, or one byte anywhere in the claims.
    for at in [hcl.iter().position(|b| *b == b'6').unwrap(), 1236] {
        let mut altered = hcl.clone();
        altered[at] ^= 1;
        let evidence = read_report(&altered).unwrap();
        if evidence.report.as_bytes()[..] != case.bytes() {
            continue;
        }
        assert_eq!(status(&evidence, &policy, "azure.claims"), Status::Failed);
        policy.report_data = Some(HexBytes(nonce.clone().try_into().unwrap()));
        assert_eq!(status(&evidence, &policy, "report_data"), Status::Failed);
    }

    // A real one.
    let real = read("azure-v2.hcl");
    let appraisal = appraise_evidence(&real, None, &any(), at());
    let bound = appraisal.findings.iter().find(|f| f.id == "azure.claims");
    assert_eq!(bound.unwrap().status, Status::Ok);
}

/// Lengths and kind of the container are looked at, and other technologies named.
#[test]
fn azure_reports_that_are_refused() {
    let (_, good) = azure("{}");
    for (name, at, value, expected) in [
        ("TDX", 1224, 4, "Intel TDX"),
        ("trusted launch", 1224, 3, "trusted launch"),
        ("unknown kind", 1224, 9, "kind 9"),
        ("unknown hash", 1228, 7, "hash, 7"),
        ("claims longer than the input", 1232, 5000, "cut short"),
    ] {
        let mut hcl = good.clone();
        set_u32(&mut hcl, at, value);
        let error = refused(&hcl).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for len in [1216, 1235, 700] {
        let error = refused(&good[..len]).to_string();
        assert!(error.contains("cut short"), "{len}: {error}");
    }
    let mut hcl = good;
    set_u32(&mut hcl, 1224, 4);
    let error = refused(&hcl);
    assert!(
        matches!(
            error,
            FormatError::OtherTee {
                tee: OtherTee::Tdx,
                ..
            }
        ),
        "{error}"
    );
}

/// Evidence of other technologies is named, in whatever it comes.
#[test]
fn other_technologies_are_named() {
    let mut quote = vec![0; 5000];
    quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
    quote[12..28].copy_from_slice(&hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap());
    let mut sgx = quote.clone();
    sgx[..8].copy_from_slice(&[3, 0, 2, 0, 0, 0, 0, 0]);
    let dstack = [&[0, 0][..], &[0x21, 0x4e], &quote].concat();
    let text = |value: Value| value.to_string().into_bytes();
    for (name, bytes, expected) in [
        ("quote", quote.clone(), OtherTee::Tdx),
        (
            "quote in hex",
            hex::encode(&quote).into_bytes(),
            OtherTee::Tdx,
        ),
        ("SGX", sgx, OtherTee::Sgx),
        (
            "JSON",
            text(json!({ "quote": STANDARD.encode(&quote) })),
            OtherTee::Tdx,
        ),
        (
            "by name",
            text(json!({ "tee_type": "tdx", "data": "00" })),
            OtherTee::Tdx,
        ),
        (
            "KBS",
            text(json!({ "tee": "az-tdx-vtpm", "tee-evidence": { "quote": "AA" } })),
            OtherTee::Tdx,
        ),
        (
            "tinfoil",
            text(json!({
                "format": "https://tinfoil.sh/predicate/tdx-guest/v1",
                "body": STANDARD.encode(&quote),
            })),
            OtherTee::Tdx,
        ),
        ("dstack", dstack, OtherTee::Tdx),
    ] {
        match refused(&bytes) {
            FormatError::OtherTee { tee, .. } => assert_eq!(tee, expected, "{name}"),
            error => panic!("{name}: {error}"),
        }
    }
}

/// A certificate of Aleph Cloud's guests around a report.
fn aleph_certificate(report: &[u8], oid: &str) -> Vec<u8> {
    let json = json!({ "tee_type": "sev-snp", "data": hex::encode(report) }).to_string();
    let len = u16::try_from(json.len()).unwrap().to_be_bytes();
    let value = [&[0x04, 0x82, len[0], len[1]][..], json.as_bytes()].concat();
    let key = sev_attest_issuer::LeafKey::default();
    let mut spec = CertSpec::new("localhost", "localhost", key.spki());
    spec.extensions.push(Extension::new(oid, false, value));
    spec.sign(&sev_attest_issuer::RsaKey::ark())
}

/// The key of the issuer's leaves, as its point.
fn key_bits() -> Vec<u8> {
    let der = aleph_certificate(&[0; 1184], "1.2.3");
    let certificate = sev_attest::cert::Certificate::parse(&der).unwrap();
    match certificate.key() {
        sev_attest::cert::PublicKey::P384(point) => point.clone(),
        other => panic!("{other:?}"),
    }
}

/// A report in a certificate proves nothing of the certificate unless it binds the key.
#[test]
fn the_key_of_a_certificate_is_bound_or_not() {
    const ALEPH: &str = "1.3.6.1.4.1.60000.1.1";
    let nonce = [7; 32];
    let digest = |parts: &[&[u8]]| {
        let mut data = [0; 64];
        data[..48].copy_from_slice(&Sha384::digest(parts.concat()));
        data
    };
    let key = key_bits();
    let bound = digest(&[b"aleph-attest-tls-key-v1\0", &key]);
    let fresh = digest(&[b"aleph-attest-fresh-v1\0", &key, &nonce]);
    for (name, report_data, oid, expected, outcome) in [
        ("bound", bound, ALEPH, Status::Ok, Outcome::Genuine),
        (
            "another key",
            [9; 64],
            ALEPH,
            Status::Failed,
            Outcome::Refused,
        ),
        (
            "another tool",
            digest(&[&key]),
            "1.2.3.4",
            Status::Ok,
            Outcome::Genuine,
        ),
        (
            "another tool, in a way that is not known",
            [9; 64],
            "1.2.3.4",
            Status::NotChecked,
            Outcome::Undecided,
        ),
    ] {
        let mut spec = ReportSpec::new(Product::Genoa);
        spec.report_data = report_data;
        let case = Case::of(spec);
        let der = aleph_certificate(&case.bytes(), oid);
        let evidence = read_report(&der).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(evidence.form, Form::RaTls);
        let policy = simulated_policy();
        let status = finding(&evidence, &case, &policy, "certificate.key");
        assert_eq!(status, Some(expected), "{name}");
        let appraisal = appraise_evidence(&evidence, Some(&case.chain()), &policy, at());
        assert_eq!(appraisal.outcome, outcome, "{name}");
    }
    // A fresh report hashes the nonce with the key.
    let mut spec = ReportSpec::new(Product::Genoa);
    spec.report_data = fresh;
    let case = Case::of(spec);
    let der = aleph_certificate(&case.bytes(), ALEPH);
    let evidence = read_report(&der).unwrap();
    let mut policy = simulated_policy();
    for (nonce, expected) in [(nonce, Status::Ok), ([8; 32], Status::Failed)] {
        let mut data = [0; 64];
        data[..32].copy_from_slice(&nonce);
        policy.report_data = Some(HexBytes(data));
        let status = finding(&evidence, &case, &policy, "report_data");
        assert_eq!(status, Some(expected));
    }
    // The public vector's report is of another machine than its key.
    let (outcome, failed) = failures(&read("aleph-ratls.pem"), &any());
    assert_eq!(outcome, Outcome::Refused);
    assert!(
        failed.iter().any(|id| id == "certificate.key"),
        "{failed:?}"
    );
}

/// Each refusal says where was looked and what was found there.
#[test]
fn refusals_say_where_was_looked() {
    let raw = data("az-milan-v3-report.bin");
    let text = |value: Value| value.to_string().into_bytes();
    let mut altered = hex::encode(&raw);
    altered.replace_range(100..101, "g");
    for (name, bytes, expected) in [
        (
            "odd hex",
            form("h-odd.hex"),
            "hex with an odd number of digits (2001)",
        ),
        (
            "wrong letter",
            altered.into_bytes(),
            "hex, but for 'g', character 101",
        ),
        (
            "base64 with a wrong letter",
            format!("{}*", STANDARD.encode(&raw)).into_bytes(),
            "base64, but for '*'",
        ),
        (
            "one level down",
            text(json!({ "a": { "attestation_report": "words" } })),
            "at a.attestation_report",
        ),
        (
            "cut short",
            text(json!({ "a": [{ "report": STANDARD.encode(&raw[..1000]) }] })),
            "at a[0].report: truncated: a report has 1184 bytes, this has 1000",
        ),
        (
            "other names",
            text(json!({ "one": 1, "two": { "three": "x" } })),
            "looked at one, two.three",
        ),
        (
            "two reports",
            text(json!({
                "x": STANDARD.encode(&raw),
                "y": { "z": STANDARD.encode(data("az-genoa-report.bin")) },
            })),
            "two different reports, at x and at y.z",
        ),
        (
            "protocol buffers as text",
            b"report: { version: 2 measurement: \"\\000\" }".to_vec(),
            "protocol buffers as text",
        ),
    ] {
        let error = refused(&bytes).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    // A key with something like a certificate that can't be read is noted.
    let evidence = read_report(&text(json!({
        "report": STANDARD.encode(&raw),
        "vcekCert": format!("-----BEGIN CERTIFICATE-----\n{}", "A".repeat(300)),
    })))
    .unwrap();
    assert!(
        evidence.notes[0].contains("vcekCert"),
        "{:?}",
        evidence.notes
    );
}

/// Fields that are written beside a report are nobody's word.
#[test]
fn copies_of_fields_are_not_believed() {
    let raw = data("az-milan-v3-report.bin");
    let zeros = vec![0; 48];
    let evidence = read_report(
        json!({
            "report": STANDARD.encode(&raw),
            "measurement": zeros, "report_data": hex::encode([1; 64]), "vmpl": 3, "tcbm": "00",
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    assert_eq!(evidence.report.as_bytes()[..], raw);
}

/// What unpacks to more than is sensible, or is nested without end, ends early.
#[test]
fn bombs_are_refused() {
    let mut inner = vec![0; 64 << 20];
    inner[0] = 3;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&inner).unwrap();
    refused(&gzip.finish().unwrap());
    let mut nested = hex::encode(data("az-milan-v3-report.bin"));
    for _ in 0..20 {
        nested = json!([nested]).to_string();
        if nested.len() > 1 << 20 {
            break;
        }
    }
    refused(nested.as_bytes());
    refused(&[&[0x81; 100_000][..], &[0]].concat());
    refused(&[&b"[".repeat(100_000)[..], b"1"].concat());
}
