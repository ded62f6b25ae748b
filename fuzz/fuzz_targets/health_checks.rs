//! Feeds `driftless::fuzz` with "health_checks".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("health_checks", bytes));
