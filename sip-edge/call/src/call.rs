//! The call itself: its parts, and which of them an input is for.

use crate::attempt::Attempt;
use crate::effect::Effects;
use crate::leg::{Leg, LegState};
use crate::output::{CallState, EndedBy, Event, View};
use crate::overlay::Overlay;
use crate::replacing::Replacement;
use crate::step::{Origin, Step};
use crate::{
    Action, Cause, CommandNumber, Failure, FailureKind, Input, LegEnd, LegNumber, LegSignal,
    MediaCommand, Now, Output, Plan, QueueCommand, Reply, RequestNumber, RingResult,
    SchedulerCommand, Side, SipOrder,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long another service may take to answer a command before it counts as failed.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known of a call from its beginning and never changes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub call_id: String,
    /// URI in From of leg A for an inbound call, our own for an originated one.
    pub from_uri: String,
    /// Request URI for an inbound call, target for an originated one.
    pub to_uri: String,
    /// Name of the dial plan route; empty for an originated call.
    pub route: String,
}

/// How an originated call begins.
#[derive(Clone, Copy, Debug)]
pub struct Originated {
    pub request: RequestNumber,
    /// How long the target may ring.
    pub ring: Duration,
    /// Answer the request when the INVITE is sent, not when it is answered.
    pub return_at_once: bool,
}

/// One call. Drain [`Call::poll_output`] after every input.
#[derive(Debug)]
pub struct Call {
    pub(crate) facts: Facts,
    pub(crate) state: CallState,
    pub(crate) originated: bool,
    pub(crate) a: Leg,
    /// The attempt at a leg B, or the leg B that talks with A.
    pub(crate) b: Option<Attempt>,
    pub(crate) next_leg: u32,
    /// Legs that we hung up on, newest first: their BYE has no answer yet.
    pub(crate) released: Vec<(LegNumber, Side)>,
    /// A leg on its way into the place of another.
    pub(crate) replacement: Option<Replacement>,

    pub(crate) plan: Plan,
    /// Index of the action after the running one.
    pub(crate) next_action: usize,
    pub(crate) action: Option<Action>,
    pub(crate) step: Step,
    /// Deadline of the step: silence of a collect, end of a file, next try.
    pub(crate) step_until: Option<Instant>,
    /// A file that ended before the reply to its `Play` was here.
    pub(crate) finished_early: Option<String>,

    /// Name or URI of the queue in which we have, or may have, a place.
    pub(crate) queue: Option<String>,
    /// When the place there was asked for.
    pub(crate) place_since: Option<Instant>,
    pub(crate) conference: String,
    pub(crate) tasks: Vec<(String, String)>,
    /// A `Schedule` had no answer: there may be a task of ours that we do not know.
    pub(crate) may_have_task: bool,
    /// media-relay has, or may have, a session of ours.
    pub(crate) has_media: bool,

    pub(crate) pending: Vec<Pending>,
    pub(crate) next_command: u64,
    /// Until when the target of an Originate may ring.
    pub(crate) ring_until: Option<Instant>,
    pub(crate) originate_requests: Vec<RequestNumber>,
    /// The Originate was answered, and not with a failure.
    pub(crate) has_originated: bool,
    pub(crate) return_at_once: bool,
    /// The last attempt for a queue, so that a repeated request gets the same outcome.
    pub(crate) last_ring: Option<(String, RingResult)>,

    pub(crate) created_unix_ms: i64,
    pub(crate) answered_unix_ms: Option<i64>,
    pub(crate) ended_unix_ms: Option<i64>,
    pub(crate) end: Option<(Cause, EndedBy)>,
    pub(crate) ended_by_task: Option<String>,
    /// What tasks have done to it.
    pub(crate) effects: Effects,
    /// Prompts over what it does.
    pub(crate) overlays: Vec<Overlay>,
    pub(crate) next_overlay: u32,
    pub(crate) outputs: VecDeque<Output>,
}

/// A command whose reply changes something.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    number: CommandNumber,
    deadline: Instant,
    pub(crate) purpose: Purpose,
}

/// What a command was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// First offer or answer of a leg, and the remote's answer to our offer.
    Offer(LegNumber),
    Answer(LegNumber),
    /// The same for a re-INVITE.
    Reoffer(LegNumber),
    Reanswer(LegNumber),
    Connect(LegNumber),
    Play,
    Prompt,
    Music,
    Join,
    Enqueue,
    Confirm,
    Agent,
    Schedule {
        number: CommandNumber,
        name: String,
    },
    Cancel,
    /// A prompt over what the call does.
    Overlay(u32),
}

impl Purpose {
    /// It belongs to the running step and is of no interest after it.
    fn is_of_step(&self) -> bool {
        use Purpose::*;
        matches!(self, Play | Prompt | Music | Join | Enqueue | Confirm | Agent | Cancel)
    }
}

impl Call {
    /// A call that an INVITE begins; its 100 has been sent. `sdp: None` is a late offer.
    pub fn inbound(now: Now, facts: Facts, plan: Plan, sdp: Option<Bytes>) -> Self {
        let a = Leg::inbound(facts.from_uri.clone(), sdp);
        let mut call = Self::new(now, facts, plan, a);
        call.event(Event::Created);
        call.run_next(now);
        call
    }

    /// A call that begins with an INVITE of ours to `facts.to_uri`.
    pub fn originate(now: Now, facts: Facts, plan: Plan, originated: Originated) -> Self {
        let a = Leg::outbound(LegNumber(0), Side::A, facts.to_uri.clone());
        let mut call = Self::new(now, facts, plan, a);
        call.originated = true;
        call.originate_requests.push(originated.request);
        call.return_at_once = originated.return_at_once;
        call.ring_until = Some(now.instant + originated.ring);
        call.event(Event::Created);
        call.offer(now, LegNumber(0), Side::A, None);
        call
    }

    pub(crate) fn new(now: Now, facts: Facts, plan: Plan, a: Leg) -> Self {
        Self {
            facts,
            state: CallState::Early,
            originated: false,
            a,
            b: None,
            next_leg: 1,
            replacement: None,
            released: Vec::new(),
            plan,
            next_action: 0,
            action: None,
            step: Step::Idle,
            step_until: None,
            finished_early: None,
            queue: None,
            place_since: None,
            conference: String::new(),
            tasks: Vec::new(),
            may_have_task: false,
            has_media: false,
            pending: Vec::new(),
            next_command: 0,
            ring_until: None,
            originate_requests: Vec::new(),
            has_originated: false,
            return_at_once: false,
            last_ring: None,
            created_unix_ms: now.unix_ms,
            answered_unix_ms: None,
            ended_unix_ms: None,
            end: None,
            ended_by_task: None,
            effects: Effects::default(),
            overlays: Vec::new(),
            next_overlay: 0,
            outputs: VecDeque::new(),
        }
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn created_unix_ms(&self) -> i64 {
        self.created_unix_ms
    }

    pub fn has_ended(&self) -> bool {
        self.state == CallState::Ended
    }

    /// The call as others may see it now.
    pub fn view(&self) -> View {
        let b = self.b.as_ref().map(|attempt| attempt.leg.view());
        View {
            call_id: self.facts.call_id.clone(),
            state: self.state,
            legs: std::iter::once(self.a.view()).chain(b).collect(),
            from_uri: self.facts.from_uri.clone(),
            to_uri: self.facts.to_uri.clone(),
            route: self.facts.route.clone(),
            action: self.action.as_ref().map_or("", Action::name),
            queue: self.queue.clone().unwrap_or_default(),
            conference: self.conference.clone(),
            tasks: self.tasks.clone(),
            has_media: self.has_media,
            created_unix_ms: self.created_unix_ms,
            answered_unix_ms: self.answered_unix_ms,
            ended_unix_ms: self.ended_unix_ms,
            end: self.end,
            ended_by_task: self.ended_by_task.clone(),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Call::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pending = self.pending.iter().map(|pending| pending.deadline);
        let attempt = self.b.as_ref().and_then(|attempt| attempt.ring_until);
        let overlays = self.overlays.iter().filter_map(|overlay| overlay.until);
        let replacement = self.replacement.as_ref().map(|it| it.until);
        pending
            .chain(attempt)
            .chain(overlays)
            .chain(replacement)
            .chain(self.ring_until)
            .chain(self.step_until)
            .min()
    }

    /// Handles one input. Stale and repeated ones change nothing.
    pub fn handle(&mut self, now: Now, input: Input) {
        match (self.state, input) {
            (_, Input::Asked { request, ask }) => self.handle_request(now, request, ask),
            (_, Input::Leg { leg, signal: LegSignal::Ended(LegEnd::HungUp { status }) })
                if !self.is_present(leg) =>
            {
                self.handle_released(leg, status);
            }
            (CallState::Ended, _) => (), // All that is left of it is a record.
            (_, Input::Leg { leg, signal }) => self.handle_leg(now, leg, signal),
            (_, Input::Replied { command, reply }) => {
                if let Some(at) = self.pending.iter().position(|it| it.number == command) {
                    let purpose = self.pending.swap_remove(at).purpose;
                    self.handle_reply(now, purpose, reply);
                } // Else it came too late, or belongs to what has been replaced.
            }
            (_, Input::Digit { side, digit }) => self.handle_digit(now, side, digit),
            (_, Input::PlayFinished { play_id }) => self.handle_play_finished(now, play_id),
            (_, Input::Kicked { conference }) => self.handle_kicked(now, &conference),
            (_, Input::MediaInactive) => self.finish(now, Cause::MediaTimeout, EndedBy::Edge),
            (_, Input::MediaLost) => self.finish(now, Cause::NetworkOutOfOrder, EndedBy::Edge),
            (_, Input::LegTaken { leg, cause }) => self.handle_taken(now, leg, cause),
            (_, Input::ShutDown) => self.finish(now, Cause::SystemShutdown, EndedBy::Edge),
        }
    }

    /// Handles whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |at: &Instant| *at <= now.instant;
        while let Some(at) = self.pending.iter().position(|it| due(&it.deadline)) {
            let purpose = self.pending.swap_remove(at).purpose;
            let message = format!("no answer in {COMMAND_TIMEOUT:?}");
            let failure = Failure { kind: FailureKind::Unavailable, message };
            self.handle_reply(now, purpose, Err(failure));
        }
        if self.ring_until.take_if(|at| due(at)).is_some() {
            self.finish(now, Cause::NoAnswer, EndedBy::Edge);
        }
        let ringing = self.b.as_mut().map(|attempt| &mut attempt.ring_until);
        if ringing.is_some_and(|ring_until| ring_until.take_if(|at| due(at)).is_some()) {
            self.handle_ring_timeout(now);
        }
        if self.replacement.as_ref().is_some_and(|it| it.until <= now.instant) {
            self.fail_replacement(now, Cause::NoAnswer, Some(408));
        }
        self.handle_overlay_timeouts(now);
        if self.step_until.take_if(|at| due(at)).is_some() {
            self.handle_step_timeout(now);
        }
    }

    fn handle_leg(&mut self, now: Now, number: LegNumber, signal: LegSignal) {
        let is_b = self.b.as_ref().is_some_and(|attempt| attempt.leg.number == number);
        match signal {
            signal if self.is_replacement(number) => self.handle_replacement(now, signal),
            signal if self.is_rival(number) => self.handle_rival(now, number, signal),
            _ if number != self.a.number && !is_b => (), // An attempt that is over already.
            LegSignal::Ended(_) if self.leave_place(number) => (),
            LegSignal::Reinvited { sdp } => self.handle_reinvite(now, number, sdp),
            LegSignal::Acknowledged { sdp } if self.leg(number).is_confirmed() => {
                self.handle_reinvite_ack(now, number, sdp);
            }
            LegSignal::Referred { target, headers } => {
                self.handle_referred(now, number, target, headers);
            }
            LegSignal::Digit { digit, duration_ms } => {
                let leg = self.leg(number);
                if leg.is_confirmed() {
                    let side = leg.side;
                    self.media(MediaCommand::InjectDtmf { side, digit, duration_ms });
                }
            }
            signal if is_b => self.handle_b(now, signal),
            signal => self.handle_a(now, signal),
        }
    }

    fn handle_reply(&mut self, now: Now, purpose: Purpose, reply: Result<Reply, Failure>) {
        use Purpose::*;
        match (purpose, reply) {
            (Offer(leg), Ok(Reply::Offered { sdp, held })) => {
                self.leg_mut(leg).held = held;
                self.handle_offered(now, leg, sdp);
            }
            (Answer(leg), Ok(Reply::Negotiated { held })) => {
                self.leg_mut(leg).held = held;
                self.handle_negotiated(now, leg);
            }
            (Offer(leg) | Answer(leg), reply) => {
                self.handle_media_refused(now, leg, failure_of(reply));
            }
            (Reoffer(leg), Ok(Reply::Offered { sdp, held })) => {
                self.answer_reinvite(leg, sdp, held);
            }
            (Reoffer(leg), reply) => self.refuse_reinvite(leg, &failure_of(reply)),
            (Reanswer(leg), reply) => self.finish_reinvite(leg, reply),
            (Connect(_), Ok(Reply::Silent)) => self.handle_silent_agent(now),
            (Connect(_), Ok(_)) => self.handle_connected(),
            (Connect(_), Err(failure)) => self.handle_connect_failed(now, &failure),
            (Schedule { number, name }, reply) => {
                self.handle_scheduled(now, number, name, reply);
            }
            (Cancel, reply) => self.handle_cancelled(now, reply),
            (Enqueue, reply) => self.handle_enqueued(now, reply),
            (Confirm, reply) => self.handle_confirmed(now, reply),
            (Agent, reply) => self.handle_agent_told(now, reply),
            (Music, reply) => self.handle_music(now, reply),
            (Play, reply) => self.handle_play(now, reply),
            (Prompt, reply) => self.handle_prompt(now, reply),
            (Overlay(number), reply) => self.handle_overlay(now, number, reply),
            (Join, reply) => self.handle_joined(now, reply),
        }
    }

    /// The leg of that number, which is A's or the present B's.
    pub(crate) fn leg(&self, number: LegNumber) -> &Leg {
        if let Some(replacement) = self.replacement.as_ref().filter(|it| it.leg.number == number) {
            return &replacement.leg;
        }
        match &self.b {
            Some(attempt) if attempt.leg.number == number => &attempt.leg,
            _ => &self.a,
        }
    }

    pub(crate) fn leg_mut(&mut self, number: LegNumber) -> &mut Leg {
        if let Some(replacement) = self.replacement.as_mut().filter(|it| it.leg.number == number) {
            return &mut replacement.leg;
        }
        match &mut self.b {
            Some(attempt) if attempt.leg.number == number => &mut attempt.leg,
            _ => &mut self.a,
        }
    }

    /// Asks media-relay for the first offer or answer of a leg.
    pub(crate) fn offer(&mut self, now: Now, leg: LegNumber, side: Side, sdp: Option<Bytes>) {
        self.offer_with_music(now, leg, side, sdp, None);
    }

    /// As [`Call::offer`]; the leg hears music once that is done.
    pub(crate) fn offer_with_music(
        &mut self,
        now: Now,
        leg: LegNumber,
        side: Side,
        sdp: Option<Bytes>,
        music: Option<String>,
    ) {
        self.has_media = true;
        self.leg_mut(leg).state = LegState::Offering;
        let number = self.media(MediaCommand::Offer { side, sdp, music });
        self.expect(now, number, Purpose::Offer(leg));
    }

    pub(crate) fn sip(&mut self, leg: LegNumber, order: SipOrder) {
        self.outputs.push_back(Output::Sip { leg, order });
    }

    pub(crate) fn media(&mut self, command: MediaCommand) -> CommandNumber {
        let number = self.number();
        self.outputs.push_back(Output::Media { number, command });
        number
    }

    pub(crate) fn queue_svc(&mut self, command: QueueCommand) -> CommandNumber {
        let number = self.number();
        self.outputs.push_back(Output::Queue { number, command });
        number
    }

    pub(crate) fn scheduler(&mut self, command: SchedulerCommand) -> CommandNumber {
        let number = self.number();
        self.scheduler_as(number, command);
        number
    }

    pub(crate) fn scheduler_as(&mut self, number: CommandNumber, command: SchedulerCommand) {
        self.outputs.push_back(Output::Scheduler { number, command });
    }

    pub(crate) fn event(&mut self, event: Event) {
        let call = Box::new(self.view());
        self.outputs.push_back(Output::Event { event, call });
    }

    pub(crate) fn answer_request(
        &mut self,
        request: RequestNumber,
        answer: Result<crate::Answer, crate::Refusal>,
    ) {
        self.outputs.push_back(Output::Answer { request, answer });
    }

    /// From now on waits for the reply to a command.
    pub(crate) fn expect(&mut self, now: Now, number: CommandNumber, purpose: Purpose) {
        let deadline = now.instant + COMMAND_TIMEOUT;
        self.pending.push(Pending { number, deadline, purpose });
    }

    /// Takes the next step; what the one before was waiting for is of no interest any more.
    pub(crate) fn enter(&mut self, step: Step) {
        self.pending.retain(|pending| !pending.purpose.is_of_step());
        self.step_until = None;
        self.finished_early = None;
        self.step = step;
    }

    /// Runs the next action of the plan; hangs up after the last.
    pub(crate) fn run_next(&mut self, now: Now) {
        self.enter(Step::Idle);
        self.action = self.plan.action(self.next_action).cloned();
        self.next_action += 1;
        match self.action.clone() {
            Some(action) => {
                self.event(Event::Action);
                self.begin(now, action);
            }
            None => {
                self.answer_originate();
                self.finish(now, Cause::NormalClearing, EndedBy::Plan);
            }
        }
    }

    /// Goes on with another plan, from its first action.
    pub(crate) fn run_plan(&mut self, now: Now, plan: Plan) {
        self.plan = plan;
        self.next_action = 0;
        self.run_next(now);
    }

    /// Goes on after a step that an API request or the plan began.
    pub(crate) fn go_on(&mut self, now: Now, origin: Origin) {
        match origin {
            Origin::Plan => self.run_next(now),
            Origin::Api => self.enter(Step::Parked),
            Origin::Pin { .. } => (), // It is judged by its digits.
        }
    }

    pub(crate) fn next_leg_number(&mut self) -> LegNumber {
        let number = LegNumber(self.next_leg);
        self.next_leg += 1;
        number
    }

    pub(crate) fn number(&mut self) -> CommandNumber {
        let number = CommandNumber(self.next_command);
        self.next_command += 1;
        number
    }
}

/// The failure in a reply that is not the wanted one.
pub(crate) fn failure_of(reply: Result<Reply, Failure>) -> Failure {
    reply.err().unwrap_or_else(|| Failure {
        kind: FailureKind::Unavailable,
        message: "a reply that does not fit the command".to_owned(),
    })
}
