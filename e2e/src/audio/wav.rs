//! WAV files with 16-bit linear PCM, as phones record and people upload them.

use anyhow::{Context as _, bail, ensure};
use std::path::Path;

/// Interleaved samples in −1..1.
#[derive(Clone, Debug)]
pub struct Wav {
    pub rate_hz: u32,
    pub channels: u16,
    pub samples: Vec<f32>,
}

impl Wav {
    pub fn mono(rate_hz: u32, samples: Vec<f32>) -> Self {
        Self { rate_hz, channels: 1, samples }
    }

    pub fn duration_ms(&self) -> u64 {
        let frames = self.samples.len() as u64 / u64::from(self.channels);
        frames * 1000 / u64::from(self.rate_hz)
    }

    /// The mean of the channels.
    pub fn to_mono(&self) -> Vec<f32> {
        let channels = usize::from(self.channels);
        self.samples
            .chunks_exact(channels)
            .map(|it| it.iter().sum::<f32>() / channels as f32)
            .collect()
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let data_bytes = self.samples.len() as u32 * 2;
        let frame_bytes = self.channels * 2;
        let mut file = Vec::with_capacity(44 + data_bytes as usize);
        file.extend(b"RIFF");
        file.extend((36 + data_bytes).to_le_bytes());
        file.extend(b"WAVEfmt ");
        file.extend(16_u32.to_le_bytes());
        file.extend(1_u16.to_le_bytes()); // Linear PCM.
        file.extend(self.channels.to_le_bytes());
        file.extend(self.rate_hz.to_le_bytes());
        file.extend((self.rate_hz * u32::from(frame_bytes)).to_le_bytes());
        file.extend(frame_bytes.to_le_bytes());
        file.extend(16_u16.to_le_bytes());
        file.extend(b"data");
        file.extend(data_bytes.to_le_bytes());
        for sample in &self.samples {
            file.extend(((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).to_le_bytes());
        }
        std::fs::write(path, file).with_context(|| format!("write {}", path.display()))
    }

    /// # Errors
    /// If it is not a WAV file with 16-bit linear PCM.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&file).with_context(|| format!("read {}", path.display()))
    }

    fn parse(file: &[u8]) -> anyhow::Result<Self> {
        ensure!(
            file.len() > 12 && &file[..4] == b"RIFF" && &file[8..12] == b"WAVE",
            "not a WAV file"
        );
        let mut format = None;
        let mut rest = &file[12..];
        while rest.len() >= 8 {
            let (header, body) = rest.split_at(8);
            let bytes = u32::from_le_bytes(header[4..8].try_into()?) as usize;
            let bytes = bytes.min(body.len()); // A recorder that was killed leaves a wrong length.
            match &header[..4] {
                b"fmt " => {
                    ensure!(bytes >= 16, "a format chunk of {bytes} bytes");
                    let bits = u16::from_le_bytes(body[14..16].try_into()?);
                    ensure!(bits == 16, "{bits} bits per sample, wanted 16");
                    let channels = u16::from_le_bytes(body[2..4].try_into()?);
                    ensure!(channels > 0, "no channels");
                    format = Some((u32::from_le_bytes(body[4..8].try_into()?), channels));
                }
                b"data" => {
                    let (rate_hz, channels) = format.context("data before the format")?;
                    let pairs = body[..bytes].chunks_exact(2);
                    let sample =
                        |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0;
                    return Ok(Self { rate_hz, channels, samples: pairs.map(sample).collect() });
                }
                _ => (),
            }
            rest = &body[(bytes + bytes % 2).min(body.len())..];
        }
        bail!("no data chunk")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wav");
        let wav = Wav { rate_hz: 44_100, channels: 2, samples: vec![0.0, 0.5, -0.5, 0.25] };
        wav.write(&path).unwrap();
        let read = Wav::read(&path).unwrap();
        assert_eq!((read.rate_hz, read.channels), (44_100, 2));
        for (got, wanted) in read.samples.iter().zip(&wav.samples) {
            assert!((got - wanted).abs() < 1e-4, "{got} for {wanted}");
        }
    }
}
