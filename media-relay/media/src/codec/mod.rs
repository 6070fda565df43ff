//! The audio codecs: what RTP says of each (RFC 3551, RFC 7587), and values that encode and decode.
//!
//! Three numbers differ and must not be mixed up: the RTP clock (timestamps), the sample rate (what
//! is heard), and bytes. G.722 counts 8,000 ticks for 16,000 samples in a second (RFC 3551 §4.5.2).
//!
//! Absent: G.729. The only crate with it, g729-sys, claims MIT, but its source is bcg729's, which is
//! GPL; there is no other that is kept.

mod coder;
mod g722;
mod gsm;
mod law;
mod opus;

pub use coder::{Decoder, Encoder, Malformed};
pub use law::Law;

/// RTP clock of G.711 and of telephone-event beside it, in Hz.
pub const CLOCK_RATE_HZ: u32 = 8_000;
/// RTP timestamp ticks, samples and bytes of G.711 in one millisecond.
pub const TICKS_PER_MS: u32 = CLOCK_RATE_HZ / 1_000;
/// Packet times that are sent, in ms; what a codec cannot do of them, see [`Codec::ptime_ms`].
pub const PTIMES_MS: [u32; 6] = [10, 20, 30, 40, 50, 60];
/// Samples of the longest packet that is made or decoded: 120 ms at 48 kHz.
pub const PACKET_SAMPLES_MAX: usize = 120 * 48;
/// Longest payload that an [`Encoder`] makes, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    Pcmu,
    Pcma,
    G722,
    /// RFC 7587; we send mono.
    Opus,
    /// 16-bit linear PCM at 16 kHz, mono, in network byte order (RFC 3551 §4.5.11).
    L16Wide,
    /// The same at 8 kHz.
    L16Narrow,
    /// GSM 06.10 full rate (RFC 3551 §4.5.8).
    Gsm,
}

impl Codec {
    /// In the order in which we offer them, unless told otherwise.
    pub const ALL: [Self; 7] =
        [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus, Self::L16Wide, Self::L16Narrow, Self::Gsm];

    /// The encoding name of its rtpmap.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16Wide | Self::L16Narrow => "L16",
            Self::Gsm => "GSM",
        }
    }

    /// Encoding name, clock rate and channels, as in an rtpmap, e.g. "PCMU/8000".
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
            Self::G722 => "G722/8000",
            Self::Opus => "opus/48000/2",
            Self::L16Wide => "L16/16000",
            Self::L16Narrow => "L16/8000",
            Self::Gsm => "GSM/8000",
        }
    }

    /// The codec that an rtpmap names, whatever its case; one channel may be written or not.
    pub fn from_rtpmap(rtpmap: &str) -> Option<Self> {
        let mono = rtpmap.strip_suffix("/1").unwrap_or(rtpmap);
        Self::ALL.into_iter().find(|it| mono.eq_ignore_ascii_case(it.rtpmap()))
    }

    /// The payload type that needs no rtpmap (RFC 3551 §6, Table 4).
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Gsm => Some(3),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::Opus | Self::L16Wide | Self::L16Narrow => None,
        }
    }

    /// Of RTP timestamps, in Hz.
    pub fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::L16Narrow | Self::Gsm => 8_000,
            Self::L16Wide => 16_000,
            Self::Opus => 48_000,
        }
    }

    /// RTP timestamp ticks in one millisecond.
    pub fn ticks_per_ms(self) -> u32 {
        self.clock_rate_hz() / 1_000
    }

    /// Of the linear samples that it encodes, in Hz: 8,000, 16,000 or 48,000.
    pub fn sample_rate_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::L16Narrow | Self::Gsm => 8_000,
            Self::G722 | Self::L16Wide => 16_000,
            Self::Opus => 48_000,
        }
    }

    /// Linear samples in one millisecond.
    pub fn samples_per_ms(self) -> usize {
        self.sample_rate_hz() as usize / 1_000
    }

    /// The longest packet time of ours that is not above `wanted_ms` and that this codec can do, else
    /// its shortest: GSM has frames of 20 ms, Opus none of 30 or 50, and 40 ms of L16 at 16 kHz are
    /// what fits into a datagram.
    pub fn ptime_ms(self, wanted_ms: u32) -> u32 {
        let possible = |ms: &u32| match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::L16Narrow => true,
            Self::Opus => matches!(ms, 10 | 20 | 40 | 60),
            Self::L16Wide => *ms <= 40,
            Self::Gsm => ms.is_multiple_of(20),
        };
        let mut ptimes = PTIMES_MS.into_iter().filter(possible);
        let shortest = ptimes.next().expect("every codec has one");
        ptimes.rfind(|ms| *ms <= wanted_ms).unwrap_or(shortest)
    }

    /// Bytes and RTP ticks of its smallest unit, of which packets hold any number; none for Opus,
    /// whose packets have a length of their own each.
    pub fn unit(self) -> Option<Unit> {
        let (bytes, ticks) = match self {
            Self::Pcmu | Self::Pcma | Self::G722 => (1, 1),
            Self::L16Wide | Self::L16Narrow => (2, 1),
            Self::Gsm => (gsm::FRAME_BYTES, gsm::FRAME_SAMPLES),
            Self::Opus => return None,
        };
        Some(Unit { bytes, ticks })
    }

    /// RTP ticks that a payload lasts; none if it is not one of this codec.
    pub fn ticks_of(self, payload: &[u8]) -> Option<u32> {
        let ticks = match self.unit() {
            Some(unit) if payload.len().is_multiple_of(unit.bytes) => {
                payload.len() / unit.bytes * unit.ticks
            }
            Some(_) => return None,
            None => opus::samples_of(payload)?,
        };
        u32::try_from(ticks).ok()
    }

    /// A unit that is heard as silence, or nearly: none for Opus.
    pub fn silence(self) -> &'static [u8] {
        match self {
            Self::Pcmu => &[0xff],
            Self::Pcma => &[0xd5],
            Self::G722 => &[0xff],
            Self::L16Wide | Self::L16Narrow => &[0, 0],
            Self::Gsm => &gsm::SILENCE,
            Self::Opus => &[],
        }
    }

    /// G.711 needs no state: see [`Law`].
    pub fn law(self) -> Option<Law> {
        match self {
            Self::Pcmu => Some(Law::Pcmu),
            Self::Pcma => Some(Law::Pcma),
            _ => None,
        }
    }
}

/// See [`Codec::unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub bytes: usize,
    pub ticks: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_rtpmap_and_no_other_is() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_rtpmap(&codec.rtpmap().to_ascii_lowercase()), Some(codec));
            assert!(codec.rtpmap().starts_with(codec.encoding_name()));
        }
        assert_eq!(Codec::from_rtpmap("pcma/8000/1"), Some(Codec::Pcma));
        for unlike in ["PCMA/16000", "PCMA/8000/2", "opus/48000", "L16/44100", "G729/8000", ""] {
            assert_eq!(Codec::from_rtpmap(unlike), None, "{unlike}");
        }
    }

    #[test]
    fn packet_times_are_what_the_codec_can_do() {
        for (codec, wanted, got) in [
            (Codec::Pcmu, 30, 30),
            (Codec::Opus, 30, 20),
            (Codec::Opus, 50, 40),
            (Codec::Gsm, 10, 20),
            (Codec::Gsm, 50, 40),
            (Codec::L16Wide, 60, 40),
            (Codec::L16Narrow, 60, 60),
            (Codec::Pcma, 3, 10),
            (Codec::Pcma, 500, 60),
        ] {
            assert_eq!(codec.ptime_ms(wanted), got, "{codec:?} {wanted}");
        }
    }
}
