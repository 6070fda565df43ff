//! What the core orders: rows are noted; the rest is done when they are on disk.

use super::request::Failure;
use super::step::{Step, Undo};
use super::{CHANGES_MAX, Unwritten, Work};
use crate::grpc::RingAnswer;
use crate::store::{Change, Write, WriteAgent};
use crate::{events, metrics};
use boot::unix_ms;
use queue::{CallId, Output, RingEnded};
use std::mem::take;
use tracing::info;

impl Work {
    /// Drains the core's outputs into `step`: rows are noted; what need not wait for them is done.
    pub(super) fn finish(&mut self, mut step: Step) {
        while let Some(output) = self.queues.poll_output() {
            self.take_output(&mut step, output);
        }
        if step.is_empty() {
            return;
        }
        let alone = self.leases.is_sole();
        let hopeless = alone && self.store_failed_at.is_some() && step.undo.is_none();
        let waits = step.has_rows || step.undo.is_some() && !self.all_is_written();
        if hopeless {
            self.carry(take(&mut step.changes));
        }
        if hopeless || !waits { self.complete(step) } else { self.steps.push(step) }
    }

    fn take_output(&mut self, step: &mut Step, output: Output) {
        match output {
            Output::Save(caller) => {
                let call_id = caller.call_id.clone();
                self.unwritten.callers.insert(call_id, Write::Save(caller));
                step.has_rows = true;
            }
            Output::Delete(call_id) => {
                self.unwritten.callers.insert(call_id, Write::Delete);
                step.has_rows = true;
            }
            Output::SaveAgent { agent, memberships_changed } => {
                let name = agent.name().clone();
                self.unwritten.put_agent(name, WriteAgent::Save { agent, memberships_changed });
                step.has_rows = true;
            }
            Output::DeleteAgent(name) => {
                self.unwritten.put_agent(name, WriteAgent::Delete);
                step.has_rows = true;
            }
            Output::Publish(event) => {
                self.log_if_wanted(&event);
                step.changes.push(events::of_caller(&event));
                step.has_rows = true;
            }
            Output::PublishAgent(event) => {
                let (agent, state, reason) = (&event.agent, event.state.word(), &event.reason);
                let call_id = event.call_id.as_ref().map(CallId::as_str);
                info!(call_id, %agent, state, reason, "agent");
                step.changes.push(events::of_agent(&event));
                step.has_rows = true;
            }
            Output::StopRinging { call_id, assignment_id } => {
                let edge = self.edge.clone();
                tokio::spawn(async move { edge.stop_ringing(&call_id, &assignment_id).await });
            }
            Output::Check(call_id) => self.check(call_id),
            Output::Ring { .. }
            | Output::Exit { .. }
            | Output::Move { .. }
            | Output::Announce { .. } => step.effects.push(output),
        }
    }

    /// A queue's `debug`. The reason may name people, so it is left to those who watch.
    fn log_if_wanted(&self, event: &queue::Event) {
        if self.queues.queue_by_id(event.caller.queue).is_ok_and(|it| it.row().debug) {
            let (call_id, queue, kind) = (&event.caller.call_id, &event.queue, event.kind);
            let (position, waiting) = (event.position, event.in_queue);
            let assignment_id = event.assignment.as_ref().map_or("", |it| it.id.as_str());
            info!(%call_id, queue, ?kind, position, waiting, assignment_id, "debug of a queue");
        }
    }

    /// Changes that are written when it is possible; without bound they are not kept.
    fn carry(&mut self, changes: Vec<Change>) {
        let kept = &mut self.unwritten.changes;
        kept.extend(changes);
        if kept.len() > CHANGES_MAX {
            let lost = kept.len() - CHANGES_MAX;
            kept.drain(..lost);
            metrics::count_lost_changes(lost);
        }
    }

    fn check(&self, call_id: CallId) {
        let (edge, desk, checks) = (self.edge.clone(), self.desk.clone(), self.checks.clone());
        tokio::spawn(async move {
            let _permit = checks.acquire_owned().await;
            let found = edge.check(&call_id).await;
            desk.checked(call_id, found).await;
        });
    }

    /// The rows are on disk, or need not be.
    pub(super) fn complete(&mut self, step: Step) {
        for effect in step.effects {
            self.perform(effect);
        }
        if let Some(reply) = step.reply {
            reply(None);
        }
    }

    fn perform(&mut self, effect: Output) {
        let (edge, desk) = (self.edge.clone(), self.desk.clone());
        match effect {
            Output::Ring { call_id, assignment } => {
                // The caller may have left while the rows were written.
                let held = self.queues.is_held(&assignment.id);
                let resumed = !assignment.id.as_str().starts_with(&self.id_prefix);
                tokio::spawn(async move {
                    let answer = match held {
                        true => edge.ring(&call_id, &assignment, resumed).await,
                        false => RingAnswer::CallerGone,
                    };
                    desk.ring_ended(assignment, answer).await;
                });
            }
            Output::Exit { call_id, to } => {
                info!(%call_id, to = to.as_ref().map_or("its plan", |_| "overflow"), "sent on");
                tokio::spawn(async move { edge.send_on(&call_id, to.as_ref()).await });
            }
            Output::Move { call_id, queue, music } => {
                info!(%call_id, queue, "moved to another queue");
                tokio::spawn(async move { edge.move_to(&call_id, queue, music).await });
            }
            Output::Announce { call_id, files } => {
                let files = self.below_prompts(files);
                tokio::spawn(async move { edge.announce(&call_id, files).await });
            }
            _ => unreachable!("rows and checks are taken by `take_output`"),
        }
    }

    /// Our own words lie in the folder of prompts, the queues' files where their rows say.
    fn below_prompts(&self, files: Vec<String>) -> Vec<String> {
        let spoken = |file: String| match file.strip_prefix(queue::PROMPTS) {
            Some(word) => format!("{}/{word}", self.prompts),
            None => file,
        };
        files.into_iter().map(spoken).collect()
    }

    /// The rows could not be written: takes back what must not be without them.
    pub(super) fn fail(&mut self, mut step: Step, unwritten: &Unwritten) {
        let why = unwritten.why.as_str();
        let Some(undo) = step.undo.take() else {
            self.carry(take(&mut step.changes));
            return self.complete(step);
        };
        let now = unix_ms();
        let call_id = match undo {
            Undo::Join(call_id) => {
                self.uncommitted.remove(&call_id);
                let departure = queue::Departure::WentOn;
                let _ = self.queues.handle_leave(now, &call_id, departure, "not written");
                Some(call_id)
            }
            Undo::Reserve(assignment_id) => {
                let ended = RingAnswer::Unavailable(why.to_owned()).ended();
                let resolution = self.queues.handle_ring_ended(now, &assignment_id, ended);
                if let Some(waiter) = self.waiters.remove(&assignment_id) {
                    waiter.refuse(Failure::Store(why.to_owned()));
                }
                resolution.map(|it| it.call_id)
            }
        };
        for effect in take(&mut step.effects) {
            if let Output::Ring { assignment, .. } = effect {
                // It never rang.
                let _ = self.queues.handle_ring_ended(now, &assignment.id, RingEnded::HungUp);
            }
        }
        let mut after = Step::default();
        while let Some(output) = self.queues.poll_output() {
            match output {
                // Nobody has heard of what is taken back, unless it was written after all.
                Output::Publish(event)
                    if !unwritten.in_doubt && Some(&event.caller.call_id) == call_id.as_ref() => {}
                output => self.take_output(&mut after, output),
            }
        }
        self.finish(after);
        if let Some(reply) = step.reply {
            reply(Some(Failure::Store(why.to_owned())));
        }
    }
}
