//! G.711, written out from the ITU-T tables, so that a mistake in the services' codec is heard here.

/// What a phone of ours sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Pcmu,
    Pcma,
}

impl Codec {
    /// Static payload type (RFC 3551 §6).
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Encoding name and clock rate, as in `a=rtpmap`.
    pub fn rtpmap(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }

    /// Samples in −1..1 of a payload.
    pub fn decode(self, payload: &[u8]) -> Vec<f32> {
        let decode = match self {
            Self::Pcmu => decode_ulaw,
            Self::Pcma => decode_alaw,
        };
        payload.iter().map(|byte| f32::from(decode(*byte)) / 32768.0).collect()
    }

    /// The payload for samples in −1..1: for each the code whose sample is nearest.
    pub fn encode(self, samples: &[f32]) -> Vec<u8> {
        let table: Vec<(f32, u8)> = (0..=255).map(|byte| (self.decode(&[byte])[0], byte)).collect();
        let mut table = table;
        table.sort_by(|a, b| a.0.total_cmp(&b.0));
        samples.iter().map(|sample| nearest(&table, *sample)).collect()
    }
}

fn nearest(table: &[(f32, u8)], sample: f32) -> u8 {
    let above = table.partition_point(|(value, _)| *value < sample).clamp(1, table.len() - 1);
    let (low, high) = (table[above - 1], table[above]);
    if sample - low.0 < high.0 - sample { low.1 } else { high.1 }
}

/// ITU-T G.711 Table 2 (µ-law): sign, three bits of segment, four of step, all inverted.
fn decode_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte >> 4) & 7);
    let sample = magnitude - 0x84;
    (if byte & 0x80 != 0 { -sample } else { sample }) as i16
}

/// ITU-T G.711 Table 1 (A-law): as above, with the even bits inverted.
fn decode_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let step = (i32::from(byte & 0x0f) << 4) + 8;
    let sample = match (byte >> 4) & 7 {
        0 => step,
        segment => (step + 0x100) << (segment - 1),
    };
    (if byte & 0x80 != 0 { sample } else { -sample }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_decode_to_their_table_values() {
        assert_eq!(decode_ulaw(0xff), 0);
        assert_eq!(decode_ulaw(0x80), 32124);
        assert_eq!(decode_ulaw(0x00), -32124);
        assert_eq!(decode_alaw(0xd5), 8);
        assert_eq!(decode_alaw(0x55), -8);
        assert_eq!(decode_alaw(0xaa), 32256);
        assert_eq!(decode_alaw(0x2a), -32256);
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_within_a_step() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            let samples: Vec<f32> = (-100..=100).map(|i| i as f32 / 101.0).collect();
            for (got, wanted) in codec.decode(&codec.encode(&samples)).iter().zip(&samples) {
                assert!((got - wanted).abs() < 0.03, "{codec:?}: {got} for {wanted}");
            }
        }
    }
}
