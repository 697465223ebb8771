//! Replays the corpus of each fuzz target, and simple mutations of it, in the normal test run.

use std::path::Path;

use tests::fuzz;

/// A target's name and function; the corpus is in `fuzz/corpus/<name>`.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("attestation_report", fuzz::sev_attest::report),
    ("certificate", fuzz::sev_attest::certificate),
    ("certificate_table", fuzz::sev_attest::certificate_table),
    (
        "evidence_certificate",
        fuzz::sev_attest::evidence_certificate,
    ),
    ("evidence_container", fuzz::sev_attest::evidence_container),
    ("evidence_json", fuzz::sev_attest::evidence_json),
    ("channel_message", fuzz::sev_attest::channel_message),
    ("create_request", fuzz::agent::create_request),
    ("digest_list", fuzz::disk::digest_list),
    ("image", fuzz::disk::image),
    ("network_texts", fuzz::net::network_texts),
    ("nft_listing", fuzz::net::nft_listing),
    ("ovmf_metadata", fuzz::sev_attest::ovmf_metadata),
    ("partial_record", fuzz::disk::partial_record),
    ("policy_file", fuzz::sev_attest::policy_file),
    ("qcow2_header", fuzz::disk::qcow2_header),
    ("ssh_key", fuzz::seed::ssh_key),
    ("user_data", fuzz::seed::user_data),
    ("agent_config", fuzz::agent::agent_config),
    ("guest_agent", fuzz::qmp::guest_agent),
    ("qmp_message", fuzz::qmp::qmp_message),
    ("qmp_stream", fuzz::qmp::qmp_stream),
];

/// Mutations of one file: cut at 16 places, and as many single bits turned.
fn mutations(data: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cuts = (0..16).map(|i| data[..data.len() * i / 16].to_vec());
    // A multiplicative generator spreads the places; the same in each run.
    let places = (1u64..=16).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let flips = places.filter(|_| !data.is_empty()).map(|place| {
        let mut flipped = data.to_vec();
        let at = (place >> 8) as usize % data.len();
        flipped[at] ^= 1 << (place & 7);
        flipped
    });
    cuts.chain(flips)
}

#[test]
fn corpus() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut files = 0;
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            target(&data);
            mutations(&data).for_each(|data| target(&data));
            files += 1;
        }
        assert!(files > 0, "{name} has no corpus");
    }
}
