//! Doing what a call asks for: SIP orders at once, commands beside the loop, events, answers.

use crate::calls::{CallId, Slot};
use crate::chain::Service;
use crate::edge::{Edge, now};
use crate::forks::Fork;
use crate::resolve::{NextHop, NextHops, Resolved};
use crate::wall_clock::WallClock;
use crate::{keeping, media, metrics, queue};
use bytes::Bytes;
use call::{
    Cause, CommandNumber, Input, LegEnd, LegNumber, LegSignal, MediaCommand, Output, QueueCommand,
    SchedulerCommand, SipOrder, View, Warning,
};
use sip::{Hangup, InviteError, LegId, OutboundInvite, Rejection};
use std::collections::VecDeque;
use std::time::Instant;
use tracing::{info, warn};

impl Edge {
    pub(crate) fn perform(&mut self, id: &CallId, output: Output) {
        match output {
            Output::Sip { leg, order } => {
                self.perform_sip(id, leg, order);
                self.drain_user_agent(); // What is ordered is on the wire before anybody is told.
            }
            Output::Media { number, command } => self.perform_media(id, number, command),
            Output::Queue { number, command } => self.perform_queue(id, number, command),
            Output::Scheduler { number, command } => self.perform_scheduler(id, number, command),
            Output::Event { event, call } => self.emit(id, event, *call),
            Output::Answer { request, answer } => self.answer_waiting(id, request, answer),
        }
    }

    fn perform_sip(&mut self, id: &CallId, number: LegNumber, order: SipOrder) {
        if let SipOrder::Invite { target, sdp, headers } = order {
            if let Some(entry) = self.calls.get_mut(id).filter(|_| !headers.is_empty()) {
                entry.leg_headers = Some((number, headers));
            }
            return self.invite(id, number, &target, sdp);
        }
        let slot = self.calls.get(id).and_then(|entry| entry.legs.get(&number)).cloned();
        let at = Instant::now();
        match (slot, order) {
            (Some(Slot::Live(leg)), SipOrder::Ring { status }) => {
                self.user_agent.ring(at, leg, status, None);
            }
            (Some(Slot::Live(leg)), SipOrder::Answer { sdp }) => {
                self.user_agent.answer(at, leg, sdp);
            }
            (Some(Slot::Live(leg)), SipOrder::Reject { status, warning, retry_after_s }) => {
                self.reject(leg, status, warning, retry_after_s);
            }
            (Some(Slot::Live(leg)), SipOrder::Hangup { reason, unanswered_status }) => {
                self.forget_others(leg);
                for leg in self.branches(id, number, leg) {
                    let hangup = Hangup { reason: Some(reason.clone()), unanswered_status };
                    self.user_agent.hangup(at, leg, hangup);
                }
            }
            (Some(Slot::Borrowed(leg)), SipOrder::Reinvite { sdp }) => {
                self.offer_borrowed(leg, sdp)
            }
            (Some(Slot::Borrowed(leg)), SipOrder::Take) => self.take(leg),
            (Some(Slot::Borrowed(leg)), SipOrder::Hangup { unanswered_status, .. }) => {
                self.give_back(leg, unanswered_status);
            }
            (Some(Slot::Live(leg)), SipOrder::AcceptRefer) => {
                self.user_agent.accept_refer(at, leg);
            }
            (Some(Slot::Live(leg)), SipOrder::RejectRefer { status }) => {
                self.user_agent.reject_refer(at, leg, status);
            }
            (Some(Slot::Live(leg)), SipOrder::NotifyRefer { status }) => {
                self.user_agent.notify_refer(at, leg, status);
            }
            // Its lookup will find nobody who wants to know.
            (Some(Slot::Resolving), SipOrder::Hangup { .. }) => {
                if let Some(entry) = self.calls.get_mut(id) {
                    entry.legs.remove(&number);
                }
            }
            _ => (), // The leg has ended.
        }
    }

    fn reject(
        &mut self,
        leg: LegId,
        status: u16,
        warning: Option<Warning>,
        retry_after_s: Option<u32>,
    ) {
        let advertised = self.settings.advertised.first();
        let warning = warning.map(|Warning { code, text }| {
            ("Warning".to_owned(), format!("{code} {advertised} \"{text}\""))
        });
        let retry_after = retry_after_s.map(|it| ("Retry-After".to_owned(), it.to_string()));
        let headers = warning.into_iter().chain(retry_after).collect();
        self.user_agent.reject(Instant::now(), leg, Rejection { status, headers });
    }

    fn invite(&mut self, id: &CallId, leg: LegNumber, target: &str, sdp: Bytes) {
        if let Some(entry) = self.calls.get_mut(id) {
            entry.legs.insert(leg, Slot::Resolving);
        }
        if let Some(next_hops) = self.resolve(id, leg, target, &sdp) {
            self.handle_resolved(Resolved { call: id.clone(), leg, sdp, next_hops });
        }
    }

    /// Sends the INVITE of a leg whose next hop is known now, if the leg is still wanted.
    pub(crate) fn handle_resolved(&mut self, resolved: Resolved) {
        let Resolved { call: id, leg: number, sdp, next_hops } = resolved;
        let Some(entry) = self.calls.get_mut(&id) else { return };
        if !matches!(entry.legs.get(&number), Some(Slot::Resolving)) || entry.call.has_ended() {
            return;
        }
        let sent = match next_hops {
            Ok(NextHops::InTurn(next_hops)) => self.invite_in_turn(&id, number, &sdp, next_hops),
            Ok(NextHops::AtOnce(next_hops)) => self.invite_all(&id, number, &sdp, next_hops),
            Err(cause) => Err(cause),
        };
        match sent {
            Ok(leg) => {
                let sip_call_id = self.user_agent.call_id(leg).unwrap_or_default().to_owned();
                if let Some(entry) = self.calls.get_mut(&id) {
                    entry.legs.insert(number, Slot::Live(leg));
                    entry.name_leg(number, sip_call_id);
                }
                self.drain_user_agent();
            }
            Err(cause) => {
                if let Some(entry) = self.calls.get_mut(&id) {
                    entry.legs.remove(&number); // A caller may wait through many attempts.
                }
                let signal = LegSignal::Ended(LegEnd::Unresolved { cause });
                self.feed(&id, Input::Leg { leg: number, signal });
            }
        }
    }

    /// The first now; the others are kept for when it is dead.
    fn invite_in_turn(
        &mut self,
        id: &CallId,
        number: LegNumber,
        sdp: &Bytes,
        mut next_hops: VecDeque<NextHop>,
    ) -> Result<LegId, Cause> {
        let first = next_hops.pop_front().ok_or(Cause::NoRouteDestination)?;
        let (peer, tcp_if_large) = (first.peer, first.tcp_if_large);
        let leg = self.send_invite(id, number, first, sdp)?;
        self.legs.insert(leg, (id.clone(), number));
        if tcp_if_large && self.user_agent.transport(leg) == Some(peer.transport) {
            next_hops.pop_front(); // The same once more, for when TCP is not spoken there.
        }
        self.keep_others(leg, sdp.clone(), next_hops);
        Ok(leg)
    }

    /// To all phones of a user; the first leg, which stands for the others.
    fn invite_all(
        &mut self,
        id: &CallId,
        number: LegNumber,
        sdp: &Bytes,
        next_hops: Vec<NextHop>,
    ) -> Result<LegId, Cause> {
        let sent = next_hops.into_iter().map(|it| self.send_invite(id, number, it, sdp));
        let sent: Vec<Result<LegId, Cause>> = sent.collect();
        let legs: Vec<LegId> = sent.iter().filter_map(|it| it.as_ref().ok()).copied().collect();
        let first = sent.into_iter().reduce(Result::or).unwrap_or(Err(Cause::UserNotRegistered))?;
        for leg in &legs {
            self.legs.insert(*leg, (id.clone(), number));
        }
        self.forks.insert((id.clone(), number), Fork::new(legs));
        Ok(first)
    }

    fn send_invite(
        &mut self,
        id: &CallId,
        number: LegNumber,
        next_hop: NextHop,
        sdp: &Bytes,
    ) -> Result<LegId, Cause> {
        let NextHop { uri: target, peer, name, tcp_if_large, trunk } = next_hop;
        if let Some(name) = name {
            self.transports.expect_name(peer.addr, &name);
        }
        let entry = self.calls.get(id).ok_or(Cause::NormalTemporaryFailure)?;
        let record = trunk.as_ref().and_then(|trunk| trunk.record());
        let invite = OutboundInvite {
            target,
            peer,
            from_uri: record.unwrap_or_else(|| entry.our_uri.clone()),
            from_display: entry.our_display.clone(),
            max_forwards: entry.max_forwards,
            sdp: sdp.clone(),
            headers: entry.invite_headers(number),
            credentials: trunk.and_then(|trunk| trunk.credentials.clone()),
            tcp_if_large,
        };
        self.user_agent.invite(Instant::now(), invite).map_err(|e| {
            warn!(call_id = %id, "failed to send INVITE: {}", without_uri(&e));
            match e {
                InviteError::Full { .. } => Cause::SwitchCongestion,
                _ => Cause::InvalidUrl,
            }
        })
    }

    fn perform_media(&mut self, id: &CallId, number: CommandNumber, command: MediaCommand) {
        let Some(entry) = self.calls.get(id) else { return };
        let subject = media::Subject {
            session_id: entry.session_id.clone(),
            call_id: id.to_string(),
            signalling_source: entry.source.clone(),
        };
        let discardable = matches!(command, MediaCommand::InjectDtmf { .. });
        let command = boot::of_call(id, entry.media.clone().perform(subject, command));
        if !self.chains.push(id, Service::MediaRelay, number, command, discardable) {
            metrics::digit_discarded();
        }
    }

    fn perform_queue(&mut self, id: &CallId, number: CommandNumber, command: QueueCommand) {
        let asked_unix_us = match &command {
            QueueCommand::Enqueue { since, .. } => {
                self.wall_clock = self.wall_clock.or(WallClock::read());
                self.wall_clock.unix_us(*since)
            }
            _ => 0,
        };
        let Some(entry) = self.calls.get(id) else { return };
        let subject = queue::Subject {
            asked_unix_us,
            call_id: id.to_string(),
            request_uri: entry.call.facts().to_uri.clone(),
            from_uri: entry.call.facts().from_uri.clone(),
            from: entry.from.clone(),
            contact: entry.contact.clone(),
        };
        let command = boot::of_call(id, self.services.queues.clone().perform(subject, command));
        self.chains.push(id, Service::QueueSvc, number, command, false);
    }

    fn perform_scheduler(&mut self, id: &CallId, number: CommandNumber, command: SchedulerCommand) {
        let Some(entry) = self.calls.get(id) else { return };
        // Not of the call_id, which a client may use again, and we may not remember.
        let key = format!("{}/{}", entry.session_id, number.0);
        let is_repeatable = !matches!(command, SchedulerCommand::Schedule { .. });
        let command = self.services.scheduler.clone().perform(id.to_string(), key, command);
        let command = boot::of_call(id, command);
        let kept = if is_repeatable { None } else { self.keep_now(id) };
        let command = keeping::after(kept, command);
        self.chains.push(id, Service::Scheduler, number, command, false);
    }

    fn emit(&mut self, id: &CallId, event: call::Event, view: View) {
        let Some(entry) = self.calls.get(id) else { return };
        if let (call::Event::Ended, Some((cause, by))) = (&event, view.end) {
            metrics::call_ended(cause);
            info!(call_id = %id, cause = cause.name(), ?by, "call ended");
        } else if !matches!(event, call::Event::Digit { .. }) {
            info!(call_id = %id, state = ?view.state, action = view.action, "{}", name(&event));
        }
        self.events.emit(event, entry.show(view));
    }

    pub(crate) fn ask(&mut self, id: &CallId, request: call::RequestNumber, ask: call::Ask) {
        if let Some(entry) = self.calls.get_mut(id) {
            entry.call.handle(now(), Input::Asked { request, ask });
            self.mark(id.clone());
        }
    }
}

fn name(event: &call::Event) -> &'static str {
    match event {
        call::Event::Created => "created",
        call::Event::Ringing { .. } => "ringing",
        call::Event::Answered => "answered",
        call::Event::Action => "action",
        call::Event::Digit { .. } => "digit",
        call::Event::Connected { .. } => "connected",
        call::Event::Parted => "parted",
        call::Event::RingFailed { .. } => "ring failed",
        call::Event::Held => "held",
        call::Event::Resumed => "resumed",
        call::Event::Replaced => "replaced",
        call::Event::Released { .. } => "released",
        call::Event::Ended => "ended",
    }
}

/// URIs of people do not belong into logs.
fn without_uri(e: &InviteError) -> String {
    match e {
        InviteError::Uri { field, .. } => format!("{field} is no SIP URI"),
        InviteError::Header { name, .. } => format!("header {name:?} cannot be added"),
        InviteError::Full { max } => format!("{max} dialogs are the most at once"),
    }
}
