//! Waiting in a queue: a place first, then music, then the 200, so that a full queue is refused with
//! a response and nobody is answered into silence. media-relay is asked for leg A's answer and for
//! music together, as soon as there is a place; unless leg A has been negotiated before, or has sent no
//! offer.

use crate::answering::busy_now;
use crate::call::{Call, Purpose, failure_of};
use crate::leg::LegState;
use crate::output::EndedBy;
use crate::step::Step;
use crate::{
    Action, AgentOrder, Cause, Enqueue, Failure, FailureKind, MediaCommand, Now, QueueCommand,
    Reply, Side, SipOrder,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// When music that could not be started, or a place that could not be confirmed, is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The way into a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entering {
    /// queue-svc is asked for a place.
    Asking,
    /// There is a place; media-relay may not be ready for music yet.
    Placed { music: String },
    /// media-relay is asked for an answer to leg A's offer, and for music.
    OfferingWithMusic { music: String },
    /// media-relay is asked for music.
    StartingMusic { music: String },
    /// Music plays; leg A is being answered.
    MusicPlays { music: String },
}

impl Entering {
    /// A late offer has no media before its ACK, so it is answered first.
    pub(crate) fn wants_answer(&self, late_offer: bool) -> bool {
        match self {
            Self::Asking | Self::OfferingWithMusic { .. } | Self::StartingMusic { .. } => false,
            Self::Placed { .. } => late_offer,
            Self::MusicPlays { .. } => true,
        }
    }
}

impl Call {
    /// `since`: when the caller asked for the place.
    pub(crate) fn begin_entering(&mut self, now: Now, enqueue: &Enqueue, since: Instant) {
        self.enter(Step::Entering(Entering::Asking));
        if let LegState::Invited { sdp: None } = &self.a.state {
            self.offer(now, self.a.number, Side::A, None);
        }
        let queue = enqueue.queue.clone();
        self.queue = Some(queue.clone().unwrap_or_else(|| self.facts.to_uri.clone()));
        let priority = enqueue.priority;
        self.place_since = Some(since);
        let command = QueueCommand::Enqueue { queue, answered: false, priority, since };
        let number = self.queue_svc(command);
        self.expect(now, number, Purpose::Enqueue);
    }

    /// queue-svc has given a place, or has refused one.
    pub(crate) fn handle_enqueued(&mut self, now: Now, reply: Result<Reply, Failure>) {
        match reply {
            Ok(Reply::Enqueued { queue, music }) => {
                self.queue = Some(queue);
                self.step = Step::Entering(Entering::Placed { music });
                self.seek_answer(now);
            }
            reply => self.refuse_place(now, failure_of(reply)),
        }
    }

    fn refuse_place(&mut self, now: Now, failure: Failure) {
        let (cause, refusal) = match failure.kind {
            FailureKind::Full => (Cause::UserBusy, reject(486)),
            FailureKind::NotFound => (Cause::UnallocatedNumber, reject(404)),
            _ => (Cause::NormalTemporaryFailure, busy_now()),
        };
        if matches!(failure.kind, FailureKind::Full | FailureKind::NotFound) {
            self.queue = None; // It is certain that we have no place.
        }
        if let Some(plan) = self.waits_as().and_then(|it| it.otherwise.clone()) {
            self.leave_queue();
            return self.run_plan(now, plan);
        }
        self.refuse(now, "queue-svc", failure, cause, refusal);
    }

    /// Goes on as far as place, leg A and media allow.
    pub(crate) fn advance_entering(&mut self, now: Now) {
        let Step::Entering(entering) = &self.step else { return };
        let late = self.a.late_offer;
        match (entering, &self.a.state) {
            (Entering::Placed { music }, LegState::Confirmed) => {
                self.start_music(now, music.clone());
            }
            (Entering::Placed { music }, LegState::Invited { sdp: Some(sdp) }) => {
                let (music, sdp) = (music.clone(), sdp.clone());
                self.step = Step::Entering(Entering::OfferingWithMusic { music: music.clone() });
                self.offer_with_music(now, self.a.number, Side::A, Some(sdp), Some(music));
            }
            (Entering::Placed { music }, LegState::Offered { .. }) if !late => {
                self.start_music(now, music.clone());
            }
            (Entering::MusicPlays { music }, LegState::Confirmed) => {
                self.wait_in_queue(now, music.clone(), true);
            }
            _ => (), // Something is still on its way.
        }
    }

    /// Leg A has been negotiated, with music if that was asked for.
    pub(crate) fn note_music(&mut self) {
        if let Step::Entering(Entering::OfferingWithMusic { music }) = &self.step {
            let music = music.clone();
            self.step = Step::Entering(Entering::MusicPlays { music });
        }
    }

    fn start_music(&mut self, now: Now, music: String) {
        self.step = Step::Entering(Entering::StartingMusic { music: music.clone() });
        self.play_music(now, music);
    }

    fn play_music(&mut self, now: Now, file: String) {
        let number = self.media(MediaCommand::Play { side: Side::A, file, looping: true });
        self.expect(now, number, Purpose::Music);
    }

    /// Music plays, or does not. A caller who has been answered is kept, and it is tried again.
    pub(crate) fn handle_music(&mut self, now: Now, reply: Result<Reply, Failure>) {
        match (&mut self.step, reply) {
            (Step::Entering(Entering::StartingMusic { music }), Ok(_)) => {
                let music = music.clone();
                self.step = Step::Entering(Entering::MusicPlays { music });
                self.seek_answer(now);
            }
            (Step::Entering(Entering::StartingMusic { music }), Err(_))
                if self.a.is_confirmed() =>
            {
                let music = music.clone();
                self.wait_in_queue(now, music, false);
            }
            (Step::Entering(_), Err(failure)) => {
                let cause = Cause::NormalTemporaryFailure;
                self.refuse(now, "media-relay", failure, cause, busy_now());
            }
            (Step::Waiting { plays, .. }, Ok(_)) => *plays = true,
            (Step::Waiting { .. }, Err(_)) => self.step_until = Some(now.instant + RETRY),
            _ => (), // The queue has been left.
        }
    }

    /// Leg A is answered: the place counts from now on.
    fn wait_in_queue(&mut self, now: Now, music: String, plays: bool) {
        self.enter(Step::Waiting { music, plays, confirmed: false });
        if !plays {
            self.step_until = Some(now.instant + RETRY);
        }
        self.confirm_place(now);
    }

    fn confirm_place(&mut self, now: Now) {
        let queue = self.queue.clone();
        let priority = self.waits_as().map_or(0, |it| it.priority);
        let since = self.place_since.unwrap_or(now.instant);
        let command = QueueCommand::Enqueue { queue, answered: true, priority, since };
        let number = self.queue_svc(command);
        self.expect(now, number, Purpose::Confirm);
    }

    /// The place is confirmed, or queue-svc is away; then it will read of us again.
    pub(crate) fn handle_confirmed(&mut self, now: Now, reply: Result<Reply, Failure>) {
        let Step::Waiting { confirmed, .. } = &mut self.step else { return };
        match reply {
            Ok(_) => *confirmed = true,
            Err(failure) if failure.kind == FailureKind::Unavailable => {
                self.step_until = Some(now.instant + RETRY);
            }
            Err(_) => self.finish(now, Cause::NormalTemporaryFailure, EndedBy::Edge),
        }
    }

    /// Goes on in another process: queue-svc hears that the caller is there, and music that may not
    /// have begun is begun again.
    pub(crate) fn resume_waiting(&mut self, now: Now) {
        if let Step::Waiting { confirmed, .. } = &mut self.step {
            *confirmed = false;
            self.retry_waiting(now);
        }
    }

    pub(crate) fn retry_waiting(&mut self, now: Now) {
        let Step::Waiting { music, plays, confirmed } = &self.step else { return };
        let (music, plays, confirmed) = (music.clone(), *plays, *confirmed);
        let asked = |purpose| self.pending.iter().any(|pending| pending.purpose == purpose);
        let (play, confirm) =
            (!plays && !asked(Purpose::Music), !confirmed && !asked(Purpose::Confirm));
        if play {
            self.play_music(now, music);
        }
        if confirm {
            self.confirm_place(now);
        }
    }

    pub(crate) fn restart_music(&mut self, now: Now) {
        if let Step::Waiting { music, plays, .. } = &mut self.step {
            *plays = false;
            let music = music.clone();
            self.play_music(now, music);
        }
    }

    /// How the running action waits in a queue, if it does.
    fn waits_as(&self) -> Option<&Enqueue> {
        match &self.action {
            Some(Action::Enqueue(enqueue)) => Some(enqueue),
            _ => None,
        }
    }

    /// A caller who waits may leave by a digit, unless an agent is taking the call just now.
    pub(crate) fn leave_by_digit(&mut self, now: Now, digit: char) {
        let plan = self.waits_as().and_then(|it| it.on.get(&digit)).cloned();
        let taken = self.b.as_ref().is_some_and(|it| it.ring_until.is_none());
        if let (Step::Waiting { .. }, Some(plan), false) = (&self.step, plan, taken) {
            self.start_over(now, plan, Cause::PickedOff);
        }
    }

    /// queue-svc lets the caller wait no longer. Nothing is done for who does not wait, or for whom an
    /// agent rings.
    pub(crate) fn go_on_from_queue(&mut self, now: Now) {
        if !matches!(self.step, Step::Waiting { .. }) || self.b.is_some() {
            return;
        }
        match self.waits_as().and_then(|it| it.otherwise.clone()) {
            Some(plan) => self.start_over(now, plan, Cause::PickedOff),
            None => {
                self.stop_all(now, Cause::PickedOff);
                self.run_next(now);
            }
        }
    }

    /// queue-svc has moved the caller: other music, and what was asked for is there.
    pub(crate) fn move_to_queue(&mut self, now: Now, name: String, new: String) {
        if let Step::Waiting { music, .. } = &mut self.step {
            *music = new;
            self.queue = Some(name);
            self.restart_music(now);
        }
    }

    pub(crate) fn tell_of_agent(&mut self, now: Now, does: AgentOrder, agent: Option<String>) {
        self.enter(Step::TellingOfAgent);
        let number = self.queue_svc(QueueCommand::Agent { does, agent });
        self.expect(now, number, Purpose::Agent);
    }

    pub(crate) fn handle_agent_told(&mut self, now: Now, reply: Result<Reply, Failure>) {
        let otherwise = match &self.action {
            Some(Action::Agent { otherwise, .. }) => otherwise.clone(),
            _ => return, // The plan has been replaced.
        };
        match (reply, otherwise) {
            (Ok(_), _) => self.run_next(now),
            (Err(_), Some(plan)) => self.run_plan(now, plan),
            (Err(failure), None) => {
                let (cause, refusal) = match failure.kind {
                    FailureKind::NotFound => (Cause::UnallocatedNumber, reject(404)),
                    _ => (Cause::NormalTemporaryFailure, busy_now()),
                };
                self.refuse(now, "queue-svc", failure, cause, refusal);
            }
        }
    }

    /// Leaves the queue because the call does something else now.
    pub(crate) fn leave_queue(&mut self) {
        if self.queue.take().is_some() {
            self.queue_svc(QueueCommand::Leave { cause: Cause::PickedOff });
        }
    }
}

fn reject(status: u16) -> SipOrder {
    SipOrder::Reject { status, warning: None, retry_after_s: None }
}
