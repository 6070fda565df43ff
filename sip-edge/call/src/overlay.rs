//! Prompts over what a call does: while its legs talk, while leg A waits in a queue or sits in a
//! conference, while it is parked. media-relay lets each side hear on when its prompt ends; the
//! action that runs goes on meanwhile.

use crate::call::{Call, Purpose, failure_of};
use crate::effect::{Legs, Occurrence};
use crate::output::CallState;
use crate::step::Step;
use crate::{Answer, Cause, Failure, MediaCommand, Now, Refusal, Reply, RequestNumber, Side};
use std::time::{Duration, Instant};

/// Prompts over one call that have not begun or that somebody waits for; more are refused.
pub const OVERLAYS_MAX: usize = 4;
/// Requests that wait for one of them.
const WAITING_MAX: usize = 4;
/// How much later than expected a prompt may end before it counts as ended: the event may be lost.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    number: u32,
    occurrence: Option<Occurrence>,
    /// Whom to tell, and whether only at the end.
    requests: Vec<(RequestNumber, bool)>,
    /// Sides of which media-relay has not said whether they hear it.
    starting: u8,
    /// Sides that hear it, and prompts that ended before media-relay's reply was here.
    plays: Vec<String>,
    finished_early: Vec<String>,
    duration: Option<Duration>,
    failure: Option<Failure>,
    pub(crate) until: Option<Instant>,
}

impl Call {
    /// Plays `file` over what the call does; the request is answered when it has begun, or, if it
    /// waits, at its end.
    ///
    /// # Errors
    /// If the call does something that a prompt would disturb, or lacks the leg.
    pub(crate) fn play_over(
        &mut self,
        now: Now,
        file: &str,
        legs: Legs,
        occurrence: Option<Occurrence>,
        (request, wait): (RequestNumber, bool),
    ) -> Result<(), Refusal> {
        let same = |it: &&mut Overlay| occurrence.is_some() && it.occurrence == occurrence;
        if let Some(overlay) = self.overlays.iter_mut().find(same) {
            if overlay.requests.len() >= WAITING_MAX {
                return Err(Refusal::TooMany { max: WAITING_MAX });
            }
            overlay.requests.push((request, wait));
            return Ok(());
        }
        let sides = self.sides_for_prompt(legs)?;
        if self.overlays.len() >= OVERLAYS_MAX {
            return Err(Refusal::TooMany { max: OVERLAYS_MAX });
        }
        let number = self.next_overlay;
        self.next_overlay = self.next_overlay.wrapping_add(1);
        self.overlays.push(Overlay {
            number,
            occurrence,
            requests: vec![(request, wait)],
            starting: sides.len() as u8, // At most 2.
            plays: Vec::new(),
            finished_early: Vec::new(),
            duration: None,
            failure: None,
            until: None,
        });
        for &side in sides {
            let file = file.to_owned();
            let command = self.media(MediaCommand::Play { side, file, looping: false });
            self.expect(now, command, Purpose::Overlay(number));
        }
        Ok(())
    }

    fn sides_for_prompt(&self, legs: Legs) -> Result<&'static [Side], Refusal> {
        if let Some((cause, _)) = self.end {
            return Err(Refusal::Ended { cause });
        }
        let connected = self.state == CallState::Connected;
        match (&self.step, self.state) {
            (_, CallState::Early) => return Err(Refusal::NotAnsweredYet),
            (_, CallState::Connected) => (),
            (Step::Parked | Step::Waiting { .. } | Step::Conferring(_) | Step::Dialing, _) => (),
            _ => return Err(Refusal::Disturbed { action: self.busy_with() }),
        }
        match (legs, connected) {
            (Legs::A, _) | (Legs::Both, false) => Ok(&[Side::A]),
            (Legs::B, true) => Ok(&[Side::B]),
            (Legs::Both, true) => Ok(&[Side::A, Side::B]),
            (Legs::B, false) => Err(Refusal::NoLegB),
        }
    }

    pub(crate) fn handle_overlay(&mut self, now: Now, number: u32, reply: Result<Reply, Failure>) {
        let Some(at) = self.overlays.iter().position(|it| it.number == number) else { return };
        let overlay = &mut self.overlays[at];
        overlay.starting -= 1;
        match reply {
            Ok(Reply::Playing { play_id, duration }) => {
                overlay.duration = Some(duration.max(overlay.duration.unwrap_or_default()));
                match overlay.finished_early.iter().position(|it| *it == play_id) {
                    Some(early) => drop(overlay.finished_early.swap_remove(early)),
                    None => overlay.plays.push(play_id),
                }
            }
            reply => overlay.failure = Some(failure_of(reply)),
        }
        if overlay.starting == 0 {
            self.begin_overlay(now, at);
        }
    }

    /// media-relay has said of every side whether it hears the prompt: one is enough.
    fn begin_overlay(&mut self, now: Now, at: usize) {
        let overlay = &mut self.overlays[at];
        let Some(duration) = overlay.duration else {
            let overlay = self.overlays.remove(at);
            let failure = overlay.failure.unwrap_or_else(|| failure_of(Ok(Reply::Done)));
            for (request, _) in overlay.requests {
                let (service, failure) = ("media-relay", failure.clone());
                self.answer_request(request, Err(Refusal::Failed { service, failure }));
            }
            return;
        };
        overlay.until = Some(now.instant + duration + GRACE);
        let occurrence = overlay.occurrence.take();
        let (waiting, told) = overlay.requests.drain(..).partition(|(_, wait)| *wait);
        overlay.requests = waiting;
        let over = overlay.plays.is_empty() || overlay.requests.is_empty();
        if let Some(occurrence) = occurrence {
            self.effects.record(occurrence);
        }
        self.tell_played(told, duration);
        if over {
            self.end_overlay(at);
        }
    }

    /// Whether the file that ended was a prompt over something.
    pub(crate) fn finish_overlay(&mut self, play_id: &str) -> bool {
        let plays = |it: &Overlay| it.plays.iter().any(|it| it == play_id);
        if let Some(at) = self.overlays.iter().position(plays) {
            self.overlays[at].plays.retain(|it| it != play_id);
            if self.overlays[at].plays.is_empty() && self.overlays[at].starting == 0 {
                self.end_overlay(at);
            }
            return true;
        }
        // Perhaps of one whose reply is on its way; there is no other way to know.
        for overlay in self.overlays.iter_mut().filter(|it| it.starting > 0) {
            if overlay.finished_early.len() < WAITING_MAX {
                overlay.finished_early.push(play_id.to_owned());
            }
        }
        false
    }

    pub(crate) fn handle_overlay_timeouts(&mut self, now: Now) {
        let due = |it: &Overlay| it.until.is_some_and(|until| until <= now.instant);
        while let Some(at) = self.overlays.iter().position(due) {
            self.end_overlay(at); // Its end was not told.
        }
    }

    fn end_overlay(&mut self, at: usize) {
        let overlay = self.overlays.remove(at);
        self.tell_played(overlay.requests, overlay.duration.unwrap_or_default());
    }

    /// Answers those who wait for prompts that are stopped by what comes next: the end of the call,
    /// or another plan.
    pub(crate) fn abandon_overlays(&mut self, ended: Option<Cause>) {
        self.pending.retain(|pending| !matches!(pending.purpose, Purpose::Overlay(_)));
        for overlay in std::mem::take(&mut self.overlays) {
            for (request, _) in overlay.requests {
                let answer = match (ended, overlay.duration.filter(|_| overlay.starting == 0)) {
                    (Some(cause), _) => Err(Refusal::Ended { cause }),
                    (None, Some(duration)) => Ok(Answer::Playing { duration }),
                    (None, None) => Err(Refusal::Replaced),
                };
                self.answer_request(request, answer);
            }
        }
    }

    fn tell_played(&mut self, requests: Vec<(RequestNumber, bool)>, duration: Duration) {
        for (request, _) in requests {
            self.answer_request(request, Ok(Answer::Playing { duration }));
        }
    }
}
