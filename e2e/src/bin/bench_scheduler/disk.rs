//! The disk by itself: how long it takes to have on it what one commit of few tasks writes. Nothing that
//! waits for a commit can be quicker.

use anyhow::Context as _;
use e2e::bench::{Percentiles, Report};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// As much as SQLite's log of commits gets for some twenty tasks.
const COMMIT_BYTES: usize = 65_536;
const COMMITS: usize = 1_000;
/// The file is written round and round, as that log is.
const COMMITS_IN_FILE: usize = 64;
/// Between two, so that it is not the disk's throughput that is measured.
const REST: Duration = Duration::from_millis(5);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = File::create(folder.path().join("commits")).context("make a file")?;
    let commit = vec![7; COMMIT_BYTES];
    let mut sync_ms = Vec::with_capacity(COMMITS);
    for nth in 0..COMMITS_IN_FILE + COMMITS {
        let begun = Instant::now();
        file.write_all_at(&commit, (nth % COMMITS_IN_FILE * COMMIT_BYTES) as u64)?;
        file.sync_all().context("sync")?;
        if nth >= COMMITS_IN_FILE {
            sync_ms.push(begun.elapsed().as_secs_f64() * 1_000.0);
            std::thread::sleep(REST);
        }
    }
    let sync_ms = Percentiles::new(sync_ms);
    eprintln!("write and sync in ms: {sync_ms}");
    report.add("disk_sync_p50_ms", sync_ms.at(50.0), "ms");
    report.add("disk_sync_p99_ms", sync_ms.at(99.0), "ms");
    report.add("disk_sync_max_ms", sync_ms.max(), "ms");
    Ok(())
}
