//! Running a call plan: how each action begins, and what ends it.

use crate::call::{Call, Purpose, failure_of};
use crate::collecting::Collecting;
use crate::leg::LegState;
use crate::output::{EndedBy, Event};
use crate::queueing::Entering;
use crate::{
    Action, Answer, CancelOutcome, Cause, CommandNumber, Conference, Failure, Later, MediaCommand,
    Now, Refusal, Reply, RequestNumber, SchedulerCommand, Side, shared,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How much later than expected a file may end before it counts as ended: the event may be lost.
const PLAY_GRACE: Duration = Duration::from_secs(2);
/// When a cancel that got no answer is tried again. Until there is one, nobody knows what happens.
const CANCEL_RETRY: Duration = Duration::from_secs(1);

/// What the call is doing now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Before the first action and after the last.
    Idle,
    /// The action begins when leg A is confirmed.
    AwaitingAnswer,
    Playing(Playing),
    Collecting(Collecting),
    /// This command has to be answered first.
    Scheduling(CommandNumber),
    /// The scheduler is asked, or will be again.
    Cancelling {
        task_id: String,
    },
    /// On the way into a queue.
    Entering(Entering),
    /// In a queue.
    Waiting {
        music: String,
        plays: bool,
        confirmed: bool,
    },
    /// queue-svc is told what an agent says.
    TellingOfAgent,
    Joining(#[serde(with = "shared")] Arc<Conference>),
    Conferring(#[serde(with = "shared")] Arc<Conference>),
    Dialing,
    Parked,
}

/// Who began a step, and so what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    Plan,
    /// A request to a parked call.
    Api,
    /// The conference of the plan, which wants its PIN: the first time, or again.
    Pin {
        attempt: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Playing {
    pub(crate) origin: Origin,
    /// Whom to tell that it plays, or that it has been played.
    #[serde(skip)]
    pub(crate) request: Option<RequestNumber>,
    pub(crate) wait: bool,
    play_id: Option<String>,
    duration: Duration,
}

impl Playing {
    /// media-relay has not said whether it plays.
    pub(crate) fn is_starting(&self) -> bool {
        self.play_id.is_none()
    }
}

impl Call {
    /// Begins an action of the plan; answers leg A first if the action needs it.
    pub(crate) fn begin(&mut self, now: Now, action: Action) {
        if self.a.is_confirmed() {
            self.answer_originate_before(&action);
        }
        match action {
            Action::Schedule { after_ms, what, name } => {
                self.schedule(now, after_ms, what, name);
            }
            Action::Cancel { name } => self.cancel(now, &name),
            Action::Hangup { cause } => self.finish(now, cause, EndedBy::Plan),
            Action::Enqueue(enqueue) => self.begin_entering(now, &enqueue, now.instant),
            Action::Agent { does, agent, .. } => self.tell_of_agent(now, does, agent),
            Action::Dial { target, ring, .. } => self.dial(now, target, ring),
            _ if !self.a.is_confirmed() => {
                self.enter(Step::AwaitingAnswer);
                self.seek_answer(now);
            }
            Action::Answer => self.run_next(now),
            Action::Play { file } => self.play(now, file, Origin::Plan, None, false),
            Action::Collect(collect) => self.collect(now, collect, Origin::Plan, None),
            Action::Conference(conference) => self.confer(now, conference),
            Action::Park => self.enter(Step::Parked),
        }
    }

    fn schedule(&mut self, now: Now, after_ms: u64, what: Later, name: String) {
        let number = self.number();
        self.schedule_as(now, number, (after_ms, what, name));
    }

    /// Under this number a task is made once, however often it is asked for.
    pub(crate) fn schedule_as(
        &mut self,
        now: Now,
        number: CommandNumber,
        (after_ms, what, name): (u64, Later, String),
    ) {
        let command = SchedulerCommand::Schedule { after_ms, what, name: name.clone() };
        self.scheduler_as(number, command);
        self.enter(Step::Scheduling(number));
        self.expect(now, number, Purpose::Schedule { number, name });
    }

    fn cancel(&mut self, now: Now, name: &str) {
        match self.tasks.iter().find(|(task, _)| task == name) {
            Some((_, task_id)) => {
                self.enter(Step::Cancelling { task_id: task_id.clone() });
                self.ask_to_cancel(now);
            }
            None => self.run_next(now), // Never scheduled: there is nothing that could happen.
        }
    }

    pub(crate) fn ask_to_cancel(&mut self, now: Now) {
        if let Step::Cancelling { task_id } = &self.step {
            let command = SchedulerCommand::Cancel { task_id: task_id.clone() };
            let number = self.scheduler(command);
            self.expect(now, number, Purpose::Cancel);
        }
    }

    pub(crate) fn handle_cancelled(&mut self, now: Now, reply: Result<Reply, Failure>) {
        match reply {
            Ok(Reply::Cancelled(CancelOutcome::Cancelled)) => self.run_next(now),
            // The plan has lost the race: the call waits for the effect.
            Ok(Reply::Cancelled(CancelOutcome::Firing)) => {
                self.action = Some(Action::Park);
                self.enter(Step::Parked);
                self.event(Event::Action);
            }
            _ => self.step_until = Some(now.instant + CANCEL_RETRY),
        }
    }

    fn dial(&mut self, now: Now, target: String, ring: Duration) {
        self.enter(Step::Dialing);
        if let LegState::Invited { sdp } = &self.a.state {
            let sdp = sdp.clone();
            self.offer(now, self.a.number, Side::A, sdp);
        }
        self.drop_attempt(now, crate::RingOutcome::Stopped, Cause::LoseRace, None);
        self.begin_attempt(now, target, Vec::new(), ring, None);
    }

    pub(crate) fn play(
        &mut self,
        now: Now,
        file: String,
        origin: Origin,
        request: Option<RequestNumber>,
        wait: bool,
    ) {
        let playing = Playing { origin, request, wait, play_id: None, duration: Duration::ZERO };
        self.enter(Step::Playing(playing));
        let number = self.media(MediaCommand::Play { side: Side::A, file, looping: false });
        self.expect(now, number, Purpose::Play);
    }

    pub(crate) fn handle_play(&mut self, now: Now, reply: Result<Reply, Failure>) {
        let Step::Playing(playing) = &mut self.step else { return };
        let origin = playing.origin;
        match reply {
            Ok(Reply::Playing { play_id, duration }) => {
                playing.duration = duration;
                playing.play_id = Some(play_id.clone());
                let request = playing.request.take_if(|_| !playing.wait);
                self.step_until = Some(now.instant + duration + PLAY_GRACE);
                if let Some(request) = request {
                    self.answer_request(request, Ok(Answer::Playing { duration }));
                }
                if self.finished_early.take() == Some(play_id) {
                    self.finish_playing(now);
                }
            }
            reply => {
                let (request, failure) = (playing.request.take(), failure_of(reply));
                if let Some(request) = request {
                    let service = "media-relay";
                    self.answer_request(request, Err(Refusal::Failed { service, failure }));
                }
                self.go_on(now, origin); // A plan is not stopped by a file that cannot be played.
            }
        }
    }

    pub(crate) fn handle_play_finished(&mut self, now: Now, play_id: String) {
        if self.finish_overlay(&play_id) {
            return;
        }
        match &self.step {
            Step::Playing(Playing { play_id: Some(it), .. }) if *it == play_id => {
                self.finish_playing(now);
            }
            Step::Collecting(collecting) if collecting.plays(&play_id) => {
                self.finish_prompt(now);
            }
            Step::Playing(_) | Step::Collecting(_) => self.finished_early = Some(play_id),
            _ => (), // Of a step that is over.
        }
    }

    fn finish_playing(&mut self, now: Now) {
        let Step::Playing(playing) = &mut self.step else { return };
        let (origin, duration) = (playing.origin, playing.duration);
        if let Some(request) = playing.request.take() {
            self.answer_request(request, Ok(Answer::Playing { duration }));
        }
        self.go_on(now, origin);
    }

    /// Lets leg A hear again what an attempt to connect it may have taken away.
    pub(crate) fn restore_hearing(&mut self, now: Now) {
        match &self.step {
            Step::Waiting { .. } => self.restart_music(now),
            Step::Conferring(conference) => self.join(now, conference.clone()),
            _ => (), // A file ends by its time, and every other step is silent.
        }
    }

    /// A digit that media-relay counted, from RTP or from INFO.
    pub(crate) fn handle_digit(&mut self, now: Now, side: Side, digit: char) {
        if !crate::dtmf_info::is_digit(digit) {
            return;
        }
        self.event(Event::Digit { digit });
        if side == Side::A {
            self.leave_by_digit(now, digit);
            self.collect_digit(now, digit);
        }
    }

    pub(crate) fn handle_step_timeout(&mut self, now: Now) {
        match &self.step {
            Step::Playing(_) => self.finish_playing(now), // Its end was not told.
            Step::Collecting(_) => self.handle_collect_timeout(now),
            Step::Cancelling { .. } => self.ask_to_cancel(now),
            Step::Waiting { .. } => self.retry_waiting(now),
            _ => (), // No other step has a deadline.
        }
    }

    /// Answers those who wait for a step that is replaced, or that ends with the call.
    pub(crate) fn abandon_step(&mut self, ended: Option<Cause>) {
        let (request, played) = match &mut self.step {
            Step::Playing(playing) => (playing.request.take(), Some(playing.duration)),
            Step::Collecting(collecting) => (collecting.request.take(), None),
            _ => (None, None),
        };
        let Some(request) = request else { return };
        let answer = match (ended, played) {
            (Some(cause), _) => Err(Refusal::Ended { cause }),
            (None, Some(duration)) => Ok(Answer::Playing { duration }),
            (None, None) => Err(Refusal::Replaced),
        };
        self.answer_request(request, answer);
    }

    /// Name of what the call does, for those who have to wait for a `park`.
    pub(crate) fn busy_with(&self) -> &'static str {
        match (&self.step, &self.action) {
            (Step::Collecting(_), _) => "collect",
            (Step::Playing(_), _) => "play",
            (_, Some(action)) => action.name(),
            (_, None) => "",
        }
    }
}
