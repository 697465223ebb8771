//! Properties of the channel's messages.

use proptest::prelude::*;
use sev_attest::channel::ethereum::{OwnerKey, signer};
use sev_attest::channel::v2::Session;
use sev_attest::channel::{Secrets, v1, v2};
use zeroize::Zeroizing;

fn secrets() -> impl Strategy<Value = Secrets> {
    let value = proptest::collection::vec(any::<u8>(), 0..200);
    proptest::collection::btree_map("[A-Za-z0-9_-]{1,64}", value, 1..=16).prop_map(|all| {
        let mut secrets = Secrets::default();
        for (name, value) in all {
            secrets.insert(name, Zeroizing::new(value)).unwrap();
        }
        secrets
    })
}

fn session() -> impl Strategy<Value = Session> {
    let spki = proptest::collection::vec(any::<u8>(), 0..130);
    (
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
        spki,
        any::<[u8; 32]>(),
    )
        .prop_map(|(guest, owner, spki, nonce)| Session {
            guest,
            owner,
            spki,
            nonce,
        })
}

proptest! {
    #[test]
    fn nothing_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = v1::read_evidence(&bytes);
        let _ = v1::read_envelope(&bytes);
        let _ = v1::read_injected(&bytes);
        let _ = v2::read_question(&bytes);
        let _ = v2::read_answer(&bytes);
        let _ = v2::read_envelope(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = signer(&text, &text);
        let _ = OwnerKey::from_text(&text);
    }

    #[test]
    fn envelopes_come_back(secrets in secrets(), signature in "[0-9a-fx]{0,140}") {
        let second = v2::write_envelope(&secrets, &signature).unwrap();
        prop_assert_eq!(v2::read_envelope(&second).unwrap(), (secrets.clone(), signature.clone()));
        if let Some(first) = v1::write_envelope(&secrets, &signature) {
            prop_assert_eq!(v1::read_envelope(&first).unwrap(), (secrets, signature));
        }
    }

    /// Two sessions have the same report data only if all that it binds is the same.
    #[test]
    fn report_data_is_of_one_session(one in session(), other in session()) {
        let same = one.guest == other.guest && one.spki == other.spki && one.nonce == other.nonce;
        prop_assert_eq!(one.report_data() == other.report_data(), same);
        prop_assert_ne!(&one.report_data()[48..], &[0; 16]);
        prop_assert_ne!(one.report_data(), v1::fresh(&one.spki, &one.nonce));
    }

    #[test]
    fn what_is_signed_is_known_by_its_signer(text in any::<String>(), scalar in 1u64..) {
        let key = OwnerKey::from_text(&format!("{scalar:064x}")).unwrap();
        prop_assert_eq!(signer(&text, &key.sign(&text)), Ok(key.address()));
    }
}
