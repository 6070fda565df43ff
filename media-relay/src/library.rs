//! Audio files by name: found below one folder, decoded once, kept while memory allows.

use crate::{raw, wav};
use media::{Audio, AudioError, Law};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

/// Encoded audio that is kept, in bytes: four hours and a half.
const AUDIO_BYTES_MAX: usize = 256 << 20;
/// Files that are decoded at a time.
const DECODINGS_MAX: usize = 2;
/// Audio that is decoded before anybody asks, in bytes.
const PRELOADED_BYTES_MAX: usize = AUDIO_BYTES_MAX / 2;
/// Files that are looked at then, and how deep in folders.
const PRELOADED_FILES_MAX: usize = 1_000;
const PRELOADED_DEPTH_MAX: usize = 8;
/// Longest file name of a request, in bytes.
const NAME_BYTES_MAX: usize = 1_024;
/// What a name without extension may mean, best first.
const EXTENSIONS: [&str; 3] = ["wav", "0", "8"];

/// Why a file cannot be played; shown to the one who asked for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("file {name:?} is not a path below --media-dir: {why}")]
    Name { name: String, why: &'static str },
    #[error("no file {name:?} in --media-dir {dir} (nor with .wav, .0 or .8)")]
    NotFound { name: String, dir: String },
    #[error("{AUDIO_BYTES_MAX} bytes of audio are in use; {file:?} does not fit beside them")]
    MemoryUsedUp { file: String },
    #[error("file {file:?} {unusable}")]
    Unusable { file: String, unusable: Unusable },
}

/// What a file looks like instead of what it should be, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("is not a WAV file: it looks like {looks_like}; convert it with `sox IN OUT.wav`")]
    NotWav { looks_like: &'static str },
    #[error(
        "is truncated: {got} bytes of samples, {} promised; copy it again",
        wanted.map_or("more".to_owned(), |it| it.to_string())
    )]
    Truncated { got: u64, wanted: Option<u64> },
    #[error("holds no samples")]
    Empty,
    #[error("has a sample rate of {rate_hz} Hz; wanted 4000 to 384000")]
    Rate { rate_hz: u32 },
    #[error("cannot be decoded: {reason}; convert it with `sox IN -e signed -b 16 OUT.wav`")]
    Unsupported { reason: String },
    #[error("{0}")]
    Audio(#[from] AudioError),
    #[error("is named as raw {named} but looks like {looks_like}; give it that extension")]
    Header { looks_like: &'static str, named: &'static str },
    #[error(
        "is named as raw {named} but looks like {looks_like}, which would crackle; rename it \
         (.0 is PCMU, .8 is PCMA)"
    )]
    OtherLaw { looks_like: &'static str, named: &'static str },
    #[error(
        "is named as raw {named} but looks like 16-bit linear PCM ({endian}-endian), which would \
         crackle; convert it with \
         `sox -t raw -r 8000 -e signed -b 16 --endian {endian} -c 1 IN -t {law} OUT`"
    )]
    LinearPcm { endian: &'static str, named: &'static str, law: &'static str },
    #[error("has an extension that is not .wav, .0 (raw PCMU) or .8 (raw PCMA); it looks like {0}")]
    Extension(&'static str),
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Library {
    dir: Arc<Path>,
    cache: Arc<Mutex<Cache>>,
    decodings: Arc<Semaphore>,
}

/// Who last asked for what, by a count of askings.
#[derive(Default)]
struct Cache {
    entries: HashMap<PathBuf, Entry>,
    askings: u64,
}

struct Entry {
    audio: Arc<Audio>,
    version: Version,
    asked: u64,
}

/// A file that has changed is decoded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    modified: SystemTime,
    len: u64,
}

impl Library {
    pub(crate) fn new(dir: &Path) -> Self {
        let decodings = Arc::new(Semaphore::new(DECODINGS_MAX));
        Self { dir: dir.into(), cache: Arc::default(), decodings }
    }

    /// The audio that `name` means, decoded away from the packet thread if it is not kept.
    ///
    /// # Errors
    /// [`LoadError`], worded for the one who asked.
    pub(crate) async fn load(&self, name: &str) -> Result<Arc<Audio>, LoadError> {
        // A task of its own: who asks may lose patience, and finds it decoded the next time.
        let loading = tokio::spawn(self.clone().load_here(name.to_owned()));
        loading.await.expect("a panic ends the process")
    }

    async fn load_here(self, name: String) -> Result<Arc<Audio>, LoadError> {
        let dir = self.dir.clone();
        let (path, version) = blocking(move || find(&dir, &name)).await?;
        if let Some(audio) = self.kept(&path, version) {
            return Ok(audio);
        }
        let _permit = self.decodings.acquire().await.expect("it is never closed");
        if let Some(audio) = self.kept(&path, version) {
            return Ok(audio); // Decoded while we waited.
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let decoded = {
            let path = path.clone();
            blocking(move || decode(&path)).await
        };
        let audio =
            decoded.map_err(|unusable| LoadError::Unusable { file: file.clone(), unusable })?;
        self.keep(path, version, Arc::new(audio)).ok_or(LoadError::MemoryUsedUp { file })
    }

    /// Decodes what the folder holds, while memory allows, so that the first caller need not wait;
    /// and warns of files that cannot be played.
    pub(crate) async fn preload(self) {
        if !self.dir.is_dir() {
            warn!(dir = %self.dir.display(), "--media-dir is not there: nothing can be played");
        }
        let dir = self.dir.clone();
        let names = blocking(move || names(&dir)).await;
        let mut decoded = 0;
        for name in names {
            if self.used_bytes() > PRELOADED_BYTES_MAX {
                break;
            }
            match self.load(&name).await {
                Ok(_) => decoded += 1,
                Err(e) => warn!("failed to load audio: {e}"),
            }
        }
        info!(files = decoded, bytes = self.used_bytes(), dir = %self.dir.display(), "audio ready");
    }

    fn used_bytes(&self) -> usize {
        self.cache.lock().expect("nobody panics with it").bytes()
    }

    fn kept(&self, path: &Path, version: Version) -> Option<Arc<Audio>> {
        let mut cache = self.cache.lock().expect("nobody panics with it");
        cache.askings += 1;
        let asked = cache.askings;
        let entry = cache.entries.get_mut(path).filter(|it| it.version == version)?;
        entry.asked = asked;
        Some(entry.audio.clone())
    }

    /// Makes room by forgetting what nobody listens to, the longest unasked first; none if that is
    /// not enough.
    fn keep(&self, path: PathBuf, version: Version, audio: Arc<Audio>) -> Option<Arc<Audio>> {
        let mut cache = self.cache.lock().expect("nobody panics with it");
        cache.entries.remove(&path); // An older version; who listens to it goes on.
        while cache.bytes() + audio.memory_bytes() > AUDIO_BYTES_MAX {
            let unused = cache.entries.iter().filter(|(_, it)| Arc::strong_count(&it.audio) == 1);
            let oldest = unused.min_by_key(|(_, it)| it.asked)?.0.clone();
            cache.entries.remove(&oldest);
        }
        let asked = cache.askings;
        cache.entries.insert(path, Entry { audio: audio.clone(), version, asked });
        Some(audio)
    }
}

impl Cache {
    fn bytes(&self) -> usize {
        self.entries.values().map(|it| it.audio.memory_bytes()).sum()
    }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    spawn_blocking(work).await.expect("a panic ends the process")
}

/// The file that a name means; never one outside `dir`, also not by a symbolic link.
fn find(dir: &Path, name: &str) -> Result<(PathBuf, Version), LoadError> {
    let wrong = |why| LoadError::Name { name: name.chars().take(200).collect(), why };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(wrong("wanted 1 to 1024 bytes without NUL"));
    }
    if Path::new(name).components().any(|it| it == Component::ParentDir) {
        return Err(wrong("it contains `..`"));
    }
    let missing = || LoadError::NotFound { name: name.to_owned(), dir: dir.display().to_string() };
    let root = dir.canonicalize().map_err(|_| missing())?;
    let bare = root.join(name);
    let with_extension = |extension: &&str| {
        let mut path = bare.clone().into_os_string();
        path.push(".");
        path.push(extension);
        PathBuf::from(path)
    };
    let candidates = std::iter::once(bare.clone()).chain(EXTENSIONS.iter().map(with_extension));
    for candidate in candidates {
        let Ok(path) = candidate.canonicalize() else { continue };
        if !path.starts_with(&root) {
            return Err(wrong("it leads outside"));
        }
        let Ok(metadata) = path.metadata() else { continue };
        if metadata.is_file() {
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            return Ok((path, Version { modified, len: metadata.len() }));
        }
    }
    Err(missing())
}

/// Files with an extension of ours in `dir` and the folders below it, as names for [`find`].
fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten().take(PRELOADED_FILES_MAX) {
            let Ok(kind) = entry.file_type() else { continue }; // Links are not followed.
            let path = entry.path();
            let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
            let is_ours = EXTENSIONS.iter().any(|it| extension.eq_ignore_ascii_case(it));
            match path.strip_prefix(dir).ok().and_then(|it| it.to_str()) {
                _ if found.len() == PRELOADED_FILES_MAX => return found,
                _ if kind.is_dir() && depth < PRELOADED_DEPTH_MAX => {
                    folders.push((path, depth + 1));
                }
                Some(name) if kind.is_file() && is_ours => found.push(name.to_owned()),
                _ => (),
            }
        }
    }
    found
}

fn decode(path: &Path) -> Result<Audio, Unusable> {
    let mut file = File::open(path)?;
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "wav" => Ok(Audio::from_linear(&wav::read(file)?)?),
        "0" => Ok(Audio::from_codes(Law::Pcmu, raw::read(file, Law::Pcmu)?)?),
        "8" => Ok(Audio::from_codes(Law::Pcma, raw::read(file, Law::Pcma)?)?),
        _ => {
            let mut head = [0; 12];
            let len = file.read(&mut head)?;
            Err(Unusable::Extension(wav::looks_like(&head[..len])))
        }
    }
}
