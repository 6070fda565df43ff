//! The one task that owns the user agent and all calls: drain what they want, wait for one input.
//!
//! Nothing here waits for another service: commands run beside the loop and come back as inputs.

use crate::bindings::{self, Sharing};
use crate::calls::{CallId, Calls};
use crate::chain::{Chains, Performed};
use crate::defence::{Defence, Turned};
use crate::dial_plan::DialPlan;
use crate::events::Events;
use crate::failover::Others;
use crate::forks::Fork;
use crate::keeping::Keeping;
use crate::known_queues::KnownQueues;
use crate::locate::Locator;
use crate::media::{Media, Watched};
use crate::metrics;
use crate::queue::Queues;
use crate::requests::{Request, Waiting};
use crate::resolve::Resolved;
use crate::routing::Checked;
use crate::scheduler::Scheduler;
use crate::snapshots::Record;
use crate::transfer::{self, Borrowed};
use crate::transport::{Received, Transports};
use crate::trunks::{Located, Registering};
use crate::wall_clock::WallClock;
use call::{Input, LegEnd, LegNumber, LegSignal, Now, Reply};
use sip::{End, Event, LegId, Output, Peer, Suspicion, UserAgent};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

/// How many inputs of one kind may wait for the loop; who brings more waits.
pub(crate) const INPUTS_MAX: usize = 4_096;
/// The loop wakes at least so often.
const IDLE: Duration = Duration::from_secs(3_600);

/// What does not change while the process runs.
pub(crate) struct Settings {
    /// Where peers reach us.
    pub(crate) advertised: sip::Advertised,
    pub(crate) max_calls: usize,
    /// Live calls from one source that is not trusted.
    pub(crate) max_source_calls: usize,
    pub(crate) dial_plan: Arc<DialPlan>,
}

/// The other services.
pub(crate) struct Services {
    pub(crate) media: Media,
    pub(crate) queues: Queues,
    pub(crate) scheduler: Scheduler,
    pub(crate) locator: Locator,
}

/// What came back from work beside the loop.
pub(crate) enum Done {
    Resolved(Resolved),
    Checked(Checked),
    TrunkLocated(Located),
    Shared(bindings::Record),
    /// Another sip-edge has taken the call over.
    CallLost(CallId),
    /// A call of one that is dead is ours now.
    CallTaken(Box<Record>),
    /// media-relay knows that the session is ours; or has no such session.
    Adopted {
        call: CallId,
        is_there: bool,
    },
    /// A phone may not be silent any longer, if it still is.
    Silent(LegId),
}

/// Ends of the channels that lead into the loop.
pub(crate) struct Inputs {
    pub(crate) performed: mpsc::Receiver<Performed>,
    pub(crate) done: mpsc::Receiver<Done>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) watched: mpsc::Receiver<Watched>,
    pub(crate) draining: watch::Receiver<bool>,
}

pub(crate) struct Edge {
    pub(crate) settings: Settings,
    pub(crate) user_agent: UserAgent,
    pub(crate) transports: Transports,
    pub(crate) services: Services,
    pub(crate) events: Events,
    pub(crate) calls: Calls,
    /// Whose leg it is.
    pub(crate) legs: HashMap<LegId, (CallId, LegNumber)>,
    /// Legs that another call wants.
    pub(crate) borrowed: HashMap<LegId, Borrowed>,
    /// Further places for legs that have heard nothing yet.
    pub(crate) others: HashMap<LegId, Others>,
    /// Legs that are at several phones.
    pub(crate) forks: HashMap<(CallId, LegNumber), Fork>,
    /// Our registrations with trunks.
    pub(crate) registering: Vec<Registering>,
    /// Bindings that other replicas are to know.
    pub(crate) sharing: Sharing,
    /// Further media-relays, which have sessions of calls that we have taken over, by their URL.
    pub(crate) relays: HashMap<Arc<str>, Media>,
    pub(crate) watched: mpsc::Sender<Watched>,
    /// Calls that outlive this process.
    pub(crate) keeping: Keeping,
    /// Legs whose INVITE waits for what queue-svc says.
    pub(crate) checking: HashSet<LegId>,
    pub(crate) known_queues: KnownQueues,
    pub(crate) chains: Chains,
    pub(crate) defence: Defence,
    pub(crate) wall_clock: WallClock,
    pub(crate) done: mpsc::Sender<Done>,
    pub(crate) waiting: Waiting,
    /// Calls that have been told something and may want something.
    dirty: VecDeque<CallId>,
    pub(crate) draining: bool,
    /// Tells the one who waits for the end that nothing is left.
    drained: watch::Sender<bool>,
    /// Answered when the process may end after all has been hung up.
    pub(crate) shut_down: Option<oneshot::Sender<()>>,
}

/// What an [`Edge`] is made of.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) user_agent: UserAgent,
    pub(crate) transports: Transports,
    pub(crate) services: Services,
    pub(crate) events: Events,
    pub(crate) calls: Calls,
    pub(crate) defence: Defence,
    pub(crate) sharing: Sharing,
    pub(crate) keeping: Keeping,
    pub(crate) watched: mpsc::Sender<Watched>,
    pub(crate) performed: mpsc::Sender<Performed>,
    pub(crate) done: mpsc::Sender<Done>,
    pub(crate) drained: watch::Sender<bool>,
}

impl Edge {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            settings: parts.settings,
            user_agent: parts.user_agent,
            transports: parts.transports,
            services: parts.services,
            events: parts.events,
            calls: parts.calls,
            legs: HashMap::new(),
            borrowed: HashMap::new(),
            others: HashMap::new(),
            forks: HashMap::new(),
            registering: Vec::new(),
            sharing: parts.sharing,
            keeping: parts.keeping,
            relays: HashMap::new(),
            watched: parts.watched,
            checking: HashSet::new(),
            known_queues: KnownQueues::default(),
            wall_clock: WallClock::read(),
            chains: Chains::new(parts.performed),
            defence: parts.defence,
            done: parts.done,
            waiting: Waiting::default(),
            dirty: VecDeque::new(),
            draining: false,
            drained: parts.drained,
            shut_down: None,
        }
    }

    /// Runs for ever; ends only if its inputs do.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        self.register_trunks();
        loop {
            self.pump();
            self.report_drain();
            let wake = self.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                received = self.transports.recv() => self.handle_received(received),
                Some(performed) = inputs.performed.recv() => self.handle_performed(performed),
                Some(done) = inputs.done.recv() => match done {
                    Done::Resolved(resolved) => self.handle_resolved(resolved),
                    Done::Checked(checked) => self.handle_checked(checked),
                    Done::Shared(record) => self.handle_shared(record),
                    Done::TrunkLocated(located) => self.handle_trunk_located(located),
                    Done::CallLost(id) => self.lose(&id),
                    Done::CallTaken(record) => self.take_over(*record),
                    Done::Adopted { call, is_there } => self.handle_adopted(&call, is_there),
                    Done::Silent(leg) => self.handle_silent(leg),
                },
                Some(request) = inputs.requests.recv() => self.handle_request(request),
                Some(watched) = inputs.watched.recv() => self.handle_watched(watched),
                Ok(()) = inputs.draining.changed() => self.drain(),
                () = tokio::time::sleep_until(wake.into()) => (),
            }
            self.handle_timeouts();
        }
    }

    /// Does all that the user agent and the calls want done.
    fn pump(&mut self) {
        loop {
            self.drain_user_agent();
            let Some(id) = self.dirty.pop_front() else { return };
            while let Some(output) =
                self.calls.get_mut(&id).and_then(|entry| entry.call.poll_output())
            {
                self.perform(&id, output);
            }
            self.calls.settle(Instant::now(), &id);
            self.note(&id);
            metrics::live_calls(self.calls.live());
        }
    }

    /// Sends what the user agent wants sent, and tells the calls what it has to tell.
    pub(crate) fn drain_user_agent(&mut self) {
        while let Some(output) = self.user_agent.poll_output() {
            match output {
                Output::Send { peer, bytes } => self.transports.send(peer, bytes),
                Output::Alias { peer, alias } => self.transports.alias(peer, alias),
                Output::Judged { source, what } => self.judge(source, what),
                Output::Discarded(reason) => metrics::sip_discarded(reason),
                Output::Event(event) => self.handle_sip_event(event),
            }
        }
    }

    fn handle_received(&mut self, received: Received) {
        let now = Instant::now();
        match received {
            Received::Message { source, bytes } => {
                match self.defence.admit(now, source.addr.ip(), &bytes) {
                    Ok(()) => self.user_agent.handle_message(now, unix_s(), source, bytes),
                    Err(turned) => self.turn_away(source, turned),
                }
            }
            Received::Failed { peer } => self.user_agent.handle_transport_failed(now, peer),
            Received::Malformed { peer } => {
                metrics::sip_discarded("malformed_stream");
                self.judge(peer, Suspicion::Malformed);
                self.user_agent.handle_transport_failed(now, peer);
            }
        }
    }

    /// Takes note of what a message said about its source.
    pub(crate) fn judge(&mut self, source: Peer, what: Suspicion) {
        if let Some(turned) = self.defence.judge(Instant::now(), source.addr.ip(), what) {
            self.turn_away(source, turned);
        }
    }

    fn turn_away(&mut self, source: Peer, turned: Turned) {
        if let Turned::Banning(reason) = turned {
            metrics::source_banned(reason);
            warn!(ip = %source.addr.ip(), reason, "banned a source");
        }
        metrics::sip_discarded(turned.reason());
    }

    fn handle_sip_event(&mut self, event: Event) {
        let Some(event) = self.of_fork(event) else { return };
        match event {
            Event::Invited { leg, invite } => self.handle_invited(now(), leg, *invite, None),
            Event::Acknowledged { leg, sdp } => self.tell(leg, LegSignal::Acknowledged { sdp }),
            Event::Ringing { leg, sdp, .. } => {
                self.forget_others(leg);
                self.tell(leg, LegSignal::Ringing { sdp });
            }
            Event::Answered { leg, sdp } => {
                self.forget_others(leg);
                self.tell(leg, LegSignal::Answered { sdp });
            }
            Event::Reinvited { leg, sdp } => self.tell(leg, LegSignal::Reinvited { sdp }),
            Event::Info { leg, content_type, body } => {
                if let Some((digit, duration_ms)) = call::dtmf_info::parse(&content_type, &body) {
                    self.tell(leg, LegSignal::Digit { digit, duration_ms });
                }
            }
            Event::Ended { leg, end } if self.try_others(leg, &end) => (),
            Event::Ended { leg, end } => {
                let end = leg_end(end);
                self.tell_borrower(leg, LegSignal::Ended(end.clone()));
                self.tell(leg, LegSignal::Ended(end));
                self.forget_leg(leg);
            }
            Event::Registrant { registrant, state } => self.handle_registrant(registrant, &state),
            Event::Reanswered { leg, sdp } => {
                self.tell_borrower(leg, LegSignal::Answered { sdp });
            }
            Event::ReinviteFailed { leg, status } => {
                self.tell_borrower(leg, LegSignal::Ended(transfer::rejected(status)));
            }
            Event::Moved { leg } => {
                if let Some((id, _)) = self.legs.get(&leg).cloned() {
                    self.note(&id);
                }
            }
            Event::Referred { leg, refer } => self.handle_referred(leg, refer),
            Event::ReferProgress { .. } => (), // We send none.
            Event::Registered { user, contacts } => {
                debug!(contacts, "registered");
                self.share_bindings(&user);
            }
        }
    }

    fn tell(&mut self, leg: LegId, signal: LegSignal) {
        // A leg that was refused before it became one of a call is nobody's.
        if let Some((id, leg)) = self.legs.get(&leg).cloned() {
            self.feed(&id, Input::Leg { leg, signal });
        }
    }

    fn forget_leg(&mut self, leg: LegId) {
        self.checking.remove(&leg);
        if let Some((id, number)) = self.legs.remove(&leg)
            && let Some(entry) = self.calls.get_mut(&id)
        {
            entry.legs.remove(&number);
        }
    }

    /// Tells a call something; what it wants then is done by [`Edge::pump`].
    pub(crate) fn feed(&mut self, id: &CallId, input: Input) {
        if let Some(entry) = self.calls.get_mut(id) {
            entry.call.handle(now(), input);
            self.dirty.push_back(id.clone());
        }
    }

    /// A call that is new has outputs already.
    pub(crate) fn mark(&mut self, id: CallId) {
        self.dirty.push_back(id);
    }

    fn handle_performed(&mut self, performed: Performed) {
        self.chains.advance(&performed);
        let Performed { call, service, number, outcome } = performed;
        if let Err(failure) = &outcome {
            metrics::command_failed(service.name());
            let kind = failure.kind;
            info!(call_id = %call, service = service.name(), ?kind, "command failed: {failure}");
        }
        if let (Some(entry), Ok(Reply::Offered { .. })) = (self.calls.get_mut(&call), &outcome) {
            entry.media_since.get_or_insert_with(Instant::now);
        }
        self.feed(&call, Input::Replied { command: number, reply: outcome });
    }

    fn handle_watched(&mut self, watched: Watched) {
        let (session_id, input) = match watched {
            Watched::Digit { session_id, side, digit } => {
                (session_id, Input::Digit { side, digit })
            }
            Watched::PlayFinished { session_id, play_id } => {
                (session_id, Input::PlayFinished { play_id })
            }
            Watched::Kicked { session_id, conference } => {
                (session_id, Input::Kicked { conference })
            }
            Watched::Inactive { session_id } => (session_id, Input::MediaInactive),
            Watched::Sessions { url, asked, sessions } => {
                return self.compare(&url, asked, sessions);
            }
        };
        if let Some(id) = self.calls.of_session(&session_id).cloned() {
            self.feed(&id, input);
        }
    }

    /// Deletes the sessions of calls that nobody has any more, and ends the calls whose session is
    /// gone: silence for ever would be worse.
    fn compare(&mut self, url: &str, asked: Instant, sessions: Vec<crate::media::Session>) {
        let known: HashSet<&str> = sessions.iter().map(|it| it.session_id.as_str()).collect();
        let lost = self.calls.iter_live().filter(|(_, entry)| {
            *entry.media.url == *url
                && entry.media_since.is_some_and(|since| since < asked)
                && !known.contains(entry.session_id.as_str())
        });
        let lost: Vec<CallId> = lost.map(|(id, _)| id.clone()).collect();
        for id in lost {
            info!(call_id = %id, "media-relay has lost the session");
            self.feed(&id, Input::MediaLost);
        }
        for session in sessions {
            if self.calls.of_session(&session.session_id).is_none() {
                self.delete_orphan(url, session);
            }
        }
    }

    /// Frees a session that no live call has. If the call is not one of ours that has ended, an
    /// earlier process has left it behind, and others must hear of its end; unless another sip-edge
    /// goes on with it, and has not told media-relay yet.
    fn delete_orphan(&mut self, url: &str, orphan: crate::media::Session) {
        let subject = crate::media::Subject {
            session_id: orphan.session_id.clone(),
            call_id: orphan.call_id.clone(),
            signalling_source: String::new(),
        };
        let command = call::MediaCommand::Delete { side: None };
        let delete = self.relay(&orphan.call_id, url).perform(subject, command);
        let is_ours = self.calls.get(&orphan.call_id).is_some();
        let kept = self.keeping.is_kept(orphan.call_id.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            if !is_ours && kept.await {
                return;
            }
            info!(call_id = orphan.call_id, "deleting the media session of a call that is over");
            metrics::orphan_deleted();
            if !is_ours {
                events.emit_orphan(orphan.call_id, orphan.session_id);
            }
            drop(delete.await);
        });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.user_agent.poll_timeout(), self.calls.poll_timeout()];
        let timeouts = own.into_iter().chain([self.keeping.poll_timeout()]);
        timeouts.flatten().min()
    }

    fn handle_timeouts(&mut self) {
        let at = Instant::now();
        if self.user_agent.poll_timeout().is_some_and(|due| due <= at) {
            self.user_agent.handle_timeout(at);
        }
        while let Some(id) = self.calls.take_due(at) {
            if let Some(entry) = self.calls.get_mut(&id) {
                entry.call.handle_timeout(now());
            }
            self.dirty.push_back(id);
        }
        self.calls.forget_ended(at);
        self.keep_due(at);
    }

    /// No new calls from now on.
    fn drain(&mut self) {
        self.draining = true;
        self.user_agent.drain();
    }

    fn report_drain(&mut self) {
        let empty =
            self.calls.live() == 0 && self.user_agent.dialogs() == 0 && self.chains.is_empty();
        if empty && self.draining {
            self.drained.send_replace(true);
        }
        if empty && let Some(done) = self.shut_down.take() {
            let _ = done.send(()); // Nobody waits any more.
        }
    }

    /// Ends all calls, because the process ends; those that can be kept go on elsewhere, if there is
    /// another sip-edge.
    pub(crate) fn shut_down(&mut self, done: oneshot::Sender<()>) {
        self.drain();
        let (ended, all_ended) = oneshot::channel();
        self.shut_down = Some(ended);
        let has_peers = !self.keeping.peers.urls().is_empty();
        let handed_over = has_peers.then(|| self.hand_over());
        for id in self.calls.live_ids() {
            self.feed(&id, Input::ShutDown);
        }
        tokio::spawn(async move {
            if let Some(handed_over) = handed_over {
                handed_over.await;
            }
            let _ = all_ended.await; // Gone only if the loop died.
            let _ = done.send(()); // Nobody may wait any more.
        });
    }
}

pub(crate) fn now() -> Now {
    Now { instant: Instant::now(), unix_ms: boot::unix_ms() }
}

pub(crate) fn unix_s() -> u64 {
    u64::try_from(boot::unix_ms() / 1_000).unwrap_or(0)
}

fn leg_end(end: End) -> LegEnd {
    match end {
        End::Bye { reason } => LegEnd::Bye { reason },
        End::Cancelled { reason } => LegEnd::Cancelled { reason },
        End::Rejected { status, reason, .. } => LegEnd::Rejected { status, reason },
        End::TimedOut => LegEnd::TimedOut,
        End::TransportFailed => LegEnd::TransportFailed,
        End::HungUp { bye_status } => LegEnd::HungUp { status: bye_status },
    }
}
