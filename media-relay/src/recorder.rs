//! Recordings on disk: WAV files, written by a thread of their own.
//!
//! Samples come from the packet thread over a bounded queue and are left out, and counted, when the
//! disk does not keep up; silence then takes their place, so that time in the file stays right. The
//! header is brought up to date with every second of sound: a file that the process left behind when
//! it was killed is a WAV file of all but its last second.

use crate::metrics;
use anyhow::Context as _;
use media::{RECORDINGS_MAX, RecordingFormat, Side};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::watch;

/// Chunks of samples (200 ms of one recording each) that may wait for the disk.
const CHUNKS_MAX: usize = 4_096;
/// A recording is opened and ended once each: with room for both, these are never refused.
const JOBS_MAX: usize = CHUNKS_MAX + 2 * RECORDINGS_MAX;
const HEADER_BYTES: u64 = 44;

/// A recording whose file is complete.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub about: Arc<About>,
    pub duration_ms: u32,
    pub lost_ms: u32,
    /// Why it could not go on; empty if nothing was wrong.
    pub error: String,
}

/// What a recording is of.
#[derive(Debug)]
pub(crate) struct About {
    pub recording_id: String,
    pub session_id: String,
    pub call_id: String,
    pub owner: String,
    pub side: Option<Side>,
    /// Below `--recordings-dir`.
    pub file: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the relay has no --recordings-dir")]
    NoFolder,
    #[error("file {0:?} exists below --recordings-dir; choose another name")]
    Exists(String),
    #[error("{RECORDINGS_MAX} recordings are being written, and no more at a time")]
    TooMany,
    #[error("cannot make {file:?} below --recordings-dir: {error}")]
    Io { file: String, error: io::Error },
}

enum Job {
    Open {
        id: Arc<str>,
        writing: Writing,
    },
    /// Samples that were left out before these, and these.
    Chunk {
        id: Arc<str>,
        lost: u64,
        samples: Vec<i16>,
    },
    End {
        id: Arc<str>,
        lost: u64,
    },
    /// It was not begun after all.
    Discard {
        id: Arc<str>,
    },
}

/// For those who open recordings; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    folder: Option<Arc<Path>>,
    jobs: SyncSender<Job>,
    open: Arc<watch::Sender<usize>>,
}

/// For the packet thread, which never waits for it.
pub(crate) struct Feed {
    jobs: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
    /// Samples of recordings that were left out since their last chunk.
    lost: HashMap<Arc<str>, u64>,
}

/// The thread's part.
pub(crate) struct RecorderThread {
    jobs: Receiver<Job>,
    waiting: Arc<AtomicUsize>,
    open: Arc<watch::Sender<usize>>,
}

/// A recorder that writes below `folder`, if there is one.
///
/// # Errors
/// If the folder is not there and cannot be made.
pub(crate) fn recorder(folder: Option<&Path>) -> anyhow::Result<(Recorder, Feed, RecorderThread)> {
    if let Some(folder) = folder {
        fs::create_dir_all(folder)
            .with_context(|| format!("make --recordings-dir {}", folder.display()))?;
    }
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(watch::Sender::new(0));
    let recorder =
        Recorder { folder: folder.map(Into::into), jobs: sender.clone(), open: open.clone() };
    let feed = Feed { jobs: sender, waiting: waiting.clone(), lost: HashMap::new() };
    Ok((recorder, feed, RecorderThread { jobs, waiting, open }))
}

impl Recorder {
    /// Makes the file of a recording, with the header of an empty one. Waits for the disk.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(&self, about: About, format: RecordingFormat) -> Result<(), OpenError> {
        let folder = self.folder.as_deref().ok_or(OpenError::NoFolder)?;
        let mut is_free = false;
        self.open.send_modify(|open| {
            is_free = *open < RECORDINGS_MAX;
            *open += usize::from(is_free);
        });
        if !is_free {
            return Err(OpenError::TooMany);
        }
        let file = about.file.clone();
        let id: Arc<str> = about.recording_id.as_str().into();
        let made = make_file(&folder.join(&file)).and_then(|(path, file)| {
            let writing = Writing::new(path, file, about, format);
            writing.write_header().map(|()| writing)
        });
        let opened = made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OpenError::Exists(file),
            _ => OpenError::Io { file, error },
        });
        let sent = opened.and_then(|writing| {
            self.jobs.try_send(Job::Open { id, writing }).map_err(|_| OpenError::TooMany)
        });
        sent.inspect_err(|_| self.open.send_modify(|open| *open -= 1))
    }

    /// Removes the file of a recording that was not begun after all.
    pub(crate) fn discard(&self, recording_id: &str) {
        let _ = self.jobs.try_send(Job::Discard { id: recording_id.into() }); // There is room.
    }

    /// Completes when every file is complete.
    pub(crate) async fn idle(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await; // It lives as long as we.
    }
}

impl Feed {
    /// Hands samples to the disk, or notes that they are lost.
    pub(crate) fn write(&mut self, id: Arc<str>, samples: Vec<i16>) {
        let len = samples.len() as u64;
        if self.waiting.load(Ordering::Relaxed) >= CHUNKS_MAX {
            *self.lost.entry(id).or_default() += len;
            metrics::count_recording_lost(len);
            return;
        }
        let lost = self.lost.remove(&id).unwrap_or(0);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.jobs.try_send(Job::Chunk { id, lost, samples }).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed); // The thread has died, and the process will.
        }
    }

    pub(crate) fn end(&mut self, id: Arc<str>) {
        let lost = self.lost.remove(&id).unwrap_or(0);
        let _ = self.jobs.try_send(Job::End { id, lost }); // There is room.
    }
}

impl RecorderThread {
    /// Writes until nobody can send any more; `finished` is told of each complete file.
    pub(crate) fn run(self, finished: impl Fn(Finished)) {
        let mut recordings: HashMap<Arc<str>, Writing> = HashMap::new();
        while let Ok(job) = self.jobs.recv() {
            match job {
                Job::Open { id, writing } => {
                    recordings.insert(id, writing);
                }
                Job::Chunk { id, lost, samples } => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    if let Some(writing) = recordings.get_mut(&id) {
                        writing.take(lost, &samples);
                    }
                }
                Job::End { id, lost } => {
                    let Some(mut writing) = recordings.remove(&id) else { continue };
                    writing.take(lost, &[]);
                    finished(writing.finish());
                    self.open.send_modify(|open| *open -= 1);
                }
                Job::Discard { id } => {
                    let Some(writing) = recordings.remove(&id) else { continue };
                    let _ = fs::remove_file(&writing.path); // An empty file does no harm.
                    self.open.send_modify(|open| *open -= 1);
                }
            }
        }
    }
}

/// A file that grows.
struct Writing {
    path: PathBuf,
    file: File,
    about: Arc<About>,
    format: RecordingFormat,
    /// Bytes that are not in the file yet.
    pending: Vec<u8>,
    /// Bytes of samples in the file.
    written: u64,
    /// Samples of all channels that were left out.
    lost: u64,
    error: Option<String>,
}

impl Writing {
    fn new(path: PathBuf, file: File, about: About, format: RecordingFormat) -> Self {
        let about = Arc::new(about);
        Self { path, file, about, format, pending: Vec::new(), written: 0, lost: 0, error: None }
    }

    /// Silence for what was left out, then samples; to the disk, if it is a second.
    fn take(&mut self, lost: u64, samples: &[i16]) {
        if self.error.is_some() {
            return;
        }
        self.lost += lost;
        for _ in 0..lost {
            self.pending.extend([0; 2]);
            self.write_if(self.bytes_per_second());
        }
        self.pending.extend(samples.iter().flat_map(|it| it.to_le_bytes()));
        self.write_if(self.bytes_per_second());
    }

    fn write_if(&mut self, bytes: usize) {
        if self.pending.len() >= bytes && self.error.is_none() {
            self.error =
                self.write().err().map(|e| format!("failed to write {:?}: {e}", self.about.file));
            self.pending.clear();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, HEADER_BYTES + self.written)?;
        self.written += self.pending.len() as u64;
        self.write_header()
    }

    fn finish(mut self) -> Finished {
        self.write_if(0);
        let samples_per_ms =
            u64::from(self.format.sample_rate_hz) / 1_000 * self.format.channels() as u64;
        let ms = |samples: u64| u32::try_from(samples / samples_per_ms).unwrap_or(u32::MAX);
        Finished {
            about: self.about,
            duration_ms: ms(self.written / 2),
            lost_ms: ms(self.lost),
            error: self.error.unwrap_or_default(),
        }
    }

    fn bytes_per_second(&self) -> usize {
        self.format.sample_rate_hz as usize * self.format.channels() * 2
    }

    /// RIFF, WAVE, PCM of 16 bits; its lengths are those of what is in the file.
    fn write_header(&self) -> io::Result<()> {
        let bytes = u32::try_from(self.written).unwrap_or(u32::MAX - 36);
        let (channels, rate) = (self.format.channels() as u16, self.format.sample_rate_hz);
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend(b"RIFF");
        header.extend((bytes + 36).to_le_bytes());
        header.extend(b"WAVEfmt ");
        header.extend(16u32.to_le_bytes());
        header.extend(1u16.to_le_bytes());
        header.extend(channels.to_le_bytes());
        header.extend(rate.to_le_bytes());
        header.extend((rate * u32::from(channels) * 2).to_le_bytes());
        header.extend((channels * 2).to_le_bytes());
        header.extend(16u16.to_le_bytes());
        header.extend(b"data");
        header.extend(bytes.to_le_bytes());
        self.file.write_all_at(&header, 0)
    }
}

/// A new file, in folders that are made if needed.
fn make_file(path: &Path) -> io::Result<(PathBuf, File)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().write(true).create_new(true).open(path)?;
    Ok((path.to_owned(), file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const STEREO: RecordingFormat = RecordingFormat { side: None, sample_rate_hz: 8_000 };

    fn about(file: &str) -> About {
        About {
            recording_id: "r".into(),
            session_id: "s".into(),
            call_id: "c".into(),
            owner: "o".into(),
            side: None,
            file: file.into(),
        }
    }

    /// Channels and rate by the header, and the samples that it promises.
    fn read(path: &Path) -> (u16, u32, Vec<i16>) {
        let bytes = fs::read(path).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(
            (&bytes[..4], &bytes[8..16], &bytes[36..40]),
            (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..])
        );
        assert_eq!(word(4), word(40) + 36);
        let samples = bytes[44..][..word(40) as usize].chunks(2);
        let samples = samples.map(|it| i16::from_le_bytes([it[0], it[1]])).collect();
        (u16::from_le_bytes([bytes[22], bytes[23]]), word(24), samples)
    }

    #[test]
    fn a_killed_process_leaves_a_file_of_all_but_the_last_second() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = make_file(&folder.path().join("deep/er/a.wav")).unwrap();
        let mut writing = Writing::new(path.clone(), file, about("a.wav"), STEREO);
        writing.write_header().unwrap();
        assert_eq!(read(&path), (2, 8_000, vec![]));
        for n in 0..17 {
            writing.take(0, &[n; 3_200]); // 200 ms.
        }
        let (_, _, samples) = read(&path); // It is not told to finish.
        assert_eq!(samples.len(), 3 * 16_000, "three of 3.4 seconds");
        assert_eq!((samples[0], samples[47_999]), (0, 14));
        let finished = writing.finish();
        assert_eq!((finished.duration_ms, finished.lost_ms), (3_400, 0));
        assert_eq!(read(&path).2.len(), 17 * 3_200);
    }

    #[test]
    fn a_disk_that_does_not_keep_up_costs_sound_but_neither_time_nor_patience() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, mut feed, thread) = recorder(Some(folder.path())).unwrap();
        recorder.open(about("slow.wav"), STEREO).unwrap();
        let id: Arc<str> = "r".into();
        for _ in 0..CHUNKS_MAX + 10 {
            feed.write(id.clone(), vec![7; 16]); // 1 ms; nobody writes it.
        }
        assert_eq!(feed.lost[&id], 160);
        feed.end(id.clone());
        drop((recorder, feed));
        let (finished_tx, finished) = channel();
        thread.run(|it| finished_tx.send(it).unwrap());
        let finished = finished.recv().unwrap();
        assert_eq!(finished.lost_ms, 10);
        assert_eq!(finished.duration_ms as usize, CHUNKS_MAX + 10, "silence has its place");
        let (_, _, samples) = read(&folder.path().join("slow.wav"));
        assert_eq!(samples.iter().filter(|it| **it == 0).count(), 160);
    }

    #[test]
    fn a_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, _feed, _thread) = recorder(Some(folder.path())).unwrap();
        recorder.open(about("a.wav"), STEREO).unwrap();
        let error = recorder.open(about("a.wav"), STEREO).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file \"a.wav\" exists below --recordings-dir; choose another name"
        );
        assert_eq!(*recorder.open.borrow(), 1, "only one is open");
    }

    #[test]
    fn what_was_not_begun_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, feed, thread) = recorder(Some(folder.path())).unwrap();
        recorder.open(about("a.wav"), STEREO).unwrap();
        recorder.discard("r");
        let open = recorder.open.clone();
        drop((recorder, feed));
        thread.run(|_| panic!("nothing was finished"));
        assert!(!folder.path().join("a.wav").exists());
        assert_eq!(*open.borrow(), 0);
    }

    #[test]
    fn more_recordings_than_the_limit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, _feed, _thread) = recorder(Some(folder.path())).unwrap();
        recorder.open.send_replace(RECORDINGS_MAX);
        assert!(matches!(recorder.open(about("a.wav"), STEREO), Err(OpenError::TooMany)));
        assert!(!folder.path().join("a.wav").exists());
    }
}
