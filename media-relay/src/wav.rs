//! WAV files of any rate, channel count and sample format, as 16-bit mono at 8 kHz.

use crate::library::Unusable;
use media::{CLOCK_RATE_HZ, SAMPLES_MAX};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _, WindowFunction};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

/// Sample rates that are taken, in Hz.
const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Input samples that are resampled at a time, at least; more make a steeper filter.
const CHUNK_MIN: usize = 2_048;
/// Chunks looked at in search of the samples.
const RIFF_CHUNKS_MAX: usize = 1_000;

/// Reads the samples.
///
/// # Errors
/// [`Unusable`] says what the file looks like, and what to do.
pub(crate) fn read(mut file: File) -> Result<Vec<i16>, Unusable> {
    check_chunks(&mut file)?;
    file.rewind()?;
    let mut hint = Hint::new();
    hint.with_extension("wav");
    let source = MediaSourceStream::new(Box::new(file), Default::default());
    let (formats, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, source, formats, metadata)
        .map_err(unsupported)?;
    let track = format.default_track(TrackType::Audio).ok_or(Unusable::Empty)?;
    let track_id = track.id;
    let parameters = track.codec_params.as_ref().and_then(|it| it.audio());
    let parameters = parameters.ok_or(Unusable::Empty)?;
    let rate_hz = parameters.sample_rate.unwrap_or(0);
    if !RATES_HZ.contains(&rate_hz) {
        return Err(Unusable::Rate { rate_hz });
    }
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(unsupported)?;
    let mut to_8_khz = To8KHz::new(rate_hz)?;
    let mut decoded = Vec::new();
    while decode_next(format.as_mut(), decoder.as_mut(), track_id, &mut decoded)? {
        to_8_khz.push(&decoded)?;
    }
    to_8_khz.finish()
}

/// Decodes the next packet to mono; false at the end.
fn decode_next(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track_id: u32,
    mono: &mut Vec<f32>,
) -> Result<bool, Unusable> {
    mono.clear();
    let packet = match format.next_packet() {
        Ok(Some(packet)) => packet,
        Ok(None) => return Ok(false),
        Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Ok(false);
        }
        Err(e) => return Err(unsupported(e)),
    };
    if packet.track_id != track_id {
        return Ok(true);
    }
    let buffer = decoder.decode(&packet).map_err(unsupported)?;
    let channels = buffer.num_planes().max(1);
    let mut interleaved = Vec::new();
    buffer.copy_to_vec_interleaved::<f32>(&mut interleaved);
    let mix = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
    mono.extend(interleaved.chunks_exact(channels).map(mix));
    Ok(true)
}

/// Resamples piece by piece, so that an hour at 192 kHz needs no gigabytes.
struct To8KHz {
    /// None: it is 8 kHz already.
    resampler: Option<Fft<f32>>,
    rate_hz: u32,
    pending: Vec<f32>,
    /// Input samples so far.
    taken: u64,
    /// Resampled samples that are the filter's delay, and not output.
    delay_left: usize,
    output: Vec<i16>,
}

impl To8KHz {
    fn new(rate_hz: u32) -> Result<Self, Unusable> {
        let resampler = match rate_hz {
            CLOCK_RATE_HZ => None,
            _ => Some(resampler(rate_hz as usize)?),
        };
        let delay_left = resampler.as_ref().map_or(0, |it| it.output_delay());
        let (pending, output) = (Vec::new(), Vec::new());
        Ok(Self { resampler, rate_hz, pending, taken: 0, delay_left, output })
    }

    fn push(&mut self, samples: &[f32]) -> Result<(), Unusable> {
        self.taken += samples.len() as u64;
        if self.wanted() > SAMPLES_MAX {
            return Err(media::AudioError::TooLong {
                seconds: self.wanted() / CLOCK_RATE_HZ as usize,
            }
            .into());
        }
        if self.resampler.is_none() {
            self.output.extend(samples.iter().map(|it| to_linear(*it)));
            return Ok(());
        }
        self.pending.extend_from_slice(samples);
        self.resample()
    }

    /// Output samples for the input so far.
    fn wanted(&self) -> usize {
        let samples = self.taken * u64::from(CLOCK_RATE_HZ);
        usize::try_from(samples.div_ceil(u64::from(self.rate_hz))).unwrap_or(usize::MAX)
    }

    fn resample(&mut self) -> Result<(), Unusable> {
        let Some(resampler) = &mut self.resampler else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| Unusable::Unsupported { reason: e.to_string() };
        let mut used = 0;
        let mut resampled = vec![0.0; resampler.output_frames_max()];
        while self.pending.len() - used >= resampler.input_frames_next() {
            let wanted = resampler.input_frames_next();
            let input = InterleavedSlice::new(&self.pending[used..used + wanted], 1, wanted)
                .map_err(|e| failed(&e))?;
            let space = resampled.len();
            let mut output =
                InterleavedSlice::new_mut(&mut resampled, 1, space).map_err(|e| failed(&e))?;
            let (read, written) = resampler
                .process_into_buffer(&input, &mut output, Some(&Indexing::new()))
                .map_err(|e| failed(&e))?;
            used += read;
            let skipped = self.delay_left.min(written);
            self.delay_left -= skipped;
            self.output.extend(resampled[skipped..written].iter().map(|it| to_linear(*it)));
        }
        self.pending.drain(..used);
        Ok(())
    }

    /// Pushes silence until the last sample has come through the filter.
    fn finish(mut self) -> Result<Vec<i16>, Unusable> {
        let wanted = self.wanted();
        while self.resampler.is_some() && self.output.len() < wanted {
            let padded = self.pending.len() + CHUNK_MIN;
            self.pending.resize(padded, 0.0);
            self.resample()?;
        }
        self.output.truncate(wanted);
        Ok(self.output)
    }
}

/// The filter delays by half a chunk. So that this is a whole number of samples, and none is shifted
/// against its source, a chunk is an even multiple of the shortest stretch that both rates divide.
fn resampler(rate_hz: usize) -> Result<Fft<f32>, Unusable> {
    let rate_out_hz = CLOCK_RATE_HZ as usize;
    let stretch = rate_hz / greatest_common_divisor(rate_hz, rate_out_hz);
    let chunk = stretch * CHUNK_MIN.div_ceil(stretch).next_multiple_of(2);
    let (window, fixed) = (WindowFunction::BlackmanHarris2, FixedSync::Both);
    Fft::new_custom(rate_hz, rate_out_hz, chunk, 1, 1, window, fixed)
        .map_err(|e| Unusable::Unsupported { reason: e.to_string() })
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn to_linear(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16 // Saturates.
}

fn unsupported(e: Error) -> Unusable {
    Unusable::Unsupported { reason: e.to_string() }
}

/// Walks the chunks of a RIFF file: it must be WAVE, and hold all the samples that it promises.
fn check_chunks(file: &mut File) -> Result<(), Unusable> {
    let len = file.metadata()?.len();
    let mut head = [0; 12];
    if read_up_to(file, &mut head)? < head.len() || &head[..4] != b"RIFF" || &head[8..] != b"WAVE" {
        return Err(Unusable::NotWav { looks_like: looks_like(&head) });
    }
    let mut at = head.len() as u64;
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

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> Result<usize, Unusable> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

/// What the first bytes of a file say that it is, for messages.
pub(crate) fn looks_like(head: &[u8]) -> &'static str {
    let starts = |magic: &[u8]| head.starts_with(magic);
    match () {
        () if head.iter().all(|it| *it == 0) => "an empty file",
        () if starts(b"RIFF") && head.get(8..12) == Some(b"WAVE") => "a WAV file",
        () if starts(b"RIFF") => "a RIFF file of another kind",
        () if starts(b"RF64") => "an RF64 file",
        () if starts(b"FORM") => "an AIFF file",
        () if starts(b".snd") => "a Sun/NeXT .au file",
        () if starts(b"OggS") => "an Ogg file",
        () if starts(b"fLaC") => "a FLAC file",
        () if starts(b"ID3") || (head.len() > 1 && head[0] == 0xff && head[1] & 0xe0 == 0xe0) => {
            "an MP3 file"
        }
        () => "a file of unknown kind, perhaps without a header",
    }
}
