//! Feeds `driftless::fuzz` with "nix_words".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("nix_words", bytes));
