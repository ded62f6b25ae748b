//! Feeds `driftless::fuzz` with "config".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("config", bytes));
