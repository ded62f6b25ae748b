//! Feeds `driftless::fuzz` with "nix_log".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("nix_log", bytes));
