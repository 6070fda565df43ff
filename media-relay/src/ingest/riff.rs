//! The chunks of WAV files, walked before anybody decodes them.

use crate::ingest::Unusable;
use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use symphonia::core::io::{MediaSource, ReadOnlySource};

/// Chunks looked at in search of the samples.
const RIFF_CHUNKS_MAX: usize = 1_000;
/// Programs that write to a pipe cannot know how much there will be: ffmpeg promises 4 GiB, sox this.
const PIPED_BYTES_MIN: u64 = 0x7fff_f000;

/// Bytes before the samples of a file that was written to a pipe, at most.
const PIPED_HEADER_MAX: u64 = 1 << 16;

/// The bytes of a WAVE file that promises what it holds.
pub(super) type Whole = Box<dyn MediaSource>;

/// Walks the chunks of a WAVE file: it must hold all the samples that it promises, or promise none,
/// as those do that were written to a pipe. Their lengths are put right.
///
/// # Errors
/// [`Unusable`] if it is empty or truncated.
pub(super) fn whole(mut file: File) -> Result<Whole, Unusable> {
    let piped_at = find_samples(&mut file)?;
    file.rewind()?;
    let Some(at) = piped_at else { return Ok(Box::new(file)) };
    let len = file.metadata()?.len();
    let mut header = vec![0; usize::try_from(at).unwrap_or(0)];
    file.read_exact(&mut header)?;
    let lengths =
        [(4..8, len.saturating_sub(8)), (header.len() - 4..header.len(), len.saturating_sub(at))];
    for (place, len) in lengths {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        header[place].copy_from_slice(&len.to_le_bytes());
    }
    Ok(Box::new(ReadOnlySource::new(Cursor::new(header).chain(file))))
}

/// Where the samples begin, if it is not said how many there are.
fn find_samples(file: &mut File) -> Result<Option<u64>, Unusable> {
    let len = file.metadata()?.len();
    let mut at = 12;
    file.seek(SeekFrom::Start(at))?;
    for _ in 0..RIFF_CHUNKS_MAX {
        let mut chunk = [0; 8];
        if read_up_to(file, &mut chunk)? < chunk.len() {
            return Err(Unusable::Truncated { got: 0, wanted: None });
        }
        at += chunk.len() as u64;
        let [.., a, b, c, d] = chunk;
        let wanted = u64::from(u32::from_le_bytes([a, b, c, d]));
        let got = len.saturating_sub(at);
        match (&chunk[..4], wanted) {
            (b"data", 0) if got == 0 => return Err(Unusable::Empty),
            (b"data", 0 | PIPED_BYTES_MIN..)
                if (got < wanted || wanted == 0) && at <= PIPED_HEADER_MAX =>
            {
                return Ok(Some(at));
            }
            (b"data", _) if got < wanted => {
                return Err(Unusable::Truncated { got, wanted: Some(wanted) });
            }
            (b"data", _) => return Ok(None),
            _ => at += wanted + wanted % 2,
        }
        file.seek(SeekFrom::Start(at))?;
    }
    Err(Unusable::Truncated { got: 0, wanted: None })
}

pub(super) fn read_up_to(file: &mut File, buffer: &mut [u8]) -> Result<usize, Unusable> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}
