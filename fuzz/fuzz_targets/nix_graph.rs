//! Feeds `driftless::fuzz` with "nix_graph".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("nix_graph", bytes));
