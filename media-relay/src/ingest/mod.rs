//! Files become audio: looked at, decoded, resampled, mixed to mono, or refused with the remedy.

mod container;
mod content;
mod loudness;
mod raw;
mod resampling;
mod riff;

pub(crate) use content::Content;
use media::{Audio, AudioError, Codec};
use raw::Raw;
use std::fs::File;
use std::io;
use std::path::Path;

/// What a name without extension may mean, best first.
pub(crate) const EXTENSIONS: [&str; 11] =
    ["wav", "flac", "mp3", "ogg", "oga", "opus", "0", "8", "9", "3", "18"];

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    /// Play raw files that are not what their name says, as what they are.
    pub repair: bool,
    pub normalise: bool,
    /// Highest sample rate that anybody hears.
    pub rate_max_hz: u32,
}

/// What a file looks like instead of what it should be, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(
        "is not {wanted}: it looks like {looks_like}; {}",
        match rename { Some(it) => format!("name it .{it}"), None => "convert it with `sox IN OUT.wav`".to_owned() }
    )]
    OtherContent { wanted: String, looks_like: &'static str, rename: Option<&'static str> },
    #[error(
        "is truncated: {got} bytes of samples, {} promised; copy it again",
        wanted.map_or("more".to_owned(), |it| it.to_string())
    )]
    Truncated { got: u64, wanted: Option<u64> },
    #[error("is truncated: {got} samples, {wanted} promised; copy it again")]
    TooFewSamples { got: u64, wanted: u64 },
    #[error("is damaged: its checksum is another one; copy it again")]
    Checksum,
    #[error("holds no samples")]
    Empty,
    #[error("has a sample rate of {rate_hz} Hz; wanted 4000 to 384000")]
    Rate { rate_hz: u32 },
    #[error("has {got} channels; wanted {most} at most")]
    Channels { got: usize, most: usize },
    #[error("cannot be decoded: {reason}; convert it with `sox IN -e signed -b 16 OUT.wav`")]
    Unsupported { reason: String },
    #[error("{0}")]
    Audio(#[from] AudioError),
    #[error("is named as raw {named} but looks like {looks_like}; give it that extension")]
    Header { looks_like: &'static str, named: &'static str },
    #[error(
        "is named as raw {named} but looks like {looks_like}, which would crackle; rename it \
         (.0 is PCMU, .8 is PCMA), or start with --moh-repair"
    )]
    OtherLaw { looks_like: &'static str, named: &'static str },
    #[error(
        "is named as raw {named} but looks like 16-bit linear PCM ({endian}-endian), which would \
         crackle; convert it with `sox -t raw -r {rate_hz} -e signed -b 16 --endian {endian} -c 1 \
         IN {to}`, or start with --moh-repair"
    )]
    LinearPcm { endian: &'static str, rate_hz: u32, named: &'static str, to: &'static str },
    #[error(
        "is named as raw GSM, but byte {at} does not begin a frame of 33 bytes (0xd…); convert it \
         with `sox IN -r 8000 -c 1 -t gsm OUT.3`"
    )]
    NoGsmFrame { at: usize },
    #[error(
        "is raw G.729, for which there is no free decoder that is kept; convert its source with \
         `sox IN -r 8000 -c 1 -t al OUT.8`"
    )]
    G729,
    #[error(
        "has an extension that is not .wav, .flac, .mp3, .ogg, .oga, .opus, or .0, .3, .8, .9 (raw \
         PCMU, GSM, PCMA, G.722); it looks like {0}"
    )]
    Extension(&'static str),
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a file whole; takes up to about a hundredth of its length.
///
/// # Errors
/// [`Unusable`] says what the file looks like, and what to do.
pub(crate) fn read(path: &Path, wishes: Wishes) -> Result<Audio, Unusable> {
    let mut file = File::open(path)?;
    let mut head = [0; 16];
    let len = riff::read_up_to(&mut file, &mut head)?;
    let content = Content::of(&head[..len]);
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let named = match extension.as_str() {
        "0" => Raw::Law(media::Law::Pcmu),
        "8" => Raw::Law(media::Law::Pcma),
        "3" => Raw::Other(Codec::Gsm),
        "9" => Raw::Other(Codec::G722),
        "18" => return Err(Unusable::G729),
        it if !EXTENSIONS.contains(&it) => return Err(Unusable::Extension(content.looks_like())),
        it if content.extensions().contains(&it) => return read_container(file, content, wishes),
        it => {
            let looks_like = content.looks_like();
            let wanted = match it {
                "wav" => "a WAV file".to_owned(),
                _ => format!("a .{it} file"),
            };
            let rename = content.extensions().first().copied();
            return Err(Unusable::OtherContent { wanted, looks_like, rename });
        }
    };
    match content {
        Content::Unknown | Content::Empty => (),
        Content::Other(_) if head.iter().all(|it| *it == 0) => (),
        _ if wishes.repair && !content.extensions().is_empty() => {
            return read_container(file, content, wishes);
        }
        _ => {
            let looks_like = content.looks_like();
            return Err(Unusable::Header { looks_like, named: named.name() });
        }
    }
    raw::read(file, named, wishes)
}

fn read_container(file: File, content: Content, wishes: Wishes) -> Result<Audio, Unusable> {
    let (samples, rate_hz) = container::read(file, content, wishes.rate_max_hz)?;
    audio(samples, rate_hz, wishes)
}

fn audio(mut samples: Vec<i16>, rate_hz: u32, wishes: Wishes) -> Result<Audio, Unusable> {
    if wishes.normalise {
        loudness::normalise(&mut samples, rate_hz);
    }
    Ok(Audio::new(rate_hz, samples)?)
}
