//! A piece of sound, encoded once for each codec and shared by all who listen to it.

use crate::codec::{CLOCK_RATE_HZ, Codec, TICKS_PER_MS};

/// Longest piece of audio, in samples: one hour.
pub const SAMPLES_MAX: usize = 3_600 * CLOCK_RATE_HZ as usize;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AudioError {
    #[error("it holds no samples")]
    Empty,
    #[error("it holds {samples} samples at 8 kHz, more than the {SAMPLES_MAX} of one hour")]
    TooLong { samples: usize },
}

/// At least one sample, at 8 kHz, mono.
#[derive(Debug, PartialEq, Eq)]
pub struct Audio {
    pcmu: Box<[u8]>,
    pcma: Box<[u8]>,
}

impl Audio {
    /// Encodes 16-bit linear samples at 8 kHz.
    ///
    /// # Errors
    /// [`AudioError`] if there are none, or more than [`SAMPLES_MAX`].
    pub fn from_linear(samples: &[i16]) -> Result<Self, AudioError> {
        check_len(samples.len())?;
        let encode = |codec: Codec| samples.iter().map(|it| codec.encode(*it)).collect();
        Ok(Self { pcmu: encode(Codec::Pcmu), pcma: encode(Codec::Pcma) })
    }

    /// Takes bytes that are encoded already; they are played as they are in that codec.
    ///
    /// # Errors
    /// As [`Audio::from_linear`].
    pub fn from_codes(codec: Codec, codes: Vec<u8>) -> Result<Self, AudioError> {
        check_len(codes.len())?;
        let to = |other: Codec| codes.iter().map(|it| codec.transcode(other, *it)).collect();
        Ok(Self { pcmu: to(Codec::Pcmu), pcma: to(Codec::Pcma) })
    }

    /// One byte per sample.
    pub fn codes(&self, codec: Codec) -> &[u8] {
        match codec {
            Codec::Pcmu => &self.pcmu,
            Codec::Pcma => &self.pcma,
        }
    }

    /// Length in samples; never 0.
    pub fn samples(&self) -> usize {
        self.pcmu.len()
    }

    /// Length in ms, rounded up.
    pub fn duration_ms(&self) -> u32 {
        let ms = self.samples().div_ceil(TICKS_PER_MS as usize);
        u32::try_from(ms).expect("an hour of ms fits")
    }

    /// Heap memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.pcmu.len() + self.pcma.len()
    }
}

fn check_len(samples: usize) -> Result<(), AudioError> {
    match samples {
        0 => Err(AudioError::Empty),
        samples if samples > SAMPLES_MAX => Err(AudioError::TooLong { samples }),
        _ => Ok(()),
    }
}
