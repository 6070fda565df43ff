//! Files with a header: WAV, FLAC, MP3, Ogg with Vorbis or Opus, mixed to mono.

use crate::ingest::content::Content;
use crate::ingest::resampling::Resampling;
use crate::ingest::riff::{self, Whole};
use crate::ingest::{Unusable, Wishes};
use media::{Codec, Decoder};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

/// Sample rates that are taken, in Hz.
const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Channels that are mixed.
const CHANNELS_MAX: usize = 32;
/// Bytes at the end of an Ogg file in which its last page begins: the longest page there is.
const OGG_PAGE_MAX: u64 = 65_307;
/// The bit of an Ogg page that says that it is the last (RFC 3533 §6).
const OGG_LAST: u8 = 4;
/// Samples that encoders may promise too many, by rounding: a frame or two.
const MISSING_MAX: u64 = 4_608;

/// Reads the samples: at the lowest rate of the codecs' that loses nothing, but at most
/// what anybody hears. Returns them with their rate.
///
/// # Errors
/// [`Unusable`].
pub(super) fn read(
    mut file: File,
    content: Content,
    wishes: Wishes,
) -> Result<(Vec<i16>, u32), Unusable> {
    if content == Content::Ogg {
        check_last_page(&mut file)?;
    }
    file.rewind()?;
    let source: Whole = match content {
        Content::Wav => riff::whole(file)?,
        _ => Box::new(file),
    };
    let mut hint = Hint::new();
    hint.with_extension(content.extensions().first().copied().unwrap_or_default());
    let source = MediaSourceStream::new(source, Default::default());
    let (formats, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, source, formats, metadata)
        .map_err(unsupported)?;
    let track = format.default_track(TrackType::Audio).ok_or(Unusable::Empty)?;
    let (track_id, promised) = (track.id, track.num_frames);
    let delay = track.delay.unwrap_or(0) as usize;
    let parameters = track.codec_params.as_ref().and_then(|it| it.audio());
    let mut voice = Voice::new(parameters.ok_or(Unusable::Empty)?, delay)?;
    let rates_hz = [8_000, 16_000, 48_000];
    let rate_hz = rates_hz.into_iter().find(|it| *it >= voice.rate_hz.min(wishes.rate_max_hz));
    let rate_hz = rate_hz.unwrap_or(48_000);
    let mut resampling = Resampling::new(voice.rate_hz, rate_hz)?;
    let mut mono = Vec::new();
    let mut got = 0;
    while let Some(packet) = next_packet(format.as_mut())? {
        if packet.track_id == track_id {
            mono.clear();
            voice.decode(&packet, &mut mono)?;
            got += mono.len() as u64;
            resampling.push(&mono)?;
            if resampling.memory_bytes() > wishes.bytes_max {
                return Err(Unusable::TooLarge { most: wishes.bytes_max });
            }
        }
    }
    if got == 0 {
        return Err(Unusable::Empty);
    }
    if let Some(wanted) = promised
        && got + MISSING_MAX < wanted
    {
        return Err(Unusable::TooFewSamples { got, wanted });
    }
    voice.verify()?;
    Ok((resampling.finish()?, rate_hz))
}

fn next_packet(format: &mut dyn FormatReader) -> Result<Option<Packet>, Unusable> {
    match format.next_packet() {
        Ok(packet) => Ok(packet),
        Err(Error::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(unsupported(e)),
    }
}

/// Decodes the packets of a track.
struct Voice {
    decoder: Voices,
    rate_hz: u32,
    interleaved: Vec<f32>,
}

enum Voices {
    Symphonia(Box<dyn AudioDecoder>),
    /// Which symphonia has none of.
    Opus {
        decoder: Decoder,
        samples: Vec<i16>,
        delay_left: usize,
    },
}

impl Voice {
    /// `delay` is what an Opus stream has before its beginning, in samples (RFC 7845 §4.2).
    fn new(parameters: &AudioCodecParameters, delay: usize) -> Result<Self, Unusable> {
        let is_opus = parameters.codec == CODEC_ID_OPUS;
        let rate_hz = match is_opus {
            true => Codec::Opus.sample_rate_hz(), // The header's rate is only a memory.
            false => parameters.sample_rate.unwrap_or(0),
        };
        if !RATES_HZ.contains(&rate_hz) {
            return Err(Unusable::Rate { rate_hz });
        }
        let channels = parameters.channels.as_ref().map_or(1, |it| it.count());
        let channels_max = if is_opus { 2 } else { CHANNELS_MAX };
        if channels > channels_max {
            return Err(Unusable::Channels { got: channels, most: channels_max });
        }
        let decoder = match is_opus {
            true => {
                let decoder = Decoder::new(Codec::Opus);
                Voices::Opus { decoder, samples: Vec::new(), delay_left: delay }
            }
            false => {
                let options = AudioDecoderOptions::default().verify(true);
                let decoder = symphonia::default::get_codecs()
                    .make_audio_decoder(parameters, &options)
                    .map_err(unsupported)?;
                Voices::Symphonia(decoder)
            }
        };
        Ok(Self { decoder, rate_hz, interleaved: Vec::new() })
    }

    /// Appends what a packet holds, mixed to mono.
    fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> Result<(), Unusable> {
        match &mut self.decoder {
            Voices::Symphonia(decoder) => {
                let buffer = decoder.decode(packet).map_err(unsupported)?;
                let channels = buffer.num_planes().max(1);
                buffer.copy_to_vec_interleaved::<f32>(&mut self.interleaved);
                let mix = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
                mono.extend(self.interleaved.chunks_exact(channels).map(mix));
            }
            Voices::Opus { decoder, samples, delay_left } => {
                samples.clear();
                decoder
                    .decode(&packet.data, samples)
                    .map_err(|e| Unusable::Unsupported { reason: e.to_string() })?;
                let first = samples.len().min(*delay_left);
                *delay_left -= first;
                let last = samples.len().saturating_sub(packet.trim_end.get() as usize).max(first);
                mono.extend(samples[first..last].iter().map(|it| f32::from(*it) / 32_768.0));
            }
        }
        Ok(())
    }

    /// Compares with the checksum of a FLAC file.
    fn verify(&mut self) -> Result<(), Unusable> {
        let verified = match &mut self.decoder {
            Voices::Symphonia(decoder) => decoder.finalize().verify_ok,
            Voices::Opus { .. } => None,
        };
        match verified {
            Some(false) => Err(Unusable::Checksum),
            Some(true) | None => Ok(()),
        }
    }
}

/// An Ogg file ends with a page that says so.
fn check_last_page(file: &mut File) -> Result<(), Unusable> {
    let len = file.metadata()?.len();
    let start = len.saturating_sub(OGG_PAGE_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(OGG_PAGE_MAX).read_to_end(&mut end)?;
    let Some(at) = end.windows(4).rposition(|it| it == b"OggS") else {
        return Err(Unusable::Truncated { got: len, wanted: None });
    };
    let page = &end[at..];
    let segments = page.get(26).copied().map_or(0, usize::from);
    let lengths = page.get(27..27 + segments);
    let wanted =
        lengths.map(|it| 27 + segments + it.iter().map(|it| usize::from(*it)).sum::<usize>());
    let is_whole = wanted.is_some_and(|it| page.len() >= it);
    match page.get(5) {
        Some(flags) if flags & OGG_LAST != 0 && is_whole => Ok(()),
        _ => Err(Unusable::Truncated { got: len, wanted: None }),
    }
}

fn unsupported(e: Error) -> Unusable {
    Unusable::Unsupported { reason: e.to_string() }
}
