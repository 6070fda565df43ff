//! What a release has in several places is the same everywhere.

use crate::deploy;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

fn check(file: &str, wanted: &str) {
    let path = deploy().join("..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {file}: {e}"));
    assert!(text.contains(wanted), "{file} does not say {wanted:?}");
}

#[test]
fn the_version_is_the_same_wherever_it_stands() {
    check("deploy/chart/Chart.yaml", &format!("appVersion: {VERSION}"));
    check("deploy/Dockerfile", &format!("ARG VERSION={VERSION}\n"));
    check("CHANGELOG.md", &format!("## {VERSION} ("));
    for service in ["media-relay", "queue-svc", "scheduler", "sip-edge"] {
        check("deploy/compose.yaml", &format!("/{service}:${{HOLDFAST_TAG:-{VERSION}}}"));
    }
}

#[test]
fn the_oldest_rust_that_is_promised_is_what_images_are_built_with() {
    check("README.md", &format!("Rust {RUST} or newer"));
    check("deploy/Dockerfile", &format!("rust:{RUST}-bookworm"));
}
