//! Feeds `driftless::fuzz` with "reply".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("reply", bytes));
