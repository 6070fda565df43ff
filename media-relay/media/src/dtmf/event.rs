//! The payload of a telephone-event packet (RFC 4733 §2.3).

use crate::dtmf::Digit;

/// Power of the events that we send, in −dBm0 (§2.3.4); the customary one.
const VOLUME: u8 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    pub code: u8,
    pub end: bool,
    /// Since its timestamp, in ticks of its clock.
    pub duration: u16,
}

impl TelephoneEvent {
    pub(crate) fn of(digit: Digit, duration: u16, end: bool) -> Self {
        Self { code: digit.event_code(), end, duration }
    }

    /// None if it is shorter than 4 bytes.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[code, flags, high, low] = payload.first_chunk()?;
        Some(Self { code, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }

    pub fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.code, u8::from(self.end) << 7 | VOLUME, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let event = TelephoneEvent { code: 11, end: true, duration: 0x1234 };
        assert_eq!(event.to_bytes(), [11, 0x8a, 0x12, 0x34]);
        assert_eq!(TelephoneEvent::parse(&event.to_bytes()), Some(event));
        assert_eq!(TelephoneEvent::parse(&[1, 0x8a, 3]), None, "one byte short");
    }
}
