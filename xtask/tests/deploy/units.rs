//! The units of systemd: valid, confined, and with flags that there are.

use crate::flags::check;
use crate::{deploy, programs, run};
use std::path::Path;
use std::process::Command;

const SERVICES: [&str; 4] = ["media-relay", "scheduler", "queue-svc", "sip-edge"];
/// Of `systemd-analyze security`: exposure in tenths, 0 to 100; below 20 is "OK".
const EXPOSURE_MAX: &str = "20";

fn unit(service: &str) -> String {
    let path = deploy().join(format!("systemd/holdfast-{service}.service"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// With the programs where they are built, since a unit's program must be there.
fn place(folder: &Path) -> Vec<std::path::PathBuf> {
    let built = format!("ExecStart={}/", programs().display());
    let place = |service: &&str| {
        let path = folder.join(format!("holdfast-{service}.service"));
        std::fs::write(&path, unit(service).replace("ExecStart=/usr/bin/", &built)).unwrap();
        path
    };
    SERVICES.iter().map(place).collect()
}

#[test]
fn systemd_takes_each_unit_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let units = place(folder.path());
    let (held, text) = run(Command::new("systemd-analyze").arg("verify").args(&units));
    let ours = text.lines().filter(|it| it.contains("holdfast")).collect::<Vec<_>>();
    assert!(held && ours.is_empty(), "{text}");
}

#[test]
fn the_kernel_path_is_a_drop_in_that_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let units = place(folder.path());
    let drop_ins = folder.path().join("holdfast-media-relay.service.d");
    std::fs::create_dir(&drop_ins).unwrap();
    let text = std::fs::read_to_string(deploy().join("systemd/kernel-path.conf")).unwrap();
    check_exec("media-relay", &text);
    let text = text.replace("/usr/bin/", &format!("{}/", programs().display()));
    std::fs::write(drop_ins.join("kernel-path.conf"), text).unwrap();
    let (held, text) = run(Command::new("systemd-analyze").arg("verify").arg(&units[0]));
    assert!(held && !text.contains("holdfast"), "{text}");
}

#[test]
fn each_unit_is_confined() {
    let folder = tempfile::tempdir().unwrap();
    for unit in place(folder.path()) {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--threshold", EXPOSURE_MAX]).arg(&unit);
        let (held, text) = run(&mut analyze);
        assert!(held, "{text}");
        assert!(text.contains("Overall exposure level"), "{text}");
    }
}

#[test]
fn units_give_no_flag_that_a_service_does_not_have_and_wait_for_its_drain() {
    for service in SERVICES {
        let text = unit(service);
        check_exec(service, &text);
        let value = |name: &str| {
            let found = text.lines().find_map(|it| it.strip_prefix(name));
            humantime::parse_duration(found.unwrap().split(' ').next().unwrap()).unwrap()
        };
        let exec = text.lines().find(|it| it.starts_with("ExecStart=")).unwrap();
        let drain = exec.split_once("--drain ").map(|(_, rest)| rest.split(' ').next().unwrap());
        let drain = humantime::parse_duration(drain.unwrap_or("2h")).unwrap();
        assert!(value("TimeoutStopSec=") > drain, "{service}");
    }
}

/// The flags of the last ExecStart.
fn check_exec(service: &str, unit: &str) {
    let exec = unit.lines().filter_map(|it| it.strip_prefix("ExecStart=")).next_back().unwrap();
    let flags: Vec<&str> = exec.split(' ').filter(|it| it.starts_with("--")).collect();
    assert!(flags.len() > 1 && exec.starts_with(&format!("/usr/bin/{service} ")), "{exec}");
    check(service, flags);
}
