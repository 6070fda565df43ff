//! All digits of one side, whatever their transport.

use crate::dtmf::{Digit, EventReceiver, Presses, TelephoneEvent, ToneDetector, Transport};
use std::time::Instant;

/// Whether tones are looked for in the sound of a side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detection {
    /// While telephone-event is not negotiated, but not in talk with the other side.
    #[default]
    Auto,
    Off,
    /// Always.
    On,
}

/// The fields that each packet needs lie first in memory.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct DtmfReceiver {
    pub detection: Detection,
    tones: Option<Box<ToneDetector>>,
    events: EventReceiver,
    presses: Presses,
    /// SSRC and timestamp of the event whose release was told last.
    released: Option<(u32, u32)>,
}

impl DtmfReceiver {
    /// The digit, if this packet is the first to tell of a press.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        ssrc: u32,
        timestamp: u32,
        event: TelephoneEvent,
    ) -> Option<Digit> {
        let digit = self.events.receive(now, ssrc, timestamp, event)?;
        self.presses.note(now, digit, Transport::Rtp).then_some(digit)
    }

    /// The digit, if this packet is the first to tell of its release.
    pub(crate) fn release(
        &mut self,
        ssrc: u32,
        timestamp: u32,
        event: TelephoneEvent,
    ) -> Option<Digit> {
        let digit = Digit::from_event_code(event.code).filter(|_| event.end)?;
        let is_known = self.released.is_some_and(|(source, newest)| {
            source == ssrc && (timestamp.wrapping_sub(newest) as i32) <= 0
        });
        self.released = if is_known { self.released } else { Some((ssrc, timestamp)) };
        (!is_known).then_some(digit)
    }

    /// Takes a digit of a SIP INFO; false if the same press has been told of already.
    pub(crate) fn inject(&mut self, now: Instant, digit: Digit) -> bool {
        self.presses.note(now, digit, Transport::Info)
    }

    /// Forgets what it was listening to: sound is missing from here on.
    pub(crate) fn pause(&mut self) {
        self.tones = None;
    }

    /// Takes what the side says; returns the digit that begins in it, if nothing has told of that
    /// press already.
    pub(crate) fn listen(
        &mut self,
        now: Instant,
        sample_rate_hz: u32,
        samples: &[i16],
    ) -> Option<Digit> {
        let tones = match &mut self.tones {
            Some(tones) if tones.sample_rate_hz() == sample_rate_hz => tones,
            other => other.insert(Box::new(ToneDetector::new(sample_rate_hz))),
        };
        let digit = tones.listen(samples)?;
        self.presses.note(now, digit, Transport::Inband).then_some(digit)
    }
}
