//! No input makes a parser or the appraisal panic, and what is read is what was written.

use proptest::prelude::*;
use sev_attest::appraise::{Outcome, appraise};
use sev_attest::cert::{Certificate, Crl};
use sev_attest::formats;
use sev_attest::policy::Policy;
use sev_attest::product::Product;
use sev_attest::report::{REPORT_LEN, Report};
use sev_attest::show;
use sev_attest::tcb::{Tcb, TcbWord};
use sev_attest::testing;
use sev_attest::time::UnixTime;

use crate::support::{REAL, data, real};

fn products() -> impl Strategy<Value = Product> {
    prop_oneof![
        Just(Product::Milan),
        Just(Product::Genoa),
        Just(Product::Turin)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = formats::read(&bytes);
        let _ = Certificate::parse(&bytes);
        let _ = Crl::parse(&bytes);
        let _ = testing::table::read(&bytes);
        let _ = testing::pem::blocks(&bytes);
        let _ = Policy::from_toml(&String::from_utf8_lossy(&bytes));
    }

    /// Any report that can be read can be shown and judged, and is not genuine.
    #[test]
    fn any_report(mut bytes in proptest::collection::vec(any::<u8>(), REPORT_LEN), version in 2_u8..=5) {
        bytes[..4].copy_from_slice(&[version, 0, 0, 0]);
        let report = Report::parse(&bytes).unwrap();
        prop_assert_eq!(&report.as_bytes()[..], &bytes[..]);
        let _ = show::to_text(&show::report(&report, None));
        let _ = show::to_json(&show::report(&report, Some(Product::Turin)));
        let (_, chain) = real(REAL[0].0, REAL[0].1);
        for chain in [None, Some(&chain)] {
            let appraisal = appraise(&report, chain, &Policy::default(), UnixTime(1_800_000_000));
            prop_assert_ne!(appraisal.outcome, Outcome::Genuine);
            let _ = (appraisal.to_text(), appraisal.to_json());
        }
    }

    /// Real certificates with bytes changed, cut and added.
    #[test]
    fn bent_certificates(which in 0..REAL.len(), cut in 0..2000_usize, edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
        let mut der = data(REAL[which].1);
        for (place, value) in edits {
            let place = place % der.len();
            der[place] = value;
        }
        der.truncate(der.len().saturating_sub(cut % 64));
        if let Ok(certificate) = Certificate::parse(&der) {
            prop_assert_eq!(certificate.der(), &der[..]);
            let _ = show::to_text(&show::certificate(&certificate));
        }
    }

    #[test]
    fn tcbs_invert(product in products(), parts in any::<[u8; 5]>()) {
        let [fmc, boot_loader, tee, snp, microcode] = parts;
        let fmc = (product == Product::Turin).then_some(fmc);
        let tcb = Tcb { fmc, boot_loader, tee, snp, microcode };
        let word = tcb.encode(product);
        prop_assert_eq!(word.decode(product), tcb);
        prop_assert!(word.reserved_is_zero(product));
    }

    #[test]
    fn tcb_words_invert(product in products(), word in any::<u64>()) {
        let word = TcbWord(word);
        prop_assert_eq!(word.decode(product).encode(product) == word, word.reserved_is_zero(product));
    }

    #[test]
    fn times_invert(seconds in 0_u64..253_402_300_800) {
        let time = UnixTime(seconds);
        prop_assert_eq!(UnixTime::from_rfc3339(&time.to_string()), Some(time));
    }

    #[test]
    fn any_time(text in ".{0,40}") {
        let _ = UnixTime::from_rfc3339(&text);
    }
}
