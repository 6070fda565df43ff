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
    /// Memory that all audio may take: more is not decoded.
    pub bytes_max: usize,
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
    #[error("takes more than the {most} bytes of --audio-memory when it is decoded")]
    TooLarge { most: usize },
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
        Content::Mp3 if !content::has_second_frame(&mut file, &head[..len])? => (),
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
    let (samples, rate_hz) = container::read(file, content, wishes)?;
    audio(samples, rate_hz, wishes)
}

fn audio(mut samples: Vec<i16>, rate_hz: u32, wishes: Wishes) -> Result<Audio, Unusable> {
    if wishes.normalise {
        loudness::normalise(&mut samples, rate_hz);
    }
    Ok(Audio::new(rate_hz, samples)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const WISHES: Wishes =
        Wishes { repair: false, normalise: false, rate_max_hz: 48_000, bytes_max: 1 << 20 };

    fn read_as(name: &str, bytes: &[u8]) -> Result<Audio, Unusable> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read(&path, WISHES)
    }

    /// 16-bit mono at 48 kHz, which promises so many bytes of samples.
    fn wav(samples: usize, promised: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        bytes.extend(48_000u32.to_le_bytes());
        bytes.extend(96_000u32.to_le_bytes());
        bytes.extend(b"\x02\0\x10\0data");
        bytes.extend(promised.to_le_bytes());
        bytes.extend((0..samples as u32).flat_map(|n| ((n % 1_000) as i16).to_le_bytes()));
        bytes
    }

    #[test]
    fn a_wav_that_was_written_to_a_pipe_is_read_to_its_end() {
        for promised in [0x7fff_f000, u32::MAX, 0] {
            let audio = read_as("piped.wav", &wav(48_000, promised)).unwrap();
            assert_eq!(audio.duration_ms(), 1_000, "{promised:x}");
        }
        let error = read_as("cut.wav", &wav(48_000, 96_002)).unwrap_err().to_string();
        assert_eq!(error, "is truncated: 96000 bytes of samples, 96002 promised; copy it again");
    }

    #[test]
    fn what_does_not_fit_into_the_memory_is_not_decoded_to_its_end() {
        let error = read_as("long.wav", &wav(600_000, 1_200_000)).unwrap_err().to_string();
        assert_eq!(error, "takes more than the 1048576 bytes of --audio-memory when it is decoded");
    }

    #[test]
    fn quiet_pcmu_that_begins_like_mp3_is_pcmu() {
        let quiet = |n: u32| media::Law::Pcmu.encode(((f64::from(n) * 0.2).sin() * 300.0) as i16);
        let mut codes: Vec<u8> = (0..8_000).map(quiet).collect();
        codes[..4].copy_from_slice(b"\xff\xfb\x90\x64");
        let audio = read_as("quiet.0", &codes).unwrap();
        assert_eq!(audio.codes(Codec::Pcmu), codes);
        // A second frame after the 417 bytes of the first one.
        codes[417..421].copy_from_slice(b"\xff\xfb\x90\x64");
        let error = read_as("song.0", &codes).unwrap_err().to_string();
        assert_eq!(
            error,
            "is named as raw PCMU but looks like an MP3 file; give it that extension"
        );
    }
}
