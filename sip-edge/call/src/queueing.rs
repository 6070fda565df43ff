//! Waiting in a queue: a place first, then music, then the 200, so that a full queue is refused with
//! a response and nobody is answered into silence.

use crate::answering::busy_now;
use crate::call::{Call, Purpose, failure_of};
use crate::leg::LegState;
use crate::output::EndedBy;
use crate::step::Step;
use crate::{Cause, Failure, FailureKind, MediaCommand, Now, QueueCommand, Reply, Side, SipOrder};
use std::time::Duration;

/// When music that could not be started, or a place that could not be confirmed, is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The way into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entering {
    /// queue-svc is asked for a place.
    Asking,
    /// There is a place; media-relay may not be ready for music yet.
    Placed { music: String },
    /// media-relay is asked for music.
    StartingMusic { music: String },
    /// Music plays; leg A is being answered.
    MusicPlays { music: String },
}

impl Entering {
    /// A late offer has no media before its ACK, so it is answered first.
    pub(crate) fn wants_answer(&self, late_offer: bool) -> bool {
        match self {
            Self::Asking | Self::StartingMusic { .. } => false,
            Self::Placed { .. } => late_offer,
            Self::MusicPlays { .. } => true,
        }
    }
}

impl Call {
    pub(crate) fn begin_entering(&mut self, now: Now, queue: Option<String>) {
        self.enter(Step::Entering(Entering::Asking));
        if let LegState::Invited { sdp } = &self.a.state {
            let sdp = sdp.clone();
            self.offer(now, self.a.number, Side::A, sdp);
        }
        self.queue = Some(queue.clone().unwrap_or_else(|| self.facts.to_uri.clone()));
        let number = self.queue_svc(QueueCommand::Enqueue { queue, answered: false });
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
            (Entering::Placed { music }, LegState::Offered { .. }) if !late => {
                self.start_music(now, music.clone());
            }
            (Entering::MusicPlays { music }, LegState::Confirmed) => {
                self.wait_in_queue(now, music.clone(), true);
            }
            _ => (), // Something is still on its way.
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
        let number = self.queue_svc(QueueCommand::Enqueue { queue, answered: true });
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
