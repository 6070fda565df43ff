//! The chunks of WAV files, walked before anybody decodes them.

use crate::ingest::Unusable;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

/// Chunks looked at in search of the samples.
const RIFF_CHUNKS_MAX: usize = 1_000;

/// Walks the chunks of a WAVE file: it must hold all the samples that it promises.
pub(super) fn check(file: &mut File) -> Result<(), Unusable> {
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
            (b"data", 0 | 0xffff_ffff) => return Ok(()), // Written to a pipe: up to the end.
            (b"data", _) if got < wanted => {
                return Err(Unusable::Truncated { got, wanted: Some(wanted) });
            }
            (b"data", _) => return Ok(()),
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
