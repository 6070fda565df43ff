//! Audio files by name: found below one folder, decoded once, kept while memory allows.

use crate::ingest::{self, EXTENSIONS, Unusable, Wishes};
use media::{Audio, Codec, Form};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

/// Files that are decoded at a time.
const DECODINGS_MAX: usize = 2;
/// Part of the memory that may be filled before anybody asks.
const PRELOADED_PART: usize = 2;
/// Longest file that is encoded before anybody asks, in ms: ten minutes.
const PREENCODED_MS_MAX: u32 = 600_000;
/// The packet time that most phones ask for, in ms.
const PREENCODED_PTIME_MS: u32 = 20;
/// Files that are looked at then, and how deep in folders.
const PRELOADED_FILES_MAX: usize = 1_000;
const PRELOADED_DEPTH_MAX: usize = 8;
/// How long a name means what it meant: many callers ask for the same music at a time, and whoever looks
/// for a file waits for a disk.
const FOUND_FRESH: Duration = Duration::from_millis(250);
/// Names that are remembered so.
const FOUND_MAX: usize = 1_000;
/// Longest file name of a request, in bytes.
const NAME_BYTES_MAX: usize = 1_024;
/// Files that are played one after the other as one.
const SEQUENCE_MAX: usize = 32;
/// Why a file cannot be played; shown to the one who asked for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("file {name:?} is not a path below --media-dir: {why}")]
    Name { name: String, why: &'static str },
    #[error("no file {name:?} in --media-dir {dir} (nor with .{})", EXTENSIONS.join(", ."))]
    NotFound { name: String, dir: String },
    #[error(
        "file {file:?} takes {bytes} bytes, which do not fit beside what is playing into \
         --audio-memory {most}"
    )]
    MemoryUsedUp { file: String, bytes: usize, most: usize },
    #[error("file {file:?} {unusable}")]
    Unusable { file: String, unusable: Unusable },
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Library {
    dir: Arc<Path>,
    wishes: Wishes,
    /// What is encoded before anybody asks.
    codecs: Arc<[Codec]>,
    bytes_max: usize,
    cache: Arc<Mutex<Cache>>,
    found: Arc<Mutex<HashMap<String, Found>>>,
    decodings: Arc<Semaphore>,
}

/// Where a file was.
#[derive(Clone)]
struct Found {
    at: Instant,
    path: PathBuf,
    version: Version,
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
    /// Of the files below `dir`, which may take `bytes_max` bytes of memory, for listeners in
    /// `codecs`.
    pub(crate) fn new(dir: &Path, wishes: Wishes, codecs: &[Codec], bytes_max: usize) -> Self {
        let decodings = Arc::new(Semaphore::new(DECODINGS_MAX));
        let (cache, found) = (Arc::default(), Arc::default());
        Self { dir: dir.into(), wishes, codecs: codecs.into(), bytes_max, cache, found, decodings }
    }

    /// The audio that `name` means: that of a file, or of several one after the other, their names
    /// joined by `&`.
    ///
    /// # Errors
    /// [`LoadError`], worded for the one who asked.
    pub(crate) async fn load(&self, name: &str) -> Result<Arc<Audio>, LoadError> {
        if !name.contains('&') {
            return self.load_one(name).await;
        }
        let short = || name.chars().take(200).collect();
        if name.split('&').count() > SEQUENCE_MAX {
            return Err(LoadError::Name { name: short(), why: "wanted at most 32 files in a row" });
        }
        let mut parts = Vec::new();
        for name in name.split('&') {
            parts.push(self.load_one(name).await?);
        }
        let joined = blocking(move || Audio::joined(&parts)).await;
        let unusable = |e| LoadError::Unusable { file: short(), unusable: Unusable::Audio(e) };
        joined.map(Arc::new).map_err(unusable)
    }

    /// Which of `names` is the first that can be played, and its audio. All are looked for at once.
    ///
    /// # Errors
    /// Why the first of those that are there cannot be played, or that none is there.
    pub(crate) async fn load_any(
        &self,
        names: Vec<String>,
    ) -> Result<(usize, Arc<Audio>), LoadError> {
        let (dir, wanted) = (self.dir.clone(), names.clone());
        let find_all = move || wanted.iter().map(|name| find(&dir, name)).collect::<Vec<_>>();
        let found = blocking(find_all).await;
        let mut refused: Option<LoadError> = None;
        for (nth, (name, found)) in names.iter().zip(found).enumerate() {
            let loaded = match found {
                _ if name.contains('&') => self.load(name).await,
                Ok((path, version)) => self.load_found(path, version).await,
                Err(e) => Err(e),
            };
            match loaded {
                Ok(audio) => return Ok((nth, audio)),
                Err(e) => match &refused {
                    None | Some(LoadError::NotFound { .. }) => refused = Some(e),
                    Some(_) => (),
                },
            }
        }
        let nothing = || LoadError::Name { name: String::new(), why: "wanted a name" };
        Err(refused.unwrap_or_else(nothing))
    }

    async fn load_one(&self, name: &str) -> Result<Arc<Audio>, LoadError> {
        let at = Instant::now();
        let known = self.found().get(name).filter(|it| at - it.at < FOUND_FRESH).cloned();
        if let Some(Found { path, version, .. }) = known {
            return self.load_found(path, version).await;
        }
        let (dir, wanted) = (self.dir.clone(), name.to_owned());
        let (path, version) = blocking(move || find(&dir, &wanted)).await?;
        {
            let mut found = self.found();
            if found.len() >= FOUND_MAX {
                found.clear();
            }
            found.insert(name.to_owned(), Found { at, path: path.clone(), version });
        }
        self.load_found(path, version).await
    }

    fn found(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.found.lock().expect("nobody panics with it")
    }

    /// The audio of a file, decoded away from the packet thread if it is not kept.
    async fn load_found(&self, path: PathBuf, version: Version) -> Result<Arc<Audio>, LoadError> {
        if let Some(audio) = self.kept(&path, version) {
            return Ok(audio);
        }
        // A task of its own: who asks may lose patience, and finds it decoded the next time.
        let decoding = tokio::spawn(self.clone().decode(path, version));
        decoding.await.expect("a panic ends the process")
    }

    async fn decode(self, path: PathBuf, version: Version) -> Result<Arc<Audio>, LoadError> {
        let _permit = self.decodings.acquire().await.expect("it is never closed");
        if let Some(audio) = self.kept(&path, version) {
            return Ok(audio); // Decoded while we waited.
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let decoded = {
            let (path, wishes) = (path.clone(), self.wishes);
            blocking(move || ingest::read(&path, wishes)).await
        };
        let audio =
            decoded.map_err(|unusable| LoadError::Unusable { file: file.clone(), unusable })?;
        let (bytes, most) = (audio.memory_bytes(), self.bytes_max);
        let kept = self.keep(path, version, Arc::new(audio));
        kept.ok_or(LoadError::MemoryUsedUp { file, bytes, most })
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
            if self.used_bytes() > self.bytes_max / PRELOADED_PART {
                break;
            }
            match self.load(&name).await {
                Ok(audio) => {
                    decoded += 1;
                    self.encode(audio).await;
                }
                Err(e) => warn!("failed to load audio: {e}"),
            }
        }
        info!(files = decoded, bytes = self.used_bytes(), dir = %self.dir.display(), "audio ready");
    }

    /// Into what listeners to music will need; G.711 is there, and L16 is quickly made.
    async fn encode(&self, audio: Arc<Audio>) {
        if audio.duration_ms() > PREENCODED_MS_MAX {
            return;
        }
        let codecs = self.codecs.clone();
        blocking(move || {
            for codec in [Codec::G722, Codec::Opus, Codec::Gsm] {
                if codecs.contains(&codec) {
                    audio.encode(Form { codec, ptime_ms: PREENCODED_PTIME_MS, repeat: true });
                }
            }
        })
        .await;
    }

    fn used_bytes(&self) -> usize {
        self.cache.lock().expect("nobody panics with it").bytes()
    }

    fn kept(&self, path: &Path, version: Version) -> Option<Arc<Audio>> {
        let mut cache = self.cache.lock().expect("nobody panics with it");
        cache.askings += 1;
        cache.forget_down_to(self.bytes_max, Some(path)); // What was encoded meanwhile counts, too.
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
        if !cache.forget_down_to(self.bytes_max.checked_sub(audio.memory_bytes())?, None) {
            return None;
        }
        let asked = cache.askings;
        cache.entries.insert(path, Entry { audio: audio.clone(), version, asked });
        Some(audio)
    }
}

impl Cache {
    /// Forgets what nobody listens to, the longest unasked first, but not `wanted`; false if more than
    /// `bytes_max` are left.
    fn forget_down_to(&mut self, bytes_max: usize, wanted: Option<&Path>) -> bool {
        while self.bytes() > bytes_max {
            let unused = self.entries.iter().filter(|(path, it)| {
                Arc::strong_count(&it.audio) == 1 && Some(path.as_path()) != wanted
            });
            let Some((oldest, _)) = unused.min_by_key(|(_, it)| it.asked) else { return false };
            let oldest = oldest.clone();
            self.entries.remove(&oldest);
        }
        true
    }

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
    for candidate in candidates.filter(|it| it.exists()) {
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
