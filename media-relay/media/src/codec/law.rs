//! G.711 in its two laws (RFC 3551 §4.5.14): 8 kHz, one byte per sample, no state, no allocation.

use audio_codec_algorithms as g711;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    Pcmu,
    Pcma,
}

impl Law {
    pub const BOTH: [Self; 2] = [Self::Pcmu, Self::Pcma];

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
        for law in Law::BOTH {
            assert!(law.decode(law.silence()).abs() <= 8, "{law:?}");
            assert_eq!(law.encode(0), law.silence(), "{law:?}");
        }
    }

    #[test]
    fn transcoding_stays_within_one_step_of_the_coarser_law() {
        for (from, to) in [(Law::Pcmu, Law::Pcma), (Law::Pcma, Law::Pcmu)] {
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
