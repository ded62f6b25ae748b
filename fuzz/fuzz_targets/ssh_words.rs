//! Feeds `driftless::fuzz` with "ssh_words".
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driftless::fuzz::read("ssh_words", bytes));
