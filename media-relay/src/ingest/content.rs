//! What a file is by its first bytes, whatever its name says.

use crate::ingest::{Unusable, riff};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};

/// Containers with a header of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Wav,
    Flac,
    Ogg,
    Mp3,
    /// Known, but not played.
    Other(&'static str),
    Empty,
    Unknown,
}

impl Content {
    /// Of the first bytes of a file, 12 or more if it has them.
    pub(crate) fn of(head: &[u8]) -> Self {
        let starts = |magic: &[u8]| head.starts_with(magic);
        match () {
            () if head.is_empty() => Self::Empty,
            () if starts(b"RIFF") && head.get(8..12) == Some(b"WAVE") => Self::Wav,
            () if starts(b"RIFF") => Self::Other("a RIFF file of another kind"),
            () if starts(b"RF64") => Self::Other("an RF64 file"),
            () if starts(b"FORM") => Self::Other("an AIFF file"),
            () if starts(b".snd") => Self::Other("a Sun/NeXT .au file"),
            () if starts(b"#!AMR") => Self::Other("an AMR file"),
            () if starts(b"caff") => Self::Other("a Core Audio file"),
            () if starts(b"\x1a\x45\xdf\xa3") => Self::Other("a Matroska or WebM file"),
            () if head.get(4..8) == Some(b"ftyp") => Self::Other("an MP4 file"),
            () if starts(b"OggS") => Self::Ogg,
            () if starts(b"fLaC") => Self::Flac,
            () if starts(b"ID3") || is_mpeg_frame(head) => Self::Mp3,
            () if head.iter().all(|it| *it == 0) => Self::Other("nothing but zeros"),
            () => Self::Unknown,
        }
    }

    /// For messages.
    pub(crate) fn looks_like(self) -> &'static str {
        match self {
            Self::Wav => "a WAV file",
            Self::Flac => "a FLAC file",
            Self::Ogg => "an Ogg file",
            Self::Mp3 => "an MP3 file",
            Self::Other(name) => name,
            Self::Empty => "an empty file",
            Self::Unknown => "a file of unknown kind, perhaps without a header",
        }
    }

    /// Extensions that such a file may have.
    pub(crate) fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Wav => &["wav"],
            Self::Flac => &["flac"],
            Self::Ogg => &["ogg", "oga", "opus"],
            Self::Mp3 => &["mp3"],
            Self::Other(_) | Self::Empty | Self::Unknown => &[],
        }
    }
}

/// A frame header of MPEG audio, layer III, with a bit rate and a sample rate.
fn is_mpeg_frame(head: &[u8]) -> bool {
    let &[0xff, second, third, ..] = head else { return false };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    second >= 0xe0 && version != 1 && layer == 1 && third >> 4 != 15 && third >> 2 & 3 != 3
}

/// Whether MP3 goes on after its first frame, so that it is no chance: quiet PCMU may well begin like
/// one. Tags are proof enough.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn has_second_frame(file: &mut File, head: &[u8]) -> Result<bool, Unusable> {
    let Some(len) = mpeg_frame_bytes(head) else { return Ok(head.starts_with(b"ID3")) };
    file.seek(SeekFrom::Start(len))?;
    let mut next = [0; 4];
    let read = riff::read_up_to(file, &mut next)?;
    Ok(is_mpeg_frame(&next[..read]))
}

/// Length of the frame that begins here (ISO 11172-3 §2.4.3.1, 13818-3); none if it says nothing of
/// it.
fn mpeg_frame_bytes(head: &[u8]) -> Option<u64> {
    const KBITS_1: [u64; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const KBITS_2: [u64; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    const RATES_HZ: [u64; 3] = [44_100, 48_000, 32_000];
    let &[_, second, third, ..] = head else { return None };
    if !is_mpeg_frame(head) {
        return None;
    }
    let (kbits, per_bit, divisor) = match second >> 3 & 3 {
        3 => (KBITS_1, 144_000, 1),
        2 => (KBITS_2, 72_000, 2),
        _ => (KBITS_2, 72_000, 4),
    };
    let kbits = kbits[usize::from(third >> 4)];
    let rate_hz = RATES_HZ[usize::from(third >> 2 & 3)] / divisor;
    let padding = u64::from(third >> 1 & 1);
    (kbits > 0).then(|| kbits * per_bit / rate_hz + padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_silence_is_not_taken_for_mp3() {
        assert_eq!(Content::of(&[0xff; 12]), Content::Unknown, "PCMU");
        assert_eq!(Content::of(&[0xd5; 12]), Content::Unknown, "PCMA");
        assert_eq!(Content::of(b"\xff\xfb\x90\x64"), Content::Mp3);
        assert_eq!(Content::of(b""), Content::Empty);
    }
}
