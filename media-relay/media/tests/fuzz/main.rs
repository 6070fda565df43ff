//! What the fuzzers in `fuzz/` check, on the inputs that they have kept: each is a file in
//! `fuzz/corpus/<target>`. To look for more, with a nightly toolchain and cargo-fuzz:
//! `cargo +nightly fuzz run operations` (or `datagrams`, `descriptions`) in this crate's folder.

mod datagrams;
mod descriptions;
mod operations;

use std::path::Path;

/// Runs `check` on every kept input; there must be some.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "nothing in {}", folder.display());
    for path in paths {
        println!("{}", path.display()); // Shown if the check panics.
        check(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn kept_datagrams_do_no_harm() {
    replay("datagrams", datagrams::check);
}

#[test]
fn kept_descriptions_do_no_harm() {
    replay("descriptions", descriptions::check);
}

#[test]
fn kept_operations_do_no_harm() {
    replay("operations", operations::check);
}
