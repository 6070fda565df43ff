//! Every flag that is given to a service, in the chart or the units, is one that its
//! `--help` has.

use crate::chart::manifests;
use crate::{programs, run};
use std::collections::BTreeSet;
use std::process::Command;

/// The flags of a service, with their dashes.
pub(crate) fn flags_of(service: &str) -> BTreeSet<String> {
    let program = programs().join(service);
    let (held, help) = run(Command::new(&program).arg("--help"));
    assert!(held, "{}: {help}", program.display());
    let lines = help.lines().map(str::trim_start).filter(|it| it.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',', '=']));
    words.filter(|it| it.starts_with("--")).map(str::to_owned).collect()
}

/// Fails for the first of `flags` (`--name=value`) that `service` does not have.
pub(crate) fn check<'a>(service: &str, flags: impl IntoIterator<Item = &'a str>) {
    let known = flags_of(service);
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        assert!(known.contains(name), "{service} has no {flag}; it has {known:?}");
    }
}

#[test]
fn the_chart_gives_no_service_a_flag_that_it_does_not_have() {
    for values in [None, Some("minimal"), Some("ha"), Some("hardened")] {
        for (name, it) in manifests(values, &[], "StatefulSet") {
            let container = &it["spec"]["template"]["spec"]["containers"][0];
            let service = container["name"].as_str().unwrap();
            let args = container["args"].as_sequence().unwrap();
            assert!(args.len() > 5, "{name}");
            check(service, args.iter().map(|it| it.as_str().unwrap()));
        }
    }
}
