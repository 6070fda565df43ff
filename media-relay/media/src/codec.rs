//! The audio codecs: G.711 in its two laws (RFC 3551 §4.5.14), 8 kHz, one byte per sample.

use audio_codec_algorithms as g711;

/// RTP clock of every codec here, in Hz; also of telephone-event.
pub const CLOCK_RATE_HZ: u32 = 8_000;
/// RTP timestamp ticks, and samples, and bytes, in one millisecond.
pub const TICKS_PER_MS: u32 = CLOCK_RATE_HZ / 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    Pcmu,
    Pcma,
}

impl Codec {
    /// In the order in which we offer them.
    pub const ALL: [Self; 2] = [Self::Pcmu, Self::Pcma];

    /// The encoding name of its rtpmap.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Encoding name and clock rate, as in an rtpmap, e.g. "PCMU/8000".
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }

    /// The payload type that needs no rtpmap (RFC 3551 §6, Table 4).
    pub fn static_payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// The code of a sample of zero.
    pub fn silence(self) -> u8 {
        match self {
            Self::Pcmu => 0xff,
            Self::Pcma => 0xd5,
        }
    }

    pub fn encode(self, linear: i16) -> u8 {
        match self {
            Self::Pcmu => g711::encode_ulaw(linear),
            Self::Pcma => g711::encode_alaw(linear),
        }
    }

    pub fn decode(self, code: u8) -> i16 {
        match self {
            Self::Pcmu => g711::decode_ulaw(code),
            Self::Pcma => g711::decode_alaw(code),
        }
    }

    /// The code in `to` of a code in `self`, by the tables of G.711.
    pub fn transcode(self, to: Self, code: u8) -> u8 {
        match (self, to) {
            (Self::Pcmu, Self::Pcma) => g711::convert_ulaw_to_alaw(code),
            (Self::Pcma, Self::Pcmu) => g711::convert_alaw_to_ulaw(code),
            (Self::Pcmu, Self::Pcmu) | (Self::Pcma, Self::Pcma) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_code_of_zero() {
        for codec in Codec::ALL {
            assert!(codec.decode(codec.silence()).abs() <= 8, "{codec:?}");
            assert_eq!(codec.encode(0), codec.silence(), "{codec:?}");
        }
    }

    #[test]
    fn transcoding_stays_within_one_step_of_the_coarser_law() {
        for (from, to) in [(Codec::Pcmu, Codec::Pcma), (Codec::Pcma, Codec::Pcmu)] {
            for code in 0..=255 {
                let linear = i32::from(from.decode(code));
                let got = i32::from(to.decode(from.transcode(to, code)));
                assert!(
                    (linear - got).abs() <= 16 + linear.abs() / 16,
                    "{from:?} {code}: {linear} became {got}"
                );
            }
        }
    }
}
