//! See `tests/fuzz/datagrams.rs`, which also runs on what was found before.
#![no_main]

#[path = "../../tests/fuzz/datagrams.rs"]
mod datagrams;

libfuzzer_sys::fuzz_target!(|input: &[u8]| datagrams::check(input));
