//! Feeds `driftless::fuzz` with "release".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("release", bytes));
