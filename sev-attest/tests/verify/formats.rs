//! Reports and certificates are recognised by content, in every form, and nothing else is.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use sev_attest::formats::TableError;
use sev_attest::formats::{Evidence, Form, FormatError, read_certificates, read_report};
use sev_attest::product::Product;
use sev_attest::testing::pem;
use sev_attest_issuer::certificate::CrlSpec;
use sev_attest_issuer::table::{ARK, ASK, CRL, VCEK, VLEK, table};
use sev_attest_issuer::{ReportSpec, RsaKey};

use crate::support::{Case, data};

fn pem_of(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn form(bytes: &[u8], expected: Form) -> Evidence {
    let evidence = read_report(bytes).unwrap_or_else(|error| panic!("{expected:?}: {error}"));
    assert_eq!(evidence.form, expected);
    evidence
}

/// A report in Azure's container, with empty claims.
fn azure(report: &[u8]) -> Vec<u8> {
    let mut hcl = [b"HCLA".as_slice(), &[0; 28], report].concat();
    for number in [22u32, 1, 2, 1, 2] {
        hcl.extend(number.to_le_bytes());
    }
    hcl.extend(b"{}");
    hcl
}

#[test]
fn reports_in_all_encodings() {
    let raw = data("az-genoa-report.bin");
    let digits = hex::encode(&raw);
    for (bytes, expected) in [
        (raw.clone(), Form::Raw),
        (digits.clone().into_bytes(), Form::Hex),
        (
            format!("0x{}\n", digits.to_uppercase()).into_bytes(),
            Form::Hex,
        ),
        (
            digits
                .as_bytes()
                .chunks(32)
                .flat_map(|line| [line, b" \r\n"])
                .flatten()
                .copied()
                .collect(),
            Form::Hex,
        ),
        (STANDARD.encode(&raw).into_bytes(), Form::Base64),
        (
            format!(" {}\n", URL_SAFE_NO_PAD.encode(&raw)).into_bytes(),
            Form::Base64,
        ),
    ] {
        assert_eq!(form(&bytes, expected).report.as_bytes()[..], raw);
    }
    let azure = azure(&raw);
    assert_eq!(form(&azure, Form::AzureHcl).report.as_bytes()[..], raw);
}

#[test]
fn extended_reports() {
    let case = Case::of(ReportSpec::new(Product::Milan).with_vlek());
    let raw = case.bytes();
    let crl = CrlSpec::new(Product::Milan).sign(&RsaKey::ark());
    let ark_pem = pem_of("CERTIFICATE", &case.issuer.ark);
    let whole = table(&[
        (VLEK, &case.leaf.der),
        (0x1234, b"something of the host's own"),
        (ASK, &case.issuer.asvk),
        (ARK, ark_pem.as_bytes()),
        (CRL, &crl),
    ]);
    let extended = [&raw[..], &whole].concat();
    let evidence = form(&extended, Form::Extended);
    assert_eq!(evidence.bundle.certificates.len(), 3);
    assert_eq!(evidence.bundle.crls.len(), 1);
    // A page's worth of zeros after it is the kernel's.
    form(&[&extended[..], &[0; 333]].concat(), Form::Extended);
    form(&[&raw[..], &[0; 24]].concat(), Form::Extended);
    // Encoded as a whole.
    let encoded = read_report(STANDARD.encode(&extended).as_bytes()).unwrap();
    assert_eq!(
        (encoded.form, encoded.bundle),
        (Form::Base64, evidence.bundle.clone())
    );
    // The table alone is a bundle; GUIDs may stand in UEFI's byte order.
    assert_eq!(read_certificates(&whole).unwrap(), evidence.bundle);
    let mut uefi = whole.clone();
    for entry in uefi.chunks_mut(24).take(5) {
        entry[..4].reverse();
        entry[4..6].reverse();
        entry[6..8].reverse();
    }
    assert_eq!(read_certificates(&uefi).unwrap(), evidence.bundle);
}

/// What a table may hold that says nothing is told in the documentation.
#[test]
fn tables_that_say_nothing() {
    let raw = data("az-genoa-report.bin");
    let unknown = table(&[(0x0123_4567_89ab_cdef, b"anything")]);
    for rest in [&[0; 24][..], &[0; 4096], &unknown] {
        let evidence = form(&[&raw[..], rest].concat(), Form::Extended);
        assert_eq!(evidence.report.as_bytes()[..], raw);
        assert!(evidence.bundle.is_empty());
    }
    for rest in [&[0][..], &[0; 23], &[1; 24]] {
        read_report(&[&raw[..], rest].concat()).unwrap_err();
    }
}

#[test]
fn malformed_tables() {
    let case = Case::new(Product::Milan);
    let (vcek, ask) = (&case.leaf.der, &case.issuer.ask);
    let good = table(&[(VCEK, vcek), (ASK, ask)]);
    let edit = |at: usize, value: u32| {
        let mut table = good.clone();
        table[at..at + 4].copy_from_slice(&value.to_le_bytes());
        table
    };
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    for (name, table, expected) in [
        ("no end", [&good[..16], &[0; 8]].concat(), TableError::NoEnd),
        (
            "cut after its list",
            good[..48].to_vec(),
            TableError::OutOfBounds(0),
        ),
        ("half an entry", good[..12].to_vec(), TableError::NoEnd),
        ("one stray byte", vec![0], TableError::NoEnd),
        (
            "offset outside",
            edit(16, len(&good)),
            TableError::OutOfBounds(0),
        ),
        (
            "length outside",
            edit(44, len(ask) + 1),
            TableError::OutOfBounds(1),
        ),
        (
            "offset and length overflow",
            edit(16, u32::MAX),
            TableError::OutOfBounds(0),
        ),
        (
            "offset into the list",
            edit(16, 24),
            TableError::OutOfBounds(0),
        ),
        (
            "two entries on the same bytes",
            edit(40, 72),
            TableError::Overlap,
        ),
        (
            "an entry cut short",
            edit(44, len(ask) - 1),
            TableError::Stray,
        ),
        (
            "bytes of nobody",
            [&good[..], &[1]].concat(),
            TableError::Stray,
        ),
        (
            "twice the same",
            table(&[(VCEK, vcek), (VCEK, vcek)]),
            TableError::Duplicate("VCEK".to_owned()),
        ),
    ] {
        let extended = [&case.bytes()[..], &table].concat();
        assert_eq!(
            read_report(&extended),
            Err(FormatError::AfterReport(expected)),
            "{name}"
        );
    }
    for (name, table) in [
        ("not a certificate", table(&[(VCEK, b"0x30")])),
        ("half a certificate", table(&[(VCEK, &vcek[..100])])),
        (
            "a revocation list for a certificate",
            table(&[(VCEK, &CrlSpec::new(Product::Milan).sign(&RsaKey::ark()))]),
        ),
        ("a certificate for a revocation list", table(&[(CRL, vcek)])),
        ("an empty certificate", table(&[(VCEK, b"")])),
    ] {
        let extended = [&case.bytes()[..], &table].concat();
        let error = read_report(&extended).unwrap_err();
        assert!(
            matches!(error, FormatError::AfterReport(TableError::Content(..))),
            "{name}: {error}"
        );
    }
}

#[test]
fn certificates_in_all_encodings() {
    let case = Case::new(Product::Milan);
    let der = [&case.leaf.der[..], &case.issuer.ask, &case.issuer.ark].concat();
    let crl = CrlSpec::new(Product::Milan).sign(&RsaKey::ark());
    let pem = format!(
        "some words\n{}{}{}and a key, passed over\n{}",
        pem_of("CERTIFICATE", &case.leaf.der),
        pem_of("CERTIFICATE", &case.issuer.ask),
        pem_of("CERTIFICATE", &case.issuer.ark),
        pem_of("PUBLIC KEY", b"key"),
    );
    let expected = read_certificates(&der).unwrap();
    assert_eq!(expected.certificates.len(), 3);
    assert_eq!(read_certificates(pem.as_bytes()).unwrap(), expected);
    assert_eq!(
        read_certificates(pem.replace('\n', "\r\n").as_bytes()).unwrap(),
        expected
    );
    assert_eq!(
        read_certificates(hex::encode(&der).as_bytes()).unwrap(),
        expected
    );
    assert_eq!(
        read_certificates(STANDARD.encode(&der).as_bytes()).unwrap(),
        expected
    );
    let with_crl = read_certificates(&[&der[..], &crl].concat()).unwrap();
    assert_eq!((with_crl.certificates.len(), with_crl.crls.len()), (3, 1));
    let crl_pem = pem_of("X509 CRL", &crl);
    assert_eq!(
        read_certificates(crl_pem.as_bytes()).unwrap().crls,
        with_crl.crls
    );
}

#[test]
fn json_of_other_tools() {
    let case = Case::new(Product::Turin);
    let raw = case.bytes();
    let vcek = pem_of("CERTIFICATE", &case.leaf.der);
    for (name, value, certificates) in [
        ("base64", json!({ "report": STANDARD.encode(&raw) }), 0),
        (
            "hex",
            json!({ "attestation_report": hex::encode(&raw), "other": [1] }),
            0,
        ),
        ("numbers and PEM", json!({ "report": raw, "vcek": vcek }), 1),
        (
            "Azure's evidence, with the quote of a TPM",
            json!({
                "version": 2,
                "tpm_quote": {},
                "quote": { "message": [255, 84], "signature": [0] },
                "hcl_report": STANDARD.encode(azure(&raw)),
                "vcek": URL_SAFE_NO_PAD.encode(&case.leaf.der),
            }),
            1,
        ),
        (
            "a list of certificates",
            json!({
                "attestation_report": URL_SAFE_NO_PAD.encode(&raw),
                "cert_chain": [
                    { "cert_type": "VCEK", "data": case.leaf.der },
                    { "cert_type": "ASK", "data": case.issuer.ask },
                    vcek,
                ],
            }),
            3,
        ),
        (
            "inside, with a table",
            json!({ "evidence": {
                "report": STANDARD.encode(&raw),
                "auxblob": STANDARD.encode(table(&[(VCEK, &case.leaf.der)])),
                "ark": null,
                "crl": "",
            } }),
            1,
        ),
    ] {
        let evidence = form(value.to_string().as_bytes(), Form::Json);
        assert_eq!(evidence.report.as_bytes()[..], raw, "{name}");
        assert_eq!(evidence.bundle.certificates.len(), certificates, "{name}");
    }
}

/// What can be read in two ways is not read; what comes along, at whatever level, is.
#[test]
fn json_that_is_ambiguous() {
    let case = Case::new(Product::Turin);
    let text = STANDARD.encode(case.bytes());
    let other = STANDARD.encode(data("az-genoa-report.bin"));
    for (json, expected) in [
        (
            format!(r#"{{"report": "{other}", "report": "{text}"}}"#),
            "\"report\" is there twice",
        ),
        (
            format!(r#"{{"x": [{{"a": 1, "a": 1}}], "report": "{text}"}}"#),
            "\"a\" is there twice",
        ),
        (
            json!({"evidence": {"report": text}, "data": {"snp": {"report": other}}}).to_string(),
            "two different reports, at data.snp.report and at evidence.report",
        ),
        (
            json!({"report": text, "attestation": {"report": other}}).to_string(),
            "two different reports, at attestation.report and at report",
        ),
    ] {
        let error = read_report(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let leaf = STANDARD.encode(&case.leaf.der);
    for value in [
        json!({"evidence": {"report": text}, "vcek": leaf, "data": {"other": 1}}),
        json!({"report": {"report": text}, "vcek": leaf}),
    ] {
        let evidence = form(value.to_string().as_bytes(), Form::Json);
        assert_eq!(evidence.bundle.certificates.len(), 1);
    }
}

/// The report field by field, as the `sev` crate serialises it and trustee hands it around.
#[test]
fn json_field_by_field() {
    for (product, turin) in [(Product::Milan, false), (Product::Turin, true)] {
        let case = Case::new(product);
        let raw = case.bytes();
        let spec = &case.spec;
        let tcb = json!({
            "fmc": turin.then_some(1), "bootloader": 4, "tee": 1, "snp": 24, "microcode": 219,
        });
        let firmware = json!({ "major": 1, "minor": 55, "build": 40 });
        let fields = json!({
            "version": spec.version, "guest_svn": spec.guest_svn, "policy": spec.policy,
            "family_id": spec.family_id, "image_id": spec.image_id, "vmpl": spec.vmpl,
            "sig_algo": 1, "current_tcb": tcb, "plat_info": spec.platform_info, "key_info": 0,
            "report_data": spec.report_data.to_vec(), "measurement": spec.measurement.to_vec(),
            "host_data": spec.host_data, "id_key_digest": spec.id_key_digest.to_vec(),
            "author_key_digest": spec.author_key_digest.to_vec(), "report_id": spec.report_id,
            "report_id_ma": vec![0xff; 32], "reported_tcb": tcb, "cpuid_fam_id": spec.cpuid.family,
            "cpuid_mod_id": spec.cpuid.model, "cpuid_step": spec.cpuid.stepping,
            "chip_id": spec.chip_id.to_vec(), "committed_tcb": tcb, "current": firmware,
            "committed": firmware, "launch_tcb": tcb,
            "launch_mit_vector": turin.then_some(0x3f), "current_mit_vector": turin.then_some(0x3f),
            "signature": { "r": raw[0x2a0..0x2e8].to_vec(), "s": raw[0x2e8..0x330].to_vec() },
        });
        let text = json!({ "attestation_report": fields }).to_string();
        assert_eq!(
            form(text.as_bytes(), Form::Json).report.as_bytes()[..],
            raw,
            "{product}"
        );
        let mut broken = fields.clone();
        broken["measurement"][0] = json!(256);
        let text = json!({ "attestation_report": broken }).to_string();
        let error = read_report(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("measurement"), "{error}");
    }
}

#[test]
fn what_is_neither_is_told_apart() {
    let raw = data("az-genoa-report.bin");
    let vcek = data("az-genoa-vcek.der");
    let report = |bytes: &[u8]| read_report(bytes).unwrap_err().to_string();
    for (name, bytes, expected) in [
        ("nothing", vec![], "empty"),
        ("words", b"report".to_vec(), "neither a report"),
        ("many words", vec![b'#'; 4000], "neither a report"),
        (
            "truncated",
            raw[..1183].to_vec(),
            "truncated: a report has 1184 bytes, this has 1183",
        ),
        (
            "truncated hex",
            hex::encode(&raw[..600]).into_bytes(),
            "this has 600",
        ),
        (
            "trailing byte",
            [&raw[..], &[0]].concat(),
            "after the report",
        ),
        (
            "trailing newline",
            [&raw[..], b"\n"].concat(),
            "after the report",
        ),
        ("two reports", [&raw[..], &raw].concat(), "after the report"),
        ("too long", vec![0; (4 << 20) + 1], "longer than"),
        ("certificate", vcek.clone(), "a certificate, not a report"),
        (
            "JSON without report",
            b"{\"a\": 1}".to_vec(),
            "no report and no certificate: looked at a",
        ),
        ("broken JSON", b"{\"report\": ".to_vec(), "JSON: EOF"),
        (
            "JSON of words",
            b"{\"report\": \"words!\"}".to_vec(),
            "at report: neither a report",
        ),
        (
            "two reports in JSON",
            json!({ "report": hex::encode(&raw), "quote": hex::encode(data("ms-turin-report.bin")) })
                .to_string()
                .into_bytes(),
            "two different reports",
        ),
        (
            "JSON too deep",
            [b"{\"data\":".repeat(2000), b"}".repeat(2000)].concat(),
            "JSON",
        ),
    ] {
        let error = report(&bytes);
        assert!(error.contains(expected), "{name}: {error}");
    }
    let certificates = |bytes: &[u8]| read_certificates(bytes).unwrap_err().to_string();
    for (name, bytes, expected) in [
        ("report", raw, "a report, not a certificate"),
        ("trailing byte", [&vcek[..], &[0]].concat(), "neither"),
        (
            "DER that is no certificate",
            vec![0x30, 3, 2, 1, 0],
            "malformed",
        ),
        (
            "PEM without end",
            b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec(),
            "without its end",
        ),
        (
            "PEM of words",
            b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----".to_vec(),
            "not base64",
        ),
        (
            "PEM of a key",
            pem_of("PRIVATE KEY", b"key").into_bytes(),
            "PEM without a certificate",
        ),
    ] {
        let error = certificates(&bytes);
        assert!(error.contains(expected), "{name}: {error}");
    }
    let many = pem_of("KEY", b"key").repeat(pem::MAX_BLOCKS + 1);
    assert_eq!(pem::blocks(many.as_bytes()), Err(pem::PemError::TooMany));
    let many = vcek.repeat(65);
    assert_eq!(read_certificates(&many), Err(FormatError::TooMany));
}

/// The bound holds for what comes in several places of one input together.
#[test]
fn certificates_of_one_input_are_counted_together() {
    let leaf = data("az-genoa-vcek.der");
    let half = leaf.repeat(33);
    let report = data("az-genoa-report.bin");
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    for (certs, refused) in [
        (json!({"vcek": text(&half)}), false),
        (json!({"vcek": text(&half), "certs": text(&half)}), true),
        (json!({"vcek": [text(&half), text(&half)]}), true),
    ] {
        let mut value = certs;
        value["report"] = text(&report).into();
        let result = read_report(value.to_string().as_bytes());
        assert_eq!(result.is_err(), refused, "{result:?}");
        assert!(!refused || result == Err(FormatError::TooMany));
    }
    let whole = |entries: &[(u128, &[u8])]| read_report(&[&report[..], &table(entries)].concat());
    assert!(whole(&[(VCEK, &half)]).is_ok());
    let refused = whole(&[(VCEK, &half), (ASK, &half)]).unwrap_err();
    assert!(refused.to_string().contains("more than 64"), "{refused}");
}
