//! Feeds `driftless::fuzz` with "manifest".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("manifest", bytes));
