//! What to do when: claims tasks that are due, has their effects brought about, and settles them.
//!
//! A task goes claim → attempt → settlement, and back to waiting if it repeats. Steps go out as
//! [`Output`]s that carry many, and come back with an answer for each. The agenda decides from nothing
//! but what the store has committed: it claims a task in the revision it knows, and forgets it if the
//! store does not grant that.
//!
//! It knows only tasks of shards that it owns ([`Agenda::own_shard`]). In each [`Lane`] tasks are
//! begun in the order of their deadlines, as many and as fast as [`LaneLimits`] say; one whose effect
//! gets no answer gives up its place and is tried again later. Nothing more is claimed while the
//! store fails; what is overdue stays in order until it is back.

use crate::IdHasher;
use crate::Tick;
use crate::active::{Active, Firing, Phase, Unanswered, conclude, newest, retry_after_ms};
use crate::lane::{CLAIMS_PER_BATCH, LaneLimits, LaneState};
use crate::step::{
    Attempt, Claim, Fence, Granted, Lane, News, Settled, Settlement, Standing, Ticket,
};
use crate::task::{Answer, SHARDS, TaskId};
use crate::waiting::{Due, Waiting};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

/// Settlements in one batch.
pub const SETTLEMENTS_PER_BATCH: usize = 1_000;
/// Attempts in one batch.
pub const ATTEMPTS_PER_BATCH: usize = 1_000;
/// Batches of settlements that wait for the store.
const SETTLE_BATCHES_MAX: usize = 4;
/// Settlements that are not committed; while there are so many, nothing more is claimed.
const UNSETTLED_MAX: usize = 393_216;
/// With so many claims at the store, settlements let them pass first.
const HERD: usize = CLAIMS_PER_BATCH;
/// Repeated attempts of a lane are not more per ms: a sip-edge that is away must not cost a core, nor
/// be trampled when it is back, and what is due for the first time must have its share of the pace.
const RETRIES_PER_MS: usize = 1;
/// Wait after the store has failed.
const STORE_RETRY_MS: u64 = 250;
/// Steps to be taken. Each is to be answered, sooner or later, also if its shard is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Answered by [`Agenda::handle_claimed`].
    Claim { lane: Lane, claims: Vec<Claim> },
    /// Each is answered by [`Agenda::handle_answered`].
    Attempt { lane: Lane, attempts: Vec<Attempt> },
    /// Answered by [`Agenda::handle_settled`].
    Settle { settlements: Vec<Settlement> },
}

/// Nothing of a batch was written, or nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFailed;

pub struct Agenda {
    lanes: Vec<LaneState>,
    waiting: Waiting,
    /// In boxes: a herd makes this grow in the middle of its firing, when there is no time to move much.
    active: HashMap<TaskId, Box<Active>, BuildHasherDefault<IdHasher>>,
    /// By shard: the token under which it is ours.
    owned: [Option<Fence>; SHARDS as usize],
    /// To go out with the next batches.
    settlements: VecDeque<(TaskId, Ticket)>,
    settle_batches: usize,
    /// Tasks that are [`Phase::Settling`].
    unsettled: usize,
    /// Tasks that are [`Phase::Claiming`].
    claiming: usize,
    /// The store failed: it is not asked before then.
    store_at: Tick,
    ticket: Ticket,
    held: bool,
    draining: bool,
}

/// What happens to a task that is active.
enum Input {
    News(News),
    Claimed(Granted),
    NotClaimed,
    ClaimFailed,
    Answered(Answer),
    Settled(Settled),
    NotSettled,
    SettleFailed,
}

impl Agenda {
    /// An agenda that owns no shard, with a lane for each of these limits, numbered from 0.
    pub fn new(lanes: &[LaneLimits]) -> Self {
        Self {
            lanes: lanes.iter().copied().map(LaneState::new).collect(),
            waiting: Waiting::new(lanes.len()),
            active: HashMap::default(),
            owned: [None; SHARDS as usize],
            settlements: VecDeque::new(),
            settle_batches: 0,
            unsettled: 0,
            claiming: 0,
            store_at: 0,
            ticket: 0,
            held: false,
            draining: false,
        }
    }

    /// Tasks that have not ended, as far as they are known.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.active.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tasks with a step that has not been answered.
    pub fn in_flight(&self) -> usize {
        self.active.len() - self.lanes.iter().map(|lane| lane.backed_off).sum::<usize>()
    }

    /// The same of one shard; looks at every task that is due.
    pub fn shard_in_flight(&self, shard: u8) -> usize {
        self.active
            .iter()
            .filter(|(id, task)| id.shard() == shard && !matches!(task.phase, Phase::BackedOff(_)))
            .count()
    }

    /// From now on, news about tasks of this shard count.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn own_shard(&mut self, shard: u8, fence: Fence) {
        self.owned[usize::from(shard)] = Some(fence);
    }

    /// Begins nothing more of this shard, and forgets what waits; what is in flight goes on to its
    /// settlement, see [`Agenda::shard_in_flight`].
    pub fn release_shard(&mut self, shard: u8) {
        self.owned[usize::from(shard)] = None;
        self.waiting.drop_shard(shard);
        self.forget(|id, task| id.shard() == shard && matches!(task.phase, Phase::BackedOff(_)));
    }

    /// Forgets all of this shard; answers that are still to come change nothing.
    pub fn drop_shard(&mut self, shard: u8) {
        self.release_shard(shard);
        self.forget(|id, _| id.shard() == shard);
        for lane in &mut self.lanes {
            lane.claims.retain(|claim| claim.task.shard() != shard);
            lane.attempts.retain(|attempt| attempt.task.shard() != shard);
        }
    }

    /// Claims nothing while `held`: what is overdue in several shards is begun in the order of its
    /// deadlines only when all of it is known.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Begins nothing more, and tries nothing again; what is in flight goes on to its settlement.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Attempts first, then claims, then settlements: lateness before bookkeeping.
    pub fn poll_output(&mut self) -> Option<Output> {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if !lane.attempts.is_empty() {
                let attempts = take(&mut lane.attempts, ATTEMPTS_PER_BATCH);
                return Some(Output::Attempt { lane: Lane(number as u16), attempts });
            }
            if !lane.claims.is_empty() {
                lane.claim_batches += 1;
                let claims = std::mem::take(&mut lane.claims);
                return Some(Output::Claim { lane: Lane(number as u16), claims });
            }
        }
        let settlements = self.settle_batch();
        (!settlements.is_empty()).then_some(Output::Settle { settlements })
    }

    /// When to call [`Agenda::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Tick> {
        let stalled = (self.store_at > 0).then_some(self.store_at);
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(number, _)| self.lane_timeout(number)).chain(stalled).min()
    }

    pub fn handle_timeout(&mut self, now: Tick) {
        if self.store_at <= now {
            self.store_at = 0;
        }
        for number in 0..self.lanes.len() {
            self.retry_what_is_due(number, now);
            self.claim_what_is_due(number, now);
        }
    }

    /// The store has committed changes that we did not ask for.
    pub fn handle_news(&mut self, now: Tick, news: impl IntoIterator<Item = News>) {
        for news in news {
            if self.active.contains_key(&news.task) {
                self.advance(now, news.task, Input::News(news));
            } else if self.waiting.revision(news.task).is_none_or(|known| known < news.revision) {
                self.waiting.remove(news.task);
                self.heed(news);
            }
        }
        self.handle_timeout(now);
    }

    /// The answer to [`Output::Claim`], in the order of the claims; those that are not in it were not
    /// granted.
    ///
    /// # Panics
    /// If something is granted that was not claimed, or in another order.
    pub fn handle_claimed(
        &mut self,
        now: Tick,
        lane: Lane,
        claims: &[Claim],
        answer: Result<Vec<Granted>, StoreFailed>,
    ) {
        self.lane(lane).claim_batches -= 1;
        let failed = self.store_answered(now, answer.is_err());
        let mut granted = answer.unwrap_or_default().into_iter().peekable();
        for Claim { task, ticket, .. } in claims {
            let input = match granted.next_if(|granted| granted.task == *task) {
                Some(granted) => Input::Claimed(granted),
                None if failed => Input::ClaimFailed,
                None => Input::NotClaimed,
            };
            self.answer(now, *task, *ticket, input);
        }
        assert!(granted.next().is_none(), "granted is what was claimed, in that order");
        self.handle_timeout(now);
    }

    /// The answers to attempts of an [`Output::Attempt`], one or more.
    pub fn handle_answered(
        &mut self,
        now: Tick,
        answers: impl IntoIterator<Item = (TaskId, Ticket, Answer)>,
    ) {
        for (task, ticket, answer) in answers {
            self.answer(now, task, ticket, Input::Answered(answer));
        }
        self.handle_timeout(now);
    }

    /// The answer to [`Output::Settle`], in the order of the settlements; those that are not in it were
    /// not written.
    ///
    /// # Panics
    /// If something is settled that was not to be, or in another order.
    pub fn handle_settled(
        &mut self,
        now: Tick,
        settlements: &[Settlement],
        answer: Result<Vec<Settled>, StoreFailed>,
    ) {
        self.settle_batches -= 1;
        let failed = self.store_answered(now, answer.is_err());
        let mut settled = answer.unwrap_or_default().into_iter().peekable();
        for Settlement { task, ticket, .. } in settlements {
            let input = match settled.next_if(|settled| settled.task == *task) {
                Some(settled) => Input::Settled(settled),
                None if failed => Input::SettleFailed,
                None => Input::NotSettled,
            };
            self.answer(now, *task, *ticket, input);
        }
        assert!(settled.next().is_none(), "what is settled was to be, in that order");
        self.handle_timeout(now);
    }

    /// All that can happen to a task that is active, by its phase; one arrow, one line.
    fn advance(&mut self, now: Tick, id: TaskId, input: Input) {
        use {Input as I, Phase as P};
        let Some(mut task) = self.active.remove(&id) else { return };
        match (task.phase, input) {
            (P::Claiming, I::Claimed(granted)) => {
                self.claiming -= 1;
                task.phase = P::Attempting(Firing::new(granted, now));
                task.later = None; // It is FIRING now, whatever was before.
                self.attempt(id, task);
            }
            (P::Claiming, I::NotClaimed) => self.end_claim(task.lane, task.later),
            (P::Claiming, I::ClaimFailed) => {
                self.end_claim(task.lane, None);
                let known = News {
                    task: id,
                    revision: task.revision,
                    now: Standing::Firing { due: task.due, lane: task.lane },
                };
                self.heed(task.later.map_or(known, |later| *later));
            }
            (P::Attempting(firing), I::Answered(answer)) => {
                self.end_attempt(task.lane, &firing);
                match conclude(answer, now, task.due, &firing) {
                    Ok(conclusion) => {
                        task.phase = P::Settling(conclusion);
                        self.settle(id, task);
                    }
                    Err(Unanswered) => {
                        task.phase = P::BackedOff(firing);
                        self.back_off(now, id, task);
                    }
                }
            }
            (P::Settling(conclusion), I::Settled(Settled { pending, .. })) => {
                let next = pending.zip(conclusion.next).map(|(revision, next)| {
                    let due = task.due.saturating_add(next.after_ms);
                    let now = Standing::Waiting { due, lane: task.lane };
                    News { task: id, revision, now }
                });
                self.unsettled -= 1;
                newest(next.as_ref(), task.later.as_deref())
                    .into_iter()
                    .for_each(|news| self.heed(news));
            }
            (P::Settling(_), I::NotSettled) => {
                self.unsettled -= 1;
                task.later.into_iter().for_each(|news| self.heed(*news));
            }
            (P::Settling(conclusion), I::SettleFailed) => {
                self.unsettled -= 1;
                task.phase = P::Settling(conclusion);
                self.settle(id, task);
            }
            // While it is FIRING nobody but us can change it, but a later state may be known before
            // the answer to what led there.
            (phase, I::News(news)) => {
                task.phase = phase;
                if news.revision > task.revision {
                    let later = newest(task.later.as_deref(), Some(&news));
                    task.later = later.map(Box::new);
                }
                self.active.insert(id, task);
            }
            (phase, _) => {
                task.phase = phase; // Not an answer to this step.
                self.active.insert(id, task);
            }
        }
    }

    /// An answer that is out of date changes nothing.
    fn answer(&mut self, now: Tick, id: TaskId, ticket: Ticket, input: Input) {
        if self.active.get(&id).is_some_and(|task| task.ticket == ticket) {
            self.advance(now, id, input);
        }
    }

    /// The task stands like this now, and is not known otherwise.
    fn heed(&mut self, News { task: id, revision, now }: News) {
        let (due, lane, again) = match now {
            Standing::Waiting { due, lane } => (due, lane, false),
            Standing::Firing { due, lane } => (due, lane, true),
            Standing::Gone => return,
        };
        if self.owner_of(id).is_some() {
            self.waiting.insert(lane, Due { id, due, revision, again });
        }
    }

    fn claim_what_is_due(&mut self, number: usize, now: Tick) {
        while self.may_claim(number) && self.lanes[number].ready_at() <= now {
            let lane = Lane(number as u16);
            let Some(due) = self.waiting.pop(lane, now) else { return };
            let Due { id, due, revision, again } = due;
            let fence = self.owner_of(id).expect("what waits is in a shard of ours");
            let ticket = self.next_ticket();
            self.claiming += 1;
            self.lanes[number].begin(now);
            self.lanes[number].claims.push(Claim { task: id, revision, again, fence, ticket });
            let phase = Phase::Claiming;
            let later = None;
            let active = Active { revision, due, lane, fence, ticket, phase, later };
            self.active.insert(id, Box::new(active));
        }
    }

    fn retry_what_is_due(&mut self, number: usize, now: Tick) {
        while self.may_retry(number) && self.lanes[number].ready_at() <= now {
            let Some((_, (id, ticket))) = self.lanes[number].retries.pop(now) else { return };
            let Some(mut task) = self.active.remove(&id) else { continue };
            match task.phase {
                Phase::BackedOff(firing) if task.ticket == ticket => {
                    let lane = &mut self.lanes[number];
                    lane.backed_off -= 1;
                    lane.retrying += 1;
                    lane.begin(now);
                    task.phase = Phase::Attempting(firing);
                    self.attempt(id, task);
                }
                phase => {
                    task.phase = phase; // It was dropped, and is here anew.
                    self.active.insert(id, task);
                }
            }
        }
    }

    fn may_claim(&self, number: usize) -> bool {
        !self.draining
            && !self.held
            && self.store_at == 0
            && self.unsettled < UNSETTLED_MAX
            && self.lanes[number].has_room()
    }

    fn may_retry(&self, number: usize) -> bool {
        !self.draining && self.lanes[number].has_room_to_retry()
    }

    fn lane_timeout(&self, number: usize) -> Option<Tick> {
        let lane = &self.lanes[number];
        let retry = self.may_retry(number).then(|| lane.retries.poll_timeout()).flatten();
        let claim = self.may_claim(number).then(|| self.waiting.poll_timeout(Lane(number as u16)));
        let earliest = retry.into_iter().chain(claim.flatten()).min()?;
        Some(earliest.max(lane.ready_at()))
    }

    fn attempt(&mut self, id: TaskId, mut task: Box<Active>) {
        let Phase::Attempting(firing) = &mut task.phase else { unreachable!("{id} is not firing") };
        task.ticket = self.next_ticket();
        firing.attempts = firing.attempts.saturating_add(1);
        let attempt = Attempt {
            task: id,
            occurrence: firing.occurrence,
            effect: firing.effect.clone(),
            attempt: firing.attempts,
            ticket: task.ticket,
        };
        self.lane(task.lane).attempts.push(attempt);
        self.active.insert(id, task);
    }

    fn back_off(&mut self, now: Tick, id: TaskId, mut task: Box<Active>) {
        if self.owner_of(id).is_none() {
            return; // The next owner tries it again.
        }
        let Phase::BackedOff(firing) = &task.phase else { unreachable!("{id} is not firing") };
        let attempts = firing.attempts;
        task.ticket = self.next_ticket();
        let lane = self.lane(task.lane);
        lane.backed_off += 1;
        let wait_ms = retry_after_ms(attempts).max((lane.backed_off / RETRIES_PER_MS) as u64);
        let filed = lane.retries.insert(now + wait_ms, (id, task.ticket));
        filed.expect("fewer are backed off than a wheel can count");
        self.active.insert(id, task);
    }

    fn settle(&mut self, id: TaskId, mut task: Box<Active>) {
        task.ticket = self.next_ticket();
        self.unsettled += 1;
        self.settlements.push_back((id, task.ticket));
        self.active.insert(id, task);
    }

    /// The next settlements to go out, if any may.
    fn settle_batch(&mut self) -> Vec<Settlement> {
        let mut batch = Vec::new();
        let herd = self.claiming >= HERD && self.unsettled < UNSETTLED_MAX;
        if herd || self.store_at > 0 || self.settle_batches >= SETTLE_BATCHES_MAX {
            return batch;
        }
        while batch.len() < SETTLEMENTS_PER_BATCH
            && let Some((id, ticket)) = self.settlements.pop_front()
        {
            if let Some(task) = self.active.get(&id)
                && let Phase::Settling(conclusion) = &task.phase
                && task.ticket == ticket
            {
                batch.push(conclusion.settlement(id, task.fence, ticket));
            }
        }
        self.settle_batches += usize::from(!batch.is_empty());
        batch
    }

    /// Whether it has failed, as the answer says.
    fn store_answered(&mut self, now: Tick, failed: bool) -> bool {
        if failed {
            self.store_at = now + STORE_RETRY_MS;
        }
        failed
    }

    /// A claim was answered, and did not lead to an attempt.
    fn end_claim(&mut self, lane: Lane, later: Option<Box<News>>) {
        self.claiming -= 1;
        self.lane(lane).begun -= 1;
        later.into_iter().for_each(|news| self.heed(*news));
    }

    fn end_attempt(&mut self, lane: Lane, firing: &Firing) {
        let lane = self.lane(lane);
        lane.begun -= 1;
        lane.retrying -= usize::from(firing.attempts > 1);
    }

    /// Forgets active tasks, as if they had never been.
    fn forget(&mut self, whom: impl Fn(TaskId, &Active) -> bool) {
        let gone: Vec<TaskId> = {
            let active = self.active.iter();
            active.filter(|(id, task)| whom(**id, task)).map(|(id, _)| *id).collect()
        };
        for id in gone {
            let Some(task) = self.active.remove(&id) else { continue };
            match task.phase {
                Phase::Claiming => self.end_claim(task.lane, None),
                Phase::Attempting(firing) => self.end_attempt(task.lane, &firing),
                Phase::BackedOff(_) => self.lane(task.lane).backed_off -= 1,
                Phase::Settling(_) => self.unsettled -= 1,
            }
        }
    }

    fn lane(&mut self, Lane(number): Lane) -> &mut LaneState {
        &mut self.lanes[usize::from(number)]
    }

    /// The token under which the task is ours, if it is.
    fn owner_of(&self, id: TaskId) -> Option<Fence> {
        self.owned[usize::from(id.shard())]
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket = self.ticket.wrapping_add(1);
        self.ticket
    }
}

/// The first `most` of `all`, in their order.
fn take<T>(all: &mut Vec<T>, most: usize) -> Vec<T> {
    if all.len() <= most {
        return std::mem::take(all);
    }
    let rest = all.split_off(most);
    std::mem::replace(all, rest)
}

#[cfg(test)]
mod tests;
