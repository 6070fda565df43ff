//! What to do when: claims tasks that are due, has their effect brought about, and ends them.
//!
//! A task goes claim → perform → settle. Each step is an [`Output`] for the shell, which answers it
//! with an [`Input`]. Only [`IN_FLIGHT_MAX`] tasks are between two answers at a time, taken in the
//! order of their deadlines; a task whose effect got no answer gives up its place and goes back into
//! the wheel, so that a slow call delays nobody.
//!
//! The agenda decides from nothing but what the store has committed: it claims a task in the
//! revision it knows, and a claim that the store does not grant is forgotten.

use crate::task::{Answer, Effect, TaskId, Verdict};
use crate::{Handle, Tick, Wheel};
use std::collections::{HashMap, VecDeque};

/// Tasks between claim and settlement at a time.
pub const IN_FLIGHT_MAX: usize = 256;
/// Wait after the first attempt without an answer; doubled after each further one.
const RETRY_MIN_MS: u64 = 50;
/// Longest wait between two attempts, unless very many tasks wait for one.
const RETRY_MAX_MS: u64 = 2_000;
/// Repeated attempts of all tasks together are not more per ms: a sip-edge that is away must not
/// cost a core, nor be trampled when it is back.
const RETRIES_PER_MS: u64 = 2;
/// Wait after the store has failed.
const STORE_RETRY_MS: u64 = 250;
/// An effect that got no answer for so long, in ms, is given up: a day, as long as the bus keeps
/// the news of a call's end.
const GIVE_UP_MS: u64 = 24 * 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The store has committed it as pending, new or with another time.
    Armed { revision: i64, due: Tick },
    /// The store had it as firing when the process began: its effect may have happened.
    Resumed { revision: i64, due: Tick },
    /// The store has committed its end.
    Ended,
    /// Answers `Claim`: the task is firing, and this is its effect.
    Claimed(Effect),
    /// Answers `Claim`: the task is no longer pending in that revision.
    NotClaimed,
    /// Answers `Perform`.
    Answered(Answer),
    /// Answers `Settle`: its end is committed.
    Settled,
    /// Answers `Claim` or `Settle`: nothing was written.
    StoreFailed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Compare-and-set: from pending in this revision to firing. With `again` it is firing already.
    Claim { task: TaskId, revision: i64, again: bool },
    /// Bring about the effect; idempotent by the task's id.
    Perform { task: TaskId, effect: Effect },
    /// Write the end of the task.
    Settle { task: TaskId, verdict: Verdict, late_ms: u64, result: String },
}

pub struct Agenda {
    wheel: Wheel<TaskId>,
    tasks: HashMap<TaskId, Task>,
    outputs: VecDeque<Output>,
    in_flight: usize,
    backed_off: u64,
    draining: bool,
}

struct Task {
    revision: i64,
    due: Tick,
    phase: Phase,
}

enum Phase {
    /// In the wheel until due; pending in the store, or firing if found so at the start.
    Waiting { handle: Handle, again: bool },
    /// In flight. `moved` if the store has given it another time meanwhile: the claim will fail.
    Claiming { again: bool, moved: Option<(i64, Tick)> },
    /// In flight.
    Performing(Box<Firing>),
    /// In the wheel until the next attempt.
    BackedOff(Box<Firing>),
    /// In flight.
    Settling(Box<Settlement>),
    /// In the wheel until the store is tried again.
    Unsettled(Box<Settlement>),
}

struct Firing {
    effect: Effect,
    began: Tick,
    attempts: u32,
}

struct Settlement {
    verdict: Verdict,
    late_ms: u64,
    result: String,
}

impl Agenda {
    /// An empty agenda for at most `tasks_max` tasks, none of which is due before `start`; earlier
    /// ones count as due at `start`.
    pub fn new(start: Tick, tasks_max: u32) -> Self {
        Self {
            wheel: Wheel::new(start, tasks_max),
            tasks: HashMap::new(),
            outputs: VecDeque::new(),
            in_flight: 0,
            backed_off: 0,
            draining: false,
        }
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Outputs that have not been answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins nothing more, and tries nothing again; what is in flight goes on to its settlement.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Agenda::handle_timeout`]; `None` while no more may be in flight.
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.may_begin().then(|| self.wheel.poll_timeout()).flatten()
    }

    pub fn handle_timeout(&mut self, now: Tick) {
        while self.may_begin() {
            let Some((_, id)) = self.wheel.pop(now) else { break };
            self.begin(id);
        }
    }

    /// All that can happen to a task, by its phase; one arrow, one line.
    ///
    /// # Panics
    /// If more tasks are armed than [`Agenda::new`] was told.
    pub fn handle(&mut self, now: Tick, id: TaskId, input: Input) {
        use {Input as I, Phase as P};
        let Some(task) = self.tasks.remove(&id) else {
            match input {
                I::Armed { revision, due } => self.wait(id, revision, due, due, false),
                I::Resumed { revision, due } => self.wait(id, revision, due, due, true),
                _ => (), // The end of a task that we had forgotten already.
            }
            return self.handle_timeout(now);
        };
        let Task { revision, due, phase } = task;
        match (phase, input) {
            (P::Waiting { handle, again }, I::Armed { revision, due }) => {
                self.wheel.cancel(handle);
                self.wait(id, revision, due, due, again);
            }
            (P::Waiting { handle, .. }, I::Ended) => drop(self.wheel.cancel(handle)),
            (P::Claiming { again, .. }, I::Armed { revision: to, due: at }) => {
                let moved = Some((to, at));
                self.keep(id, revision, due, P::Claiming { again, moved });
            }
            (P::Claiming { .. }, I::Claimed(effect)) => {
                self.land();
                let firing = Firing { effect, began: now, attempts: 0 };
                self.perform(id, revision, due, Box::new(firing));
            }
            (P::Claiming { moved: None, .. }, I::NotClaimed) => self.land(),
            (P::Claiming { again, moved: Some((revision, due)) }, I::NotClaimed) => {
                self.land();
                self.wait(id, revision, due, due, again);
            }
            (P::Claiming { again, moved }, I::StoreFailed) => {
                self.land();
                let (revision, due) = moved.unwrap_or((revision, due));
                self.wait(id, revision, due, due.max(now + STORE_RETRY_MS), again);
            }
            (P::Performing(firing), I::Answered(answer)) => {
                self.land();
                match judge(answer, now, &firing) {
                    Ok((verdict, result)) => {
                        let late_ms = firing.began.saturating_sub(due);
                        let settlement = Settlement { verdict, late_ms, result };
                        self.settle(id, revision, due, Box::new(settlement));
                    }
                    Err(Unanswered) => self.back_off(now, id, revision, due, firing),
                }
            }
            (P::Settling(_), I::Settled) => self.land(),
            (P::Settling(settlement), I::StoreFailed) => {
                self.land();
                self.file(now + STORE_RETRY_MS, id);
                self.keep(id, revision, due, P::Unsettled(settlement));
            }
            // The news of a change that we have asked for ourselves, or a repetition.
            (phase, _) => self.keep(id, revision, due, phase),
        }
        self.handle_timeout(now);
    }

    fn may_begin(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX && !self.draining
    }

    /// What is due goes on with its next step.
    fn begin(&mut self, id: TaskId) {
        let task = self.tasks.remove(&id).expect("what is in the wheel is a task");
        let Task { revision, due, phase } = task;
        match phase {
            Phase::Waiting { again, .. } => {
                self.in_flight += 1;
                self.outputs.push_back(Output::Claim { task: id, revision, again });
                self.keep(id, revision, due, Phase::Claiming { again, moved: None });
            }
            Phase::BackedOff(firing) => {
                self.backed_off -= 1;
                self.perform(id, revision, due, firing);
            }
            Phase::Unsettled(settlement) => self.settle(id, revision, due, settlement),
            Phase::Claiming { .. } | Phase::Performing(_) | Phase::Settling(_) => {
                unreachable!("{id} is in flight and in the wheel")
            }
        }
    }

    fn wait(&mut self, id: TaskId, revision: i64, due: Tick, at: Tick, again: bool) {
        let handle = self.file(at, id);
        self.keep(id, revision, due, Phase::Waiting { handle, again });
    }

    fn perform(&mut self, id: TaskId, revision: i64, due: Tick, mut firing: Box<Firing>) {
        firing.attempts = firing.attempts.saturating_add(1);
        self.in_flight += 1;
        self.outputs.push_back(Output::Perform { task: id, effect: firing.effect.clone() });
        self.keep(id, revision, due, Phase::Performing(firing));
    }

    fn back_off(&mut self, now: Tick, id: TaskId, revision: i64, due: Tick, firing: Box<Firing>) {
        self.backed_off += 1;
        let wait_ms = retry_after_ms(firing.attempts).max(self.backed_off / RETRIES_PER_MS);
        self.file(now + wait_ms, id);
        self.keep(id, revision, due, Phase::BackedOff(firing));
    }

    fn settle(&mut self, id: TaskId, revision: i64, due: Tick, settlement: Box<Settlement>) {
        self.in_flight += 1;
        let Settlement { verdict, late_ms, result } = &*settlement;
        let (verdict, late_ms, result) = (*verdict, *late_ms, result.clone());
        self.outputs.push_back(Output::Settle { task: id, verdict, late_ms, result });
        self.keep(id, revision, due, Phase::Settling(settlement));
    }

    /// An output has been answered.
    fn land(&mut self) {
        self.in_flight -= 1;
    }

    fn file(&mut self, at: Tick, id: TaskId) -> Handle {
        self.wheel.insert(at, id).expect("the store admits no more tasks than the agenda")
    }

    fn keep(&mut self, id: TaskId, revision: i64, due: Tick, phase: Phase) {
        self.tasks.insert(id, Task { revision, due, phase });
    }
}

/// The attempt is to be repeated.
struct Unanswered;

/// How an answer ends a task, and what to tell about it.
fn judge(answer: Answer, now: Tick, firing: &Firing) -> Result<(Verdict, String), Unanswered> {
    match answer {
        Answer::Done(said) => Ok((Verdict::Done, said)),
        // An attempt of ours, of which we lost the answer.
        Answer::AlreadyEnded { said, by_this_task: true } => Ok((Verdict::Done, said)),
        Answer::AlreadyEnded { said, .. } => Ok((Verdict::CallGone, said)),
        Answer::NoSuchCall => Ok((Verdict::CallGone, "no such call".to_owned())),
        Answer::Refused(why) => Ok((Verdict::Refused, why)),
        Answer::Unanswered(why) if now.saturating_sub(firing.began) >= GIVE_UP_MS => {
            let attempts = firing.attempts;
            Ok((Verdict::Refused, format!("given up after {attempts} attempts in a day: {why}")))
        }
        Answer::Unanswered(_) => Err(Unanswered),
    }
}

/// Exponential back-off after so many attempts, 1 or more.
fn retry_after_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (RETRY_MIN_MS << doublings).min(RETRY_MAX_MS)
}

#[cfg(test)]
mod tests;
