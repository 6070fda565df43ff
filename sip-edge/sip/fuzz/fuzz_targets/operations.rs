//! See `tests/fuzz/operations.rs`, which also runs on what was found before.
#![no_main]

#[path = "../../tests/fuzz/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|input: &[u8]| operations::check(input));
