//! See `tests/fuzz/descriptions.rs`, which also runs on what was found before.
#![no_main]

#[path = "../../tests/fuzz/descriptions.rs"]
mod descriptions;

libfuzzer_sys::fuzz_target!(|input: &[u8]| descriptions::check(input));
