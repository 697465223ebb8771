#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tests::fuzz::net::network_texts(data));
