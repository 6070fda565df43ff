//! What the fuzzers in `fuzz/` check, on the inputs that they have kept: each is a file in
//! `fuzz/corpus/<target>`. To look for more, with a nightly toolchain and cargo-fuzz:
//! `cargo +nightly fuzz run operations` (or `messages`, with `tests/torture` and `tests/messages` as
//! further corpora) in this crate's folder.

mod messages;
mod operations;

use std::path::Path;

fn inputs(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let inputs: Vec<_> = files.map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

#[test]
fn kept_messages_neither_panic_nor_lose_a_frame() {
    for folder in ["fuzz/corpus/messages", "tests/torture", "tests/messages"] {
        inputs(folder).iter().for_each(|input| messages::check(input));
    }
}

#[test]
fn kept_operations_leave_nothing_behind() {
    inputs("fuzz/corpus/operations").iter().for_each(|input| operations::check(input));
}
