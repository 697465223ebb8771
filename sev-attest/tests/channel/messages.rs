//! Messages and hashes of both versions: against values of another implementation (`golden.py`), and
//! against all that must be refused.

use sev_attest::channel::ethereum::{Address, EthereumError, OwnerKey, owner_of_cmdline, signer};
use sev_attest::channel::v2::{Role, Session};
use sev_attest::channel::{Secrets, SecretsError, v1, v2};
use sev_attest::product::Product;
use sev_attest::report::Report;
use sev_attest_issuer::{Issuer, ReportSpec};
use zeroize::Zeroizing;

fn key() -> Vec<u8> {
    std::iter::once(4).chain(0..96).collect()
}

const NONCE: [u8; 32] = [0x5a; 32];

fn session() -> Session {
    Session {
        guest: [0x11; 32],
        owner: [0x22; 32],
        spki: (0..120).collect(),
        nonce: NONCE,
    }
}

fn secrets(pairs: &[(&str, &[u8])]) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, value) in pairs {
        let value = Zeroizing::new(value.to_vec());
        secrets.insert((*name).to_owned(), value).unwrap();
    }
    secrets
}

fn golden_secrets() -> Secrets {
    secrets(&[
        ("luks_passphrase", b"correct horse"),
        ("b-2", "é\"\n".as_bytes()),
    ])
}

#[test]
fn golden() {
    let zeros = "0".repeat(32);
    assert_eq!(
        hex::encode(v1::key_binding(&key())),
        "37ecfa547c55b83ed72d0671ad64c3f3474380098726d530832f72d15b933407\
         63b0cefa47daec8a1360e0101e96a846"
            .to_owned()
            + &zeros
    );
    assert_eq!(
        hex::encode(v1::fresh(&key(), &NONCE)),
        "2ad18dde19b548714ab4dfd10ba10b64a87c8b6880c26f0fc2cc6e64a934e02c\
         e1cc9d4c1b9e7636009f19e7932ddc03"
            .to_owned()
            + &zeros
    );
    assert_eq!(
        v1::owner_text(&key(), &golden_secrets()).unwrap(),
        "aleph-snp-inject-secret-v1|\
         70e93c5d95958f077c63d8cd8d3e924c8e1ade66cd7c6a3bc447feefe25328be\
         809b3d060611149298450cf784a90158|\
         c0032f16f22c76cd6445a1b84ae9af0d757d6f7316397adcd0ab0b42f155289e"
    );
    assert_eq!(
        hex::encode(session().report_data()),
        "79618aed759e3abc78a2f1e44d7593e946b91b64fe640846f284106e75342553\
         8b6946cf831e9a86f2271cd0fe5863d07365762d617474657374206368207632"
    );
    assert_eq!(
        session().owner_text(&golden_secrets()),
        "sev-attest-channel-v2-unlock|\
         052d31d42858a78705205d49c9e2b7e1fdd7a8daffc560427753d6e0f6d6cebf\
         5921c4931edac32f78a6a1bd53f62058|\
         de0d82ed46c907d0afb1c7423a9be406acf1c9234226ac283f6cabbdb2166f18"
    );
}

/// The signature that eth-account's documentation shows for its example key and text.
#[test]
fn a_wallet_signs_the_same() {
    let key = "b25c7db31feed9122727bf0939dc769a96564b2de4c4726d035b36ecf1e5b364";
    let key = OwnerKey::from_text(&format!(" 0x{key}\n")).unwrap();
    let signature = "0xe6ca9bba58c88611fad66a6ce8f996908195593807c4b38bd528d2cff09d4eb3\
                     3e5bfbbf4d3e39b1a2fd816a7680c19ebebaf3a141b239934ad43cb33fcec8ce1c";
    let account: Address = "0x5ce9454909639D2D17A3F753ce7d93fa0b9aB12E"
        .parse()
        .unwrap();
    assert_eq!(key.address(), account);
    assert_eq!(key.sign("I♥SF"), signature);
    assert_eq!(signer("I♥SF", signature), Ok(account));
    assert_eq!(signer("I♥SF", &signature[2..]), Ok(account));
    assert_ne!(signer("I♥LA", signature), Ok(account));
    assert_eq!(format!("{key:?}"), "OwnerKey");
}

#[test]
fn signatures_have_one_form() {
    let key = OwnerKey::from_text(&"42".repeat(32)).unwrap();
    let signature = key.sign("text");
    let bytes = hex::decode(&signature[2..]).unwrap();
    // s becomes the order less s, and the other key fits.
    let order =
        hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut twin = bytes.clone();
    let mut borrow = 0;
    for i in (0..32).rev() {
        let difference = i16::from(order[i]) - i16::from(bytes[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        twin[32 + i] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    twin[64] = 27 + 28 - bytes[64];
    let with_v = |v: u8| [&bytes[..64], &[v]].concat();
    for (bytes, expected) in [
        (twin, EthereumError::Malleable),
        (with_v(0), EthereumError::Malleable),
        (with_v(1), EthereumError::Malleable),
        (with_v(29), EthereumError::Malleable),
        (with_v(37), EthereumError::Malleable),
        (bytes[..64].to_vec(), EthereumError::Signature),
        ([&bytes[..], &[0]].concat(), EthereumError::Signature),
        ([&[0; 64][..], &[27]].concat(), EthereumError::NoKey),
        ([&[0xff; 64][..], &[27]].concat(), EthereumError::NoKey),
    ] {
        assert_eq!(
            signer("text", &hex::encode(&bytes)),
            Err(expected),
            "{bytes:x?}"
        );
    }
    assert_eq!(signer("text", "0xzz"), Err(EthereumError::Signature));
}

#[test]
fn addresses_and_command_lines() {
    let plain = "0x5ce9454909639d2d17a3f753ce7d93fa0b9ab12e";
    for text in [
        plain,
        "0x5ce9454909639D2D17A3F753ce7d93fa0b9aB12E",
        "0x5CE9454909639D2D17A3F753CE7D93FA0B9AB12E",
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), plain);
    }
    for (text, expected) in [
        (
            "5ce9454909639d2d17a3f753ce7d93fa0b9ab12e",
            EthereumError::Address,
        ),
        (
            "0x5ce9454909639d2d17a3f753ce7d93fa0b9ab1",
            EthereumError::Address,
        ),
        (
            "0x5Ce9454909639D2D17A3F753ce7d93fa0b9aB12E",
            EthereumError::Checksum,
        ),
    ] {
        assert_eq!(text.parse::<Address>(), Err(expected), "{text}");
    }
    let line = format!("console=ttyS0 luks=1 owner={plain}\n");
    assert_eq!(owner_of_cmdline(&line).unwrap().to_string(), plain);
    for line in [
        "console=ttyS0 luks=1".to_owned(),
        format!("{line} owner={plain}"),
        format!("xowner={plain}"),
        "owner=".to_owned(),
    ] {
        assert!(owner_of_cmdline(&line).is_err(), "{line}");
    }
    for text in ["", "0x", &"0".repeat(64), &"f".repeat(64), &"1".repeat(63)] {
        assert!(OwnerKey::from_text(text).is_err(), "{text:?}");
    }
}

/// No report data and no signed text of one kind passes for one of another, and none for another key,
/// nonce, session or direction.
#[test]
fn no_domain_passes_for_another() {
    let (key, session, secrets) = (key(), session(), golden_secrets());
    let changed = |change: fn(&mut Session)| {
        let mut other = session.clone();
        change(&mut other);
        other
    };
    let others = [
        session.clone(),
        changed(|s| s.guest[0] ^= 1),
        changed(|s| s.owner[0] ^= 1),
        changed(|s| std::mem::swap(&mut s.guest, &mut s.owner)),
        changed(|s| s.nonce[31] ^= 1),
        changed(|s| s.spki.truncate(119)),
        // What one field loses the next one gains.
        changed(|s| {
            s.spki.push(s.nonce[0]);
            s.nonce.rotate_left(1);
        }),
    ];
    let mut data: Vec<[u8; 64]> = others.iter().map(Session::report_data).collect();
    // The owner's value is no part of the guest's, and the other way round.
    assert_eq!(data[2], data[0]);
    data.remove(2);
    data.push(v1::key_binding(&key));
    data.push(v1::key_binding(&session.spki));
    for nonce in [NONCE, session.guest, session.owner] {
        data.push(v1::fresh(&key, &nonce));
        data.push(v1::fresh(&session.spki, &nonce));
    }
    distinct(&data);
    for (i, data) in data.iter().enumerate() {
        // Version 1 ends in zeros, version 2 never does.
        assert_eq!(data[48..] == [0; 16], i >= others.len() - 1, "{i}");
    }
    let mut texts: Vec<String> = others.iter().map(|s| s.owner_text(&secrets)).collect();
    assert_eq!(texts[1], texts[0]);
    texts.remove(1);
    texts.push(v1::owner_text(&key, &secrets).unwrap());
    texts.push(v1::owner_text(&session.spki, &secrets).unwrap());
    texts.push(session.owner_text(&self::secrets(&[("luks_passphrase", b"other")])));
    // What one name loses its value gains.
    texts.push(session.owner_text(&self::secrets(&[("ab", b"c")])));
    texts.push(session.owner_text(&self::secrets(&[("a", b"bc")])));
    distinct(&texts);
    assert_ne!(Role::Guest.context(), Role::Owner.context());
}

fn distinct<T: PartialEq + std::fmt::Debug>(all: &[T]) {
    for (i, one) in all.iter().enumerate() {
        for (j, other) in all.iter().enumerate().skip(i + 1) {
            assert_ne!(one, other, "{i} and {j}");
        }
    }
}

fn report() -> Report {
    let (issuer, spec) = (Issuer::new(Product::Genoa), ReportSpec::new(Product::Genoa));
    Report::parse(&issuer.vcek(&spec).sign(spec.to_bytes())).unwrap()
}

#[test]
fn evidence_of_version_1() {
    let report = report();
    let json = v1::write_evidence(&report);
    assert_eq!(v1::read_evidence(&json).unwrap(), report);
    let value = v1::extension_value(&report).unwrap();
    // OCTET STRING, length in two bytes.
    assert_eq!(value[..2], [0x04, 0x82]);
    assert_eq!(value[4..], json);
    let digits = hex::encode(report.as_bytes());
    let more = format!(r#"{{"data":"{digits}","tee_type":"sev-snp","gpu":null}}"#);
    assert_eq!(v1::read_evidence(more.as_bytes()).unwrap(), report);
    for (json, expected) in [
        (
            format!(r#"{{"tee_type":"tdx","data":"{digits}"}}"#),
            "\"tdx\"",
        ),
        (
            format!(r#"{{"tee_type":"sev-snp","data":"{}"}}"#, &digits[2..]),
            "report",
        ),
        (
            format!(r#"{{"tee_type":"sev-snp","data":"{digits}00"}}"#),
            "report",
        ),
        (
            format!(r#"{{"tee_type":"sev-snp","data":"zz{}"}}"#, &digits[2..]),
            "hexadecimal",
        ),
        (format!(r#"{{"data":"{digits}"}}"#), "tee_type"),
        (format!("{more}{more}"), "trailing"),
        (digits.clone(), "JSON"),
    ] {
        let said = v1::read_evidence(json.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(expected), "{json:.60}: {said}");
    }
}

#[test]
fn questions_and_answers_of_version_2() {
    assert_eq!(
        v2::read_question(&v2::write_question(&NONCE)).unwrap(),
        NONCE
    );
    let digits = "5a".repeat(32);
    for json in [
        "{}".to_owned(),
        r#"{"nonce":""}"#.to_owned(),
        format!(r#"{{"nonce":"{digits}5a"}}"#),
        format!(r#"{{"nonce":"{digits}","nonce":"{digits}"}}"#),
        format!(r#"{{"nonce":"{digits}","role":"owner"}}"#),
        format!(r#""{digits}""#),
    ] {
        assert!(v2::read_question(json.as_bytes()).is_err(), "{json}");
    }
    let report = report();
    for table in [&[][..], &[1, 2, 3]] {
        let json = v2::write_answer(&report, table).unwrap();
        let (read, certificates) = v2::read_answer(&json).unwrap();
        assert_eq!((read, &*certificates), (report.clone(), table));
        // Neither version's answer is read as the other's.
        assert!(v1::read_evidence(&json).is_err());
    }
    assert!(v2::read_answer(&v1::write_evidence(&report)).is_err());
}

#[test]
fn envelopes() {
    let secrets = golden_secrets();
    let first = v1::write_envelope(&secrets, "0xab").unwrap();
    let plain =
        r#"{"secrets":{"b-2":"é\"\n","luks_passphrase":"correct horse"},"signature":"0xab"}"#;
    assert_eq!(std::str::from_utf8(&first).unwrap(), plain);
    let read = v1::read_envelope(&first).unwrap();
    assert_eq!(read, (secrets.clone(), "0xab".to_owned()));
    let second = v2::write_envelope(&secrets, "0xab").unwrap();
    assert_eq!(v2::read_envelope(&second).unwrap(), read);
    // Bytes that are no text are for version 2 alone.
    let bytes = self::secrets(&[("key", &[0, 0xff, 10])]);
    assert_eq!(v1::write_envelope(&bytes, ""), None);
    assert_eq!(v1::owner_text(&key(), &bytes), None);
    let envelope = v2::write_envelope(&bytes, "").unwrap();
    assert_eq!(v2::read_envelope(&envelope).unwrap().0, bytes);
    // "YWI=" is text for the one and Base64 for the other: nothing but the signature tells them
    // apart, and each version has its own.
    let either = br#"{"secrets":{"a":"YWI="},"signature":""}"#;
    assert_eq!(
        v1::read_envelope(either).unwrap().0.get("a").unwrap(),
        b"YWI="
    );
    assert_eq!(
        v2::read_envelope(either).unwrap().0.get("a").unwrap(),
        b"ab"
    );
    assert_eq!(format!("{secrets:?}"), r#"{"b-2", "luks_passphrase"}"#);
}

#[test]
fn envelopes_that_are_refused() {
    let many: Vec<String> = (0..17).map(|i| format!(r#""n{i}":"""#)).collect();
    let body = |secrets: &str| format!(r#"{{"secrets":{{{secrets}}},"signature":""}}"#);
    for json in [
        body(""),
        body(&many.join(",")),
        body(r#""a":"","a":"""#),
        body(r#""":"""#),
        body(r#""a/b":"""#),
        body(r#""..":"""#),
        body(r#""a.new":"""#),
        body(r#""ä":"""#),
        body(&format!(r#""{}":"""#, "a".repeat(65))),
        body(&format!(r#""a":"{}""#, "A".repeat(4 * (64 << 10)))),
        body(r#""a":1"#),
        body(r#""a":null"#),
        r#"{"secrets":{"a":""}}"#.to_owned(),
        r#"{"secrets":["a"],"signature":""}"#.to_owned(),
        r#"{"secrets":{"a":""},"secrets":{"a":""},"signature":""}"#.to_owned(),
        "[".repeat(100_000),
    ] {
        assert!(v1::read_envelope(json.as_bytes()).is_err(), "{json:.60}");
        assert!(v2::read_envelope(json.as_bytes()).is_err(), "{json:.60}");
    }
    assert!(v2::read_envelope(body(r#""a":"*""#).as_bytes()).is_err());
    let value = Zeroizing::new(vec![0; 64 << 10]);
    let mut secrets = Secrets::one(&"a".repeat(64), value.clone()).unwrap();
    let long = Zeroizing::new(vec![0; (64 << 10) + 1]);
    assert!(matches!(
        Secrets::one("a", long),
        Err(SecretsError::TooLong(_))
    ));
    for i in 1..16 {
        secrets.insert(format!("a{i}"), value.clone()).unwrap();
    }
    let beyond = secrets.insert("b".to_owned(), value);
    assert_eq!(beyond, Err(SecretsError::TooMany));
    // The largest message fits into what a guest reads, in both versions.
    let largest = v2::write_envelope(&secrets, &"0".repeat(132)).unwrap();
    assert!(largest.len() < sev_attest::channel::MAX_BODY);
}
