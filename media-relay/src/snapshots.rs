//! Snapshots of the sessions in `--state-dir`, so that they outlive this process.
//!
//! One log of JSON lines, one for each change, the newest of a session counts; begun anew, with only
//! what lives, at every start and whenever it has grown. It is written in batches by a thread of its
//! own: the packet thread only hands changes over, and keeps those that do not fit. What has changed
//! within the last [`BATCH_TIME`] before a SIGKILL is lost. Nothing is synchronised with the disk:
//! the kernel outlives the process, and if the machine goes down, so do its sockets.

use crate::library::Library;
use crate::metrics;
use crate::packet_thread::{Handle, PacketThread};
use anyhow::Context as _;
use media::{Changed, Play, Resumed, SessionSnapshot};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Changes that wait to be written; further ones wait in the core, one for each session at most.
const WAITING_MAX: usize = 1_024;
/// How long changes are gathered, so that a session that is being set up is written once or twice.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// The log is begun anew when it is larger than this and than [`GROWTH_MAX`] times what lives.
const LOG_BYTES_MIN: usize = 4 << 20;
const GROWTH_MAX: usize = 4;
/// How long a prompt that an earlier process began waits for somebody who must hear of its end.
const WATCHER_PATIENCE: Duration = Duration::from_secs(10);
const WATCHER_POLL: Duration = Duration::from_millis(50);
/// What is left of a prompt that was over before its end could be told, in ms.
const PROMPT_REST_MS: u32 = 20;

/// A line of the log.
#[derive(Serialize, Deserialize)]
enum Line<S> {
    #[serde(rename = "lives")]
    Lives(S),
    #[serde(rename = "gone")]
    Gone(String),
}

/// The log, and what it says of each session.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Held as long as the log: two processes must not take up the same sessions.
    _lock: File,
    lines: HashMap<String, String>,
    live_bytes: usize,
    written_bytes: usize,
    failing: bool,
}

impl Log {
    /// Opens the log of `folder`, which is made if needed; also returns the sessions in it, oldest
    /// first.
    ///
    /// # Errors
    /// If the folder cannot be written to, or another process has it.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<(Self, Vec<SessionSnapshot>)> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("make --state-dir {shown}"))?;
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("write to {shown}"))?;
        lock.try_lock().with_context(|| {
            format!("have --state-dir {shown} alone: each media-relay needs one of its own")
        })?;
        let path = folder.join("sessions.jsonl");
        let (lines, sessions) = read(&path).with_context(|| format!("read {}", path.display()))?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let live_bytes = lines.values().map(String::len).sum();
        let (written_bytes, failing) = (0, false);
        let mut log = Self { path, file, _lock: lock, lines, live_bytes, written_bytes, failing };
        log.begin_anew().context("write the snapshots anew")?;
        Ok((log, sessions))
    }

    /// Writes what comes, on a thread of its own, until the sender is gone.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(crate) fn start(self) -> anyhow::Result<SyncSender<Changed>> {
        let (changes_tx, changes) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("snapshots".to_owned());
        thread.spawn(move || self.run(&changes)).context("start the thread of the snapshots")?;
        Ok(changes_tx)
    }

    fn run(mut self, changes: &Receiver<Changed>) {
        while let Ok(first) = changes.recv() {
            let mut batch = HashMap::new();
            note(&mut batch, first);
            // Who waited here would be woken for each change, by the packet thread.
            std::thread::sleep(BATCH_TIME);
            while batch.len() < WAITING_MAX
                && let Ok(next) = changes.try_recv()
            {
                note(&mut batch, next);
            }
            let written = self.write(batch);
            match &written {
                Err(e) if !self.failing => warn!("failed to write snapshots of sessions: {e:#}"),
                Ok(()) if self.failing => info!("snapshots of sessions are written again"),
                _ => (),
            }
            self.failing = written.is_err();
        }
    }

    fn write(&mut self, batch: HashMap<String, Option<String>>) -> io::Result<()> {
        let mut text = String::new();
        for (id, line) in batch {
            let before = match line {
                Some(line) => {
                    text += &line;
                    self.live_bytes += line.len();
                    self.lines.insert(id, line)
                }
                None => {
                    text += &encoded(&Line::<()>::Gone(id.clone()));
                    self.lines.remove(&id)
                }
            };
            self.live_bytes -= before.map_or(0, |it| it.len());
        }
        self.written_bytes += text.len();
        let grown = self.written_bytes > LOG_BYTES_MIN.max(GROWTH_MAX * self.live_bytes);
        let written = match grown || self.failing {
            true => self.begin_anew(),
            false => self.file.write_all(text.as_bytes()),
        };
        if written.is_err() {
            metrics::count_snapshot_failure();
        }
        written
    }

    /// Replaces the log by one of what lives.
    fn begin_anew(&mut self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        let text: String = self.lines.values().map(String::as_str).collect();
        file.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.written_bytes) = (file, text.len());
        Ok(())
    }
}

fn note(batch: &mut HashMap<String, Option<String>>, changed: Changed) {
    match changed {
        Changed::Lives(session) => {
            let id = session.session_id.clone();
            batch.insert(id, Some(encoded(&Line::Lives(session))));
        }
        Changed::Gone(id) => {
            batch.insert(id.to_string(), None);
        }
    }
}

fn encoded<S: Serialize>(line: &Line<S>) -> String {
    let mut text = serde_json::to_string(line).expect("a snapshot has only plain values");
    text.push('\n');
    text
}

/// The newest line of each session. A last line that was cut off is nothing; others that cannot be
/// read are of another version, and are told.
fn read(path: &Path) -> io::Result<(HashMap<String, String>, Vec<SessionSnapshot>)> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text?,
    };
    let mut sessions = HashMap::new();
    let mut unreadable = 0;
    for line in text.split(|it| *it == b'\n').filter(|it| !it.is_empty()) {
        match serde_json::from_slice::<Line<SessionSnapshot>>(line) {
            Ok(Line::Lives(session)) => {
                sessions.insert(session.session_id.clone(), session);
            }
            Ok(Line::Gone(id)) => {
                sessions.remove(&id);
            }
            Err(_) => unreadable += 1,
        }
    }
    if unreadable > 0 {
        warn!(unreadable, path = %path.display(), "failed to read snapshots of sessions");
    }
    let lines = sessions.iter().map(|(id, it)| (id.clone(), encoded(&Line::Lives(it)))).collect();
    let mut sessions: Vec<_> = sessions.into_values().collect();
    sessions.sort_by_key(|it| (it.created_unix_us, it.session_id.clone()));
    Ok((lines, sessions))
}

/// Takes up the sessions of the log in `folder`, and has all changes written to it from now on.
/// Returns what they play, for [`resume`].
///
/// # Errors
/// As [`Log::open`]; a session that cannot be taken up is told and left out.
pub(crate) fn restore(folder: &Path, thread: &mut PacketThread) -> anyhow::Result<Vec<Resumed>> {
    let (log, sessions) = Log::open(folder)?;
    thread.tell_changes(log.start()?);
    let found = sessions.len();
    let mut resumed = Vec::new();
    let mut lost = 0;
    for session in sessions {
        match thread.restore(&session) {
            Ok(plays) => resumed.extend(plays),
            Err(e) => {
                let (session_id, call_id) = (&session.session_id, &session.call_id);
                warn!(%session_id, %call_id, "failed to take up a session: {e:#}");
                thread.forget(session_id);
                lost += 1;
            }
        }
    }
    metrics::count_restored(found - lost, lost);
    if found > 0 {
        info!(sessions = found - lost, lost, playing = resumed.len(), "took up sessions");
    }
    Ok(resumed)
}

/// Plays on, where it would be by now: music at once; prompts when somebody watches, to hear of
/// their end.
pub(crate) async fn resume(resumed: Vec<Resumed>, library: &Library, packets: &Handle) {
    let since = Instant::now();
    let (music, prompts): (Vec<_>, Vec<_>) = resumed.into_iter().partition(|it| it.play.repeat);
    for it in music {
        resume_one(it, since, library, packets).await;
    }
    if prompts.is_empty() {
        return;
    }
    let (library, packets) = (library.clone(), packets.clone());
    tokio::spawn(async move {
        while !packets.is_watched() && since.elapsed() < WATCHER_PATIENCE {
            tokio::time::sleep(WATCHER_POLL).await;
        }
        for it in prompts {
            resume_one(it, since, &library, &packets).await;
        }
    });
}

async fn resume_one(resumed: Resumed, since: Instant, library: &Library, packets: &Handle) {
    let Resumed { session_id, call_id, side, play, age, is_conference_music } = resumed;
    let audio = match library.load(&play.file).await {
        Ok(audio) => audio,
        Err(e) => return warn!(%session_id, call_id, file = play.file, "failed to play on: {e}"),
    };
    let duration_ms = audio.duration_ms();
    let id = session_id.clone();
    let resumed = packets.call(move |thread| {
        let offset_ms = play.offset_after(age + since.elapsed(), duration_ms);
        let play = Play {
            play_id: play.play_id.as_str().into(),
            file: play.file.as_str().into(),
            audio,
            repeat: play.repeat,
            radio: play.radio,
            offset_ms: offset_ms.unwrap_or(duration_ms.saturating_sub(PROMPT_REST_MS)),
        };
        let now = Instant::now();
        match is_conference_music {
            true => thread.relay.resume_conference_music(now, &session_id, side, play),
            false => thread.relay.play(now, &session_id, side, play),
        }
    });
    match resumed.await {
        Ok(Ok(())) => (),
        // Deleted meanwhile, or too short to be played from there.
        Ok(Err(e)) => info!(session_id = %id, call_id, "not played on: {e}"),
        Err(e) => warn!(session_id = %id, call_id, "failed to play on: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media::SNAPSHOT_VERSION;

    fn session(id: &str, call_id: &str) -> Changed {
        Changed::Lives(Box::new(SessionSnapshot {
            version: SNAPSHOT_VERSION,
            session_id: id.to_owned(),
            call_id: call_id.to_owned(),
            owner: "edge".to_owned(),
            created_unix_us: id.len() as u64,
            taken_unix_us: 7,
            sides: [None, None],
        }))
    }

    fn write(log: &mut Log, changes: impl IntoIterator<Item = Changed>) {
        let mut batch = HashMap::new();
        for it in changes {
            note(&mut batch, it);
        }
        log.write(batch).unwrap();
    }

    fn ids(sessions: &[SessionSnapshot]) -> Vec<(&str, &str)> {
        sessions.iter().map(|it| (it.session_id.as_str(), it.call_id.as_str())).collect()
    }

    #[test]
    fn the_newest_line_of_each_session_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, sessions) = Log::open(folder.path()).unwrap();
        assert_eq!(sessions, []);
        write(&mut log, [session("a", "1"), session("bb", "2"), session("ccc", "3")]);
        write(&mut log, [session("a", "4"), Changed::Gone("bb".into())]);
        drop(log);
        // What a SIGKILL leaves of a line that was being written.
        let path = folder.path().join("sessions.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"lives":{"version":1,"session"#).unwrap();
        drop(file);
        let (log, sessions) = Log::open(folder.path()).unwrap();
        assert_eq!(ids(&sessions), [("a", "4"), ("ccc", "3")]);
        drop(log);
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().count(), 2, "begun anew: {lines}");
    }

    #[test]
    fn a_log_that_has_grown_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        write(&mut log, [session("kept", "1")]);
        let line = log.live_bytes;
        let path = folder.path().join("sessions.jsonl");
        let mut largest = 0;
        for _ in 0..2 * LOG_BYTES_MIN / line {
            write(&mut log, [session("kept", "2")]);
            largest = largest.max(log.written_bytes);
        }
        assert!(largest <= LOG_BYTES_MIN, "{largest} bytes");
        drop(log);
        assert!(std::fs::metadata(path).unwrap().len() <= LOG_BYTES_MIN as u64);
        assert_eq!(ids(&Log::open(folder.path()).unwrap().1), [("kept", "2")]);
    }

    #[test]
    fn two_processes_do_not_take_up_the_same_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let _log = Log::open(folder.path()).unwrap();
        let error = format!("{:#}", Log::open(folder.path()).err().unwrap());
        assert!(error.contains("each media-relay needs one of its own"), "{error}");
    }
}
