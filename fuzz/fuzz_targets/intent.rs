//! Feeds `driftless::fuzz` with "intent".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("intent", bytes));
