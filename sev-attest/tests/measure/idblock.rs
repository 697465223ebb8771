//! ID blocks: layout, signatures, and agreement with OpenSSL's view of the same keys.

use std::process::Command;

use p384::ecdsa::signature::Verifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use sev_attest::measure::{IdBlock, IdKey, MeasureError, sha384};

/// Keys by OpenSSL in each form it writes.
struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let keys = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        keys.openssl(&[
            "ecparam",
            "-name",
            "secp384r1",
            "-genkey",
            "-out",
            "sec1.pem",
        ]);
        keys.openssl(&[
            "ec", "-in", "sec1.pem", "-outform", "DER", "-out", "sec1.der",
        ]);
        keys.openssl(&[
            "pkcs8",
            "-topk8",
            "-nocrypt",
            "-in",
            "sec1.pem",
            "-out",
            "pkcs8.pem",
        ]);
        let pkcs8 = [
            "pkcs8", "-topk8", "-nocrypt", "-in", "sec1.pem", "-outform", "DER",
        ];
        keys.openssl(&[&pkcs8[..], &["-out", "pkcs8.der"]].concat());
        let locked = ["-passout", "pass:x", "-out", "locked.pem"];
        keys.openssl(&[&["pkcs8", "-topk8", "-in", "sec1.pem"][..], &locked].concat());
        keys.openssl(&[
            "ecparam",
            "-name",
            "secp384r1",
            "-genkey",
            "-out",
            "author.pem",
        ]);
        keys.openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-out",
            "p256.pem",
        ]);
        keys.openssl(&["ec", "-in", "sec1.pem", "-pubout", "-out", "public.pem"]);
        keys.openssl(&[
            "ec",
            "-in",
            "sec1.pem",
            "-pubout",
            "-outform",
            "DER",
            "-out",
            "public.der",
        ]);
        keys
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path().join(name)).unwrap()
    }

    fn key(&self, name: &str) -> Result<IdKey, MeasureError> {
        IdKey::from_bytes(&self.bytes(name))
    }
}

/// R and S of a firmware signature as the verifier wants them.
fn signature(bytes: &[u8]) -> Signature {
    let part = |offset: usize| {
        let mut part: [u8; 48] = bytes[offset..offset + 48].try_into().unwrap();
        part.reverse();
        assert!(bytes[offset + 48..offset + 72].iter().all(|b| *b == 0));
        part
    };
    assert!(bytes[144..].iter().all(|b| *b == 0));
    Signature::from_scalars(part(0), part(72)).unwrap()
}

/// A firmware public key as the verifier wants it.
fn public(bytes: &[u8]) -> VerifyingKey {
    assert_eq!(bytes[..4], [2, 0, 0, 0]);
    let mut point = vec![4];
    point.extend(bytes[4..52].iter().rev());
    point.extend(bytes[76..124].iter().rev());
    assert!(bytes[52..76].iter().chain(&bytes[124..]).all(|b| *b == 0));
    VerifyingKey::from_sec1_bytes(&point).unwrap()
}

#[test]
fn forms_of_keys_and_what_is_refused() {
    let keys = Keys::new();
    let digest = keys.key("sec1.pem").unwrap().digest();
    for name in ["sec1.der", "pkcs8.pem", "pkcs8.der"] {
        assert_eq!(keys.key(name).unwrap().digest(), digest, "{name}");
    }
    for name in ["locked.pem", "p256.pem", "public.pem", "public.der"] {
        let error = keys.key(name).unwrap_err();
        assert!(error.to_string().contains("P-384"), "{name}: {error}");
    }
    for bytes in [
        &b""[..],
        b"-----BEGIN EC PRIVATE KEY-----",
        &[0x30; 200],
        &[b'a'; 70_000],
    ] {
        assert!(IdKey::from_bytes(bytes).is_err());
    }
    // OpenSSL's DER of a public key ends in the point 04 || X || Y.
    let der = keys.bytes("public.der");
    let point = &der[der.len() - 97..];
    assert_eq!(point[0], 4);
    let mut expected = vec![0; 0x404];
    expected[0] = 2;
    for i in 0..48 {
        expected[4 + i] = point[48 - i];
        expected[76 + i] = point[96 - i];
    }
    assert_eq!(digest, sha384(&expected));
}

#[test]
fn layout_and_signatures() {
    let keys = Keys::new();
    let (id, author) = (
        keys.key("sec1.pem").unwrap(),
        keys.key("author.pem").unwrap(),
    );
    let block = IdBlock {
        launch_digest: [0x11; 48],
        family_id: [0x22; 16],
        image_id: [0x33; 16],
        guest_svn: 0x0102_0304,
        policy: 0x3_001f,
    };
    let signed = block.sign(&id, Some(&author)).unwrap();
    let expected = [
        "11".repeat(48),
        "22".repeat(16),
        "33".repeat(16),
        "0100000004030201".into(),
        "1f00030000000000".into(),
    ];
    assert_eq!(hex::encode(signed.block), expected.concat());
    let auth = signed.auth.as_slice();
    assert_eq!(auth[..8], [1, 0, 0, 0, 1, 0, 0, 0]);
    let (id_key, author_key) = (&auth[0x240..0x644], &auth[0x880..0xc84]);
    public(id_key)
        .verify(&signed.block, &signature(&auth[0x40..0x240]))
        .unwrap();
    public(author_key)
        .verify(id_key, &signature(&auth[0x680..0x880]))
        .unwrap();
    for zero in [8..0x40, 0x644..0x680, 0xc84..0x1000] {
        assert!(auth[zero].iter().all(|b| *b == 0));
    }
    assert_eq!(signed.id_key_digest, sha384(id_key));
    assert_eq!(signed.author_key_digest, Some(sha384(author_key)));
    assert_eq!(
        block.sign(&id, Some(&author)).unwrap(),
        signed,
        "equal inputs, equal block"
    );

    let alone = block.sign(&id, None).unwrap();
    assert_eq!(alone.author_key_digest, None);
    assert_eq!(alone.auth[..0x644][8..], auth[..0x644][8..]);
    assert!(alone.auth[0x644..].iter().all(|b| *b == 0));
    assert_eq!(alone.auth[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn impossible_policies_are_refused() {
    let id = Keys::new().key("sec1.pem").unwrap();
    for policy in [0, 0x1_0000, 0x400_0000 | 0x2_0000, u64::MAX] {
        let block = IdBlock {
            policy,
            ..IdBlock::new([0; 48])
        };
        assert_eq!(
            block.sign(&id, None),
            Err(MeasureError::GuestPolicy(policy))
        );
    }
}
