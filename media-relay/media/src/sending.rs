//! What an endpoint sends by our own clock: the player's packets, steps of a mix, digits.
//!
//! One of them at a time: a digit interrupts what is played or mixed, a prompt what is mixed.

use crate::audio::{Audio, Form};
use crate::codec::{Codec, Encoder};
use crate::dtmf::{self, EventSender, SendDigits, SendDigitsError, Step};
use crate::endpoint::{Endpoint, Hears, Route};
use crate::player::Missing;
use crate::schedule::newest_slot;
use crate::sdp::PTIME_DEFAULT_MS;
use crate::transmit::Transmits;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A player that is later than this skips what it missed instead of sending it in a burst.
const LATE_MAX: Duration = Duration::from_millis(100);

/// When the next packets are due, and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Of the player; none while it has nothing to play, or nobody listens.
    pub slot: Option<Instant>,
    /// Of the digits; none while there are none.
    pub digit_slot: Option<Instant>,
    digits: EventSender,
    /// RTP timestamp of the digit that is being sent.
    digit_timestamp: u32,
    mix: Option<Box<Mixed>>,
}

/// The mix on its way to a listener.
#[derive(Debug)]
struct Mixed {
    encoder: Encoder,
    /// Samples that do not fill a packet yet.
    samples: Vec<i16>,
    payload: Vec<u8>,
}

/// What has come of the slots that were due.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// The prompt that has ended.
    pub finished: Option<Arc<str>>,
    /// Audio that cannot be played before it has been encoded.
    pub missing: Option<(Arc<Audio>, Form)>,
}

impl Sending {
    /// The next thing of its own clock.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.slot, self.digit_slot].into_iter().flatten().min()
    }

    /// Forgets samples of a mix: time has passed without them.
    pub(crate) fn clear_mixed(&mut self) {
        if let Some(mixed) = &mut self.mix {
            mixed.samples.clear();
        }
    }

    /// The mix is not heard any more.
    fn end_mix(&mut self) {
        self.mix = None;
    }

    fn mixed(&mut self, codec: Codec) -> &mut Mixed {
        if self.mix.as_ref().is_none_or(|it| it.encoder.codec() != codec) {
            self.mix = None;
        }
        self.mix.get_or_insert_with(|| {
            let encoder = Encoder::new(codec);
            Box::new(Mixed { encoder, samples: Vec::new(), payload: Vec::new() })
        })
    }
}

impl Endpoint {
    /// Starts the player's slots, if it has something to play to somebody who listens.
    pub(crate) fn wake_player(&mut self, now: Instant) {
        let is_free = self.sending.slot.is_none() && self.sending.digit_slot.is_none();
        if is_free && self.player.is_playing() && self.route().is_some() {
            self.player.pause();
            self.outgoing.switch();
            self.sending.slot = Some(now);
        }
    }

    /// Sends what is due: digits, else frames of the player. `unix` is the wallclock at `now`.
    pub(crate) fn send_due(&mut self, now: Instant, unix: Duration, out: &mut Transmits) -> Sent {
        self.send_digits_due(now, out);
        self.send_frames(now, unix, out)
    }

    fn send_frames(&mut self, now: Instant, unix: Duration, out: &mut Transmits) -> Sent {
        let mut sent = Sent::default();
        let slot = self.sending.slot;
        if let Some(slot) = slot.filter(|it| now.saturating_duration_since(*it) > LATE_MAX) {
            let ptime_ms = self.route().map_or(PTIME_DEFAULT_MS, |it| it.ptime_ms);
            self.outgoing.switch();
            self.player.pause();
            self.sending.slot =
                Some(newest_slot(slot, now, Duration::from_millis(ptime_ms.into())));
        }
        while let Some(slot) = self.sending.slot.filter(|slot| *slot <= now) {
            if let Some(play_id) = self.player.take_finished() {
                sent.finished = Some(play_id);
                self.outgoing.switch();
            }
            let at = unix.saturating_sub(now.saturating_duration_since(slot));
            self.sending.slot = self.send_frame(slot, at, &mut sent, out);
        }
        sent
    }

    /// Sends the frame of one slot; the next one, or none if the player is done or must pause.
    fn send_frame(
        &mut self,
        slot: Instant,
        unix: Duration,
        sent: &mut Sent,
        out: &mut Transmits,
    ) -> Option<Instant> {
        if !self.player.is_playing() {
            return None;
        }
        let Some(route) = self.route() else {
            self.outgoing.switch();
            return None;
        };
        let Route { to, payload_type, codec, ptime_ms, .. } = route;
        let Self { ports, outgoing, player, .. } = self;
        let filled = out.push(ports.rtp(), to, Some(slot), |bytes| {
            let ticks = ptime_ms * codec.ticks_per_ms();
            outgoing.frame(slot, payload_type, ticks, bytes, |payload| {
                player.fill(codec, ptime_ms, unix, payload)
            })
        });
        if let Err(Missing(missing)) = filled {
            self.outgoing.switch();
            self.player.pause();
            sent.missing = missing;
        }
        Some(slot + Duration::from_millis(route.ptime_ms.into()))
    }

    /// The rate in Hz at which it can hear a mix now; none if it cannot.
    pub(crate) fn mix_rate_hz(&self) -> Option<u32> {
        if self.player.is_playing() || self.sending.digit_slot.is_some() {
            return None;
        }
        Some(self.route()?.codec.sample_rate_hz())
    }

    /// Takes one step of a mix, at [`Endpoint::mix_rate_hz`], and sends a packet when enough have
    /// come.
    pub(crate) fn hear_step(&mut self, at: Instant, step: &[i16], out: &mut Transmits) {
        let Some(route) = self.route() else { return };
        let wanted = route.ptime_ms as usize * route.codec.samples_per_ms();
        let mixed = self.sending.mixed(route.codec);
        mixed.samples.extend_from_slice(step);
        if mixed.samples.len() < wanted {
            return;
        }
        mixed.payload.clear();
        mixed.encoder.encode(&mixed.samples[..wanted], &mut mixed.payload);
        mixed.samples.clear();
        let payload = std::mem::take(&mut mixed.payload);
        self.send(route, at, &payload, Some(at), out);
        self.sending.mixed(route.codec).payload = payload;
    }

    /// Notes that steps of its mix were skipped: time has passed without samples.
    pub(crate) fn miss_steps(&mut self) {
        self.sending.clear_mixed();
        if !self.player.is_playing() {
            self.outgoing.switch();
        }
    }

    /// Ends prompt and music; false if nothing played.
    pub(crate) fn stop_player(&mut self) -> bool {
        let stopped = self.player.stop();
        if stopped {
            self.sending.slot = None;
            self.outgoing.switch();
        }
        stopped
    }

    /// Ends one playing; music below a prompt goes on. False if it does not play.
    pub(crate) fn stop_one(&mut self, play_id: &str) -> bool {
        let stopped = self.player.stop_one(play_id);
        if stopped {
            self.outgoing.switch();
            if !self.player.is_playing() {
                self.sending.slot = None;
            }
        }
        stopped
    }

    /// Changes what it hears below the player.
    pub(crate) fn set_hears(&mut self, hears: Hears) {
        self.sending.end_mix();
        self.transcoder = None;
        self.hears = hears;
        self.outgoing.switch();
    }

    /// In place of whatever it hears.
    pub(crate) fn hear_other_side(&mut self) {
        if self.stop_player() || self.hears != Hears::OtherSide {
            self.set_hears(Hears::OtherSide);
        }
    }

    /// Lets digits be sent, after those that are being sent; returns in how many ms they will have
    /// been.
    ///
    /// # Errors
    /// [`SendDigitsError::TooManyWait`], or [`SendDigitsError::NotNegotiated`].
    pub(crate) fn send_digits(
        &mut self,
        now: Instant,
        digits: &SendDigits,
    ) -> Result<u32, SendDigitsError> {
        let route = self.route().filter(|it| it.telephone_events.is_some());
        route.ok_or(SendDigitsError::NotNegotiated)?;
        let done_in_ms = self.sending.digits.push(digits)?;
        if self.sending.digit_slot.is_none() {
            self.sending.digit_slot = Some(now);
            self.sending.slot = None;
            self.sending.clear_mixed();
            self.outgoing.switch();
        }
        Ok(done_in_ms)
    }

    pub(crate) fn is_sending_digits(&self) -> bool {
        self.sending.digit_slot.is_some()
    }

    fn send_digits_due(&mut self, now: Instant, out: &mut Transmits) {
        while let Some(slot) = self.sending.digit_slot.filter(|slot| *slot <= now) {
            let route = self.route().filter(|it| it.telephone_events.is_some());
            let clock_rate_hz = route.and_then(|it| Some(it.telephone_events?.clock_rate_hz));
            let step = clock_rate_hz.and_then(|it| self.sending.digits.next(it));
            let (Some(route), Some(step)) = (route, step) else {
                // Sent, or on hold: who holds does not want to be dialled at later.
                self.sending.digits.clear();
                self.sending.digit_slot = None;
                self.outgoing.switch();
                return self.wake_player(now);
            };
            if let Step::Event { event, first } = step {
                self.send_event(route, slot, event, first, out);
            }
            self.sending.digit_slot = Some(slot + dtmf::STEP);
        }
    }

    fn send_event(
        &mut self,
        route: Route,
        slot: Instant,
        event: dtmf::TelephoneEvent,
        first: bool,
        out: &mut Transmits,
    ) {
        let Some(events) = route.telephone_events else { return };
        let payload_type = events.payload_type;
        if first {
            self.sending.digit_timestamp = self.outgoing.begin_event(slot);
        }
        let (timestamp, ticks) = (self.sending.digit_timestamp, event.duration.into());
        let outgoing = &mut self.outgoing;
        let Ok(()) = out.push(self.ports.rtp(), route.to, Some(slot), |bytes| {
            outgoing.event(timestamp, ticks, first, payload_type, &event.to_bytes(), bytes);
            Ok::<(), Infallible>(())
        });
    }

    /// Sends a packet of ours.
    fn send(
        &mut self,
        route: Route,
        at: Instant,
        payload: &[u8],
        due: Option<Instant>,
        out: &mut Transmits,
    ) {
        let outgoing = &mut self.outgoing;
        let ticks = route.ptime_ms * route.codec.ticks_per_ms();
        let Ok(()) = out.push(self.ports.rtp(), route.to, due, |bytes| {
            outgoing.frame(at, route.payload_type, ticks, bytes, |bytes| {
                bytes.extend_from_slice(payload);
                Ok::<(), Infallible>(())
            })
        });
    }
}
