//! Time: frames of players, digits, steps of conferences and recordings, RTCP, inactivity.
//!
//! Whatever sends has an absolute schedule, slot after slot from its first packet on, so that no
//! delay of this process adds up.

use crate::conference::STEP;
use crate::endpoint::Hears;
use crate::prefetch::PREFETCHED;
use crate::relay::{EventKind, Output, Relay, TimerKey};
use crate::rtcp;
use crate::session::SideKey;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A mix that is later than this skips what it missed.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Timers that are handled before what they send must leave: after a stall all are due at once.
const TIMERS_MAX: usize = 256;

impl Relay {
    /// Does what is due at `now`, at most so much that what it sends fits in little memory:
    /// [`Relay::poll_timeout`] says if there is more. Send it first.
    pub fn handle_timeout(&mut self, now: Instant) {
        for done in 0..TIMERS_MAX {
            let Some(due) = self.timers.pop_due(now) else { return };
            if done % PREFETCHED == 0 {
                self.prefetch_due();
            }
            match due {
                TimerKey::Side(key) => self.handle_side_timeout(now, key),
                TimerKey::Conference(name) => self.handle_conference_timeout(now, &name),
                TimerKey::Recording(key) => self.handle_recording_timeout(now, key),
            }
        }
    }

    fn handle_side_timeout(&mut self, now: Instant, key: SideKey) {
        let wallclock = self.wallclock(now);
        let inactivity = self.config.inactivity;
        let Some(endpoint) =
            self.sessions.get_mut(&key.session).and_then(|it| it.side_mut(key.side))
        else {
            return;
        };
        endpoint.armed = None;
        let sent = endpoint.send_due(now, wallclock, &mut self.transmits);
        let anchored = endpoint.outgoing.take_anchored();
        if endpoint.rtcp_at.is_some_and(|at| at <= now) {
            endpoint.send_report(now, wallclock, false, &mut self.transmits);
            endpoint.rtcp_at = Some(now + rtcp_interval(&mut self.rng));
        }
        let inactive = endpoint.inactive_at(inactivity).is_some_and(|at| at <= now);
        endpoint.reported_inactive |= inactive;
        self.arm(key);
        if anchored {
            self.note_snapshot(key);
        }
        if let Some((audio, form)) = sent.missing {
            self.outputs.push_back(Output::Encode(audio, form));
        }
        if let Some(play_id) = sent.finished {
            self.note_snapshot(key);
            self.emit(key, EventKind::PlayFinished { play_id });
        }
        if inactive {
            self.emit(key, EventKind::Inactive);
        }
    }

    fn handle_conference_timeout(&mut self, now: Instant, name: &Arc<str>) {
        let Some(room) = self.conferences.get_mut(name) else { return };
        room.armed = None;
        if now.saturating_duration_since(room.conference.next_step()) > LATE_MAX {
            room.conference.skip_to(now);
            for key in room.conference.participants().iter().map(|it| it.key) {
                let session = self.sessions.get_mut(&key.session);
                if let Some(endpoint) = session.and_then(|it| it.side_mut(key.side)) {
                    endpoint.miss_steps();
                }
            }
        }
        while room.conference.next_step() <= now {
            let at = room.conference.next_step();
            room.conference.mix(|key| {
                let session = self.sessions.get_mut(&key.session);
                let endpoint = session.and_then(|it| it.side_mut(key.side))?;
                let rate_hz = endpoint.mix_rate_hz();
                if rate_hz.is_none() {
                    endpoint.miss_steps();
                }
                rate_hz
            });
            room.conference.hear_each(|key, step| {
                let session = self.sessions.get_mut(&key.session);
                if let Some(endpoint) = session.and_then(|it| it.side_mut(key.side)) {
                    endpoint.hear_step(at, step, &mut self.transmits);
                }
            });
        }
        let at = Some(room.conference.next_step());
        self.timers.arm(&TimerKey::Conference(name.clone()), &mut room.armed, at);
    }

    /// Works out anew who is needed, after something about a side has changed, and when it and the
    /// side across from it are due.
    pub(crate) fn note_change(&mut self, now: Instant, key: SideKey) {
        self.note_snapshot(key);
        for side in [key.side, key.side.other()] {
            let key = SideKey { side, ..key };
            let session = self.sessions.get_mut(&key.session);
            let Some((endpoint, other)) = session.and_then(|it| it.facing(side)) else { continue };
            let other_listens = other.is_some_and(|other| {
                other.hears == Hears::OtherSide
                    && other.remote.as_ref().is_some_and(|it| !it.held())
            });
            let in_conference = matches!(endpoint.hears, Hears::Conference(_));
            // Whoever negotiates for it has an eye on it.
            let is_ours = !endpoint.is_verbatim;
            let needed = is_ours && endpoint.is_due() && (other_listens || in_conference);
            if needed != endpoint.needed_since.is_some() {
                endpoint.needed_since = needed.then_some(now);
                endpoint.reported_inactive = false;
            }
            if endpoint.rtcp_at.is_none() && endpoint.remote.is_some() && is_ours {
                endpoint.rtcp_at = Some(now + rtcp_interval(&mut self.rng));
            }
            self.arm(key);
        }
    }

    /// Files the side at the earliest of its deadlines.
    pub(crate) fn arm(&mut self, key: SideKey) {
        let inactivity = self.config.inactivity;
        let session = self.sessions.get_mut(&key.session);
        let Some(endpoint) = session.and_then(|it| it.side_mut(key.side)) else { return };
        let deadlines =
            [endpoint.sending.next(), endpoint.rtcp_at, endpoint.inactive_at(inactivity)];
        let next = deadlines.into_iter().flatten().min();
        self.timers.arm(&TimerKey::Side(key), &mut endpoint.armed, next);
    }
}

/// Half to one and a half of the mean (RFC 3550 §6.3.1).
fn rtcp_interval(rng: &mut StdRng) -> Duration {
    rtcp::INTERVAL.mul_f64(rng.random_range(0.5..1.5))
}

/// The last slot that is not after `now`, of those that follow `slot` every `step`. Who skips slots
/// keeps its place between the others', so that a stall does not make all send at one moment.
pub(crate) fn newest_slot(slot: Instant, now: Instant, step: Duration) -> Instant {
    let late = now.saturating_duration_since(slot).as_nanos();
    let after_slot = u64::try_from(late % step.as_nanos()).expect("less than a step");
    now - Duration::from_nanos(after_slot)
}

const _: () = assert!(STEP.as_millis() == 10, "packet times are multiples of 10 ms");
