//! What goes well.

use super::guest::{
    Firmware, Guest, Taken, config, judge, key, owner, policy, refused_for, secrets, unlock,
};
use crate::channel::{Secrets, v1};
use crate::endpoint::serve::{Event, Versions};
use crate::endpoint::unlock::{Attested, UnlockError, key_of};
use crate::formats;

const TOOK: &[&str] = &["luks_passphrase"];

#[test]
fn a_sound_guest_gets_the_secret_by_version_2() {
    for versions in [Versions::Both, Versions::V2] {
        let taken = Taken::default();
        let mut config = config(Firmware::sound(), &taken);
        config.versions = versions;
        let guest = Guest::start(config, key(3), taken);
        let attested = Attested::ask(&guest.target, true).unwrap();
        assert_eq!(attested.version(), 2);
        let appraisal = judge(&attested, &policy());
        let binding = appraisal
            .findings
            .iter()
            .find(|f| f.id == "channel.binding");
        assert_eq!(binding.unwrap().status, crate::appraise::Status::Ok);
        assert_eq!(unlock(&guest.target, &policy(), false).unwrap(), TOOK);
        assert_eq!(guest.taken.all(), [secrets()]);
        guest.server.wait_unlocked();
        // Once more, as after a slip: it takes the place of the first.
        assert_eq!(unlock(&guest.target, &policy(), false).unwrap(), TOOK);
        assert_eq!(key_of(&guest.target).unwrap(), guest.server.spki());
    }
}

#[test]
fn a_guest_of_today_gets_it_by_version_1_where_that_is_allowed() {
    let guest = Guest::speaking(1, Firmware::sound());
    refused_for(
        unlock(&guest.target, &policy(), false),
        &["channel.binding"],
    );
    assert!(guest.taken.all().is_empty());
    let attested = Attested::ask(&guest.target, true).unwrap();
    assert_eq!(attested.version(), 1);
    let appraisal = judge(&attested, &policy());
    let binding = appraisal
        .findings
        .iter()
        .find(|f| f.id == "channel.binding");
    let said = binding.unwrap().reason.clone().unwrap();
    assert!(said.contains("CVE-2026-33697"), "{said}");
    assert_eq!(unlock(&guest.target, &policy(), true).unwrap(), TOOK);
    assert_eq!(guest.taken.all(), [secrets()]);
}

#[test]
fn version_1_can_be_forbidden() {
    let guest = Guest::speaking(2, Firmware::sound());
    let mut stranger = super::strangers::connect(&guest.target);
    let nonce = "ab".repeat(32);
    let path = format!("{}?nonce={nonce}", v1::ATTESTATION_PATH);
    assert_eq!(stranger.ask("GET", &path, b"").0, 404);
    let mut stranger = super::strangers::connect(&guest.target);
    assert_eq!(stranger.ask("POST", v1::INJECT_PATH, b"{}").0, 404);
    // Nor is there a report in the certificate.
    assert!(formats::read_report(&stranger.certificate()).is_err());
}

/// As aleph-sdk reads it: the certificate's own extension, by the verifier's own reader.
#[test]
fn the_certificate_is_what_todays_clients_read() {
    let guest = Guest::sound();
    let certificate = super::strangers::connect(&guest.target).certificate();
    let evidence = formats::read_report(&certificate).unwrap();
    let Some(formats::Binding::CertificateKey(key)) = &evidence.binding else {
        panic!("{evidence:?}");
    };
    assert!(key.is_aleph());
    let data = &evidence.report.report_data;
    assert_eq!(key.bound_by(data), Some("aleph-attest-tls-key-v1"));
    assert_eq!(key.subject, "CN=localhost");
}

#[test]
fn a_secret_that_will_not_do_leaves_the_guest_waiting() {
    let events = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = Taken::default();
    let mut config = config(Firmware::sound(), &taken);
    config.sink = Box::new(crate::endpoint::serve::Command {
        program: "/bin/sh".into(),
        arguments: vec![
            "-c".to_owned(),
            "test \"$(cat)\" = 'correct horse'".to_owned(),
        ],
        secret: "luks_passphrase".to_owned(),
        time: std::time::Duration::from_secs(30),
    });
    let heard = events.clone();
    config.listener = Box::new(move |event| heard.lock().unwrap().push(event.clone()));
    let guest = Guest::start(config, key(3), taken);
    let send = |value: &[u8]| {
        let attested = Attested::ask(&guest.target, false).unwrap();
        let appraisal = judge(&attested, &policy());
        let value = zeroize::Zeroizing::new(value.to_vec());
        let secrets = Secrets::one("luks_passphrase", value).unwrap();
        attested.send(appraisal.clearance().unwrap(), &secrets, &owner())
    };
    let refused = send(b"wrong").unwrap_err();
    let UnlockError::Refused { status: 422, words } = refused else {
        panic!("{refused}");
    };
    assert!(words.contains("/bin/sh: exit status: 1"), "{words}");
    assert_eq!(send(b"correct horse").unwrap(), TOOK);
    let events = events.lock().unwrap();
    assert!(matches!(&events[0], Event::NotTaken(words) if !words.contains("wrong\n")));
    assert!(matches!(&events[1], Event::Unlocked { version: 2, .. }));
    assert_eq!(events.len(), 2);
}

#[test]
fn a_clearance_is_for_one_connection() {
    let guest = Guest::sound();
    let first = Attested::ask(&guest.target, false).unwrap();
    let second = Attested::ask(&guest.target, false).unwrap();
    let cleared = judge(&first, &policy());
    let sent = second.send(cleared.clearance().unwrap(), &secrets(), &owner());
    assert!(matches!(sent, Err(UnlockError::OtherClearance)), "{sent:?}");
    assert!(guest.taken.all().is_empty());
}
