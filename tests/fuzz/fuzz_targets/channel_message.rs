#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::sev_attest::channel_message(data));
