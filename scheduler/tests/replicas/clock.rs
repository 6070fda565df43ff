//! The wall clock steps by an hour, and relative tasks do not move: in memory or not, extended or
//! paused.

use e2e::{NatsServer, RecordingEdge, Replica, ReplicaFlags};
use proto::scheduler::v1::*;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
/// How far ahead tasks are in memory.
const HORIZON: &str = "10s";
/// Within the horizon, beyond it, and until after the end of the test.
const NEAR_MS: i64 = 3_000;
const FAR_MS: i64 = 13_000;
const PAUSED_MS: i64 = 60_000;
/// Where Debian's package libfaketime puts it, by architecture.
const LIBRARIES: &str = "/usr/lib";

/// The wall clock of one process, this much beside everyone else's.
struct WallClock {
    folder: TempDir,
}

impl WallClock {
    fn start() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.step("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("time")
    }

    /// E.g. "+3600": seconds from what everyone else has.
    fn step(&self, by_s: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, format!("{by_s}\n")).unwrap();
        std::fs::rename(fresh, self.file()).unwrap(); // Never half of it.
    }

    fn environment(&self) -> Vec<(String, String)> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let library = library().display().to_string();
        [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(own)
        .to_vec()
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir(LIBRARIES).unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|path| path.is_file());
    found.expect("libfaketime is installed: sudo apt-get install --no-install-recommends faketime")
}

async fn check(step: &str) {
    let (nats, edge) = (NatsServer::start().unwrap(), RecordingEdge::start().unwrap());
    let (wall, folder) = (WallClock::start(), tempfile::tempdir().unwrap());
    let flags = ReplicaFlags {
        database_url: &format!("sqlite:{}", folder.path().join("scheduler.db").display()),
        nats_url: &nats.url(),
        more: ["--sip-edge", &edge.url(), "--horizon", HORIZON].map(str::to_owned).into(),
        environment: wall.environment(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_scheduler"));
    let replica = Replica::start_binary(program, &flags).unwrap();
    let mut client = replica.client().unwrap();
    let request = |after_ms| ScheduleRequest {
        call_id: boot::new_id(),
        action: Some(schedule_request::Action::Hangup(HangupCall::default())),
        when: Some(schedule_request::When::AfterMs(after_ms)),
        ..ScheduleRequest::default()
    };
    let (asked, before) = (Instant::now(), boot::unix_ms());
    let near = client.schedule(request(NEAR_MS)).await.unwrap().into_inner();
    let extended = client.schedule(request(NEAR_MS)).await.unwrap().into_inner();
    let paused = client.schedule(request(PAUSED_MS)).await.unwrap().into_inner();
    let far = client.schedule(request(FAR_MS)).await.unwrap().into_inner();
    assert!((before..before + 60_000).contains(&near.created_unix_ms), "{near:?}");
    wall.step(step);
    // It sees the step: what is made now is an hour beside.
    let shifted = client.schedule(request(3_600_000)).await.unwrap().into_inner();
    let apart_ms = (shifted.created_unix_ms - near.created_unix_ms).abs();
    assert!((3_590_000..3_660_000).contains(&apart_ms), "stepped by {apart_ms} ms");
    let when = Some(reschedule_request::When::ExtendMs(NEAR_MS));
    let extend = RescheduleRequest { task_id: extended.task_id.clone(), when, revision: 0 };
    client.reschedule(extend).await.unwrap();
    let scope = Some(pause_request::Scope::TaskId(paused.task_id));
    let paused = client.pause(PauseRequest { scope }).await.unwrap().into_inner().task.unwrap();
    let passed_ms = asked.elapsed().as_millis() as i64;
    let left_ms = PAUSED_MS - passed_ms - 1..=PAUSED_MS;
    assert!(left_ms.contains(&paused.remaining_ms), "{paused:?}, wanted {left_ms:?}");

    for (count, task, after_ms) in
        [(1, near, NEAR_MS), (2, extended, 2 * NEAR_MS), (3, far, FAR_MS)]
    {
        let fired = tokio::time::timeout(LIMIT, edge.wait_for_effects(count)).await;
        fired.unwrap_or_else(|_| panic!("{after_ms}: it did not fire in {LIMIT:?}"));
        let elapsed = asked.elapsed();
        assert!(elapsed >= Duration::from_millis(after_ms as u64), "fired after {elapsed:?}");
        let effects = edge.effects();
        assert!(effects.contains_key(&(task.task_id, 0)), "{after_ms}: the wrong one fired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_task_does_not_move_when_the_wall_clock_steps_an_hour_ahead() {
    check("+3600").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_task_does_not_move_when_the_wall_clock_steps_an_hour_back() {
    check("-3600").await;
}
