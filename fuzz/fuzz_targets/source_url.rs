//! Feeds `driftless::fuzz` with "source_url".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("source_url", bytes));
