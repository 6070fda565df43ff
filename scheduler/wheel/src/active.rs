//! A task between its time and its end: which step it is at, and what an answer makes of it.

use crate::Tick;
use crate::step::{Fence, Granted, Lane, News, Settlement, Ticket};
use crate::task::{Answer, Effect, Next, Repeat, TaskId, Verdict};
use std::sync::Arc;

/// Wait after the first attempt without an answer; doubled after each further one.
const RETRY_MIN_MS: u64 = 50;
/// Longest wait between two attempts, unless very many tasks wait for one.
pub(crate) const RETRY_MAX_MS: u64 = 2_000;
/// An effect that got no answer for so long, in ms, is given up: a day, as long as the bus keeps
/// the news of a call's end.
pub(crate) const GIVE_UP_MS: u64 = 24 * 3_600_000;

/// A task between its time and its end.
pub(crate) struct Active {
    pub(crate) revision: i64,
    pub(crate) due: Tick,
    pub(crate) lane: Lane,
    pub(crate) fence: Fence,
    /// Of its present step.
    pub(crate) ticket: Ticket,
    pub(crate) phase: Phase,
    /// What came of it meanwhile, if it is known already: the news with the highest revision.
    pub(crate) later: Option<Box<News>>,
}

pub(crate) enum Phase {
    Claiming,
    Attempting(Firing),
    BackedOff(Firing),
    Settling(Conclusion),
}

pub(crate) struct Firing {
    pub(crate) occurrence: u32,
    pub(crate) fires_at_unix_ms: i64,
    pub(crate) effect: Arc<Effect>,
    pub(crate) repeat: Option<Repeat>,
    pub(crate) began: Tick,
    pub(crate) attempts: u32,
}

#[derive(Clone)]
pub(crate) struct Conclusion {
    pub(crate) occurrence: u32,
    pub(crate) verdict: Verdict,
    pub(crate) late_ms: u64,
    pub(crate) result: String,
    pub(crate) next: Option<Next>,
}

impl Firing {
    pub(crate) fn new(granted: Granted, began: Tick) -> Self {
        let Granted { occurrence, fires_at_unix_ms, effect, repeat, .. } = granted;
        Self { occurrence, fires_at_unix_ms, effect, repeat, began, attempts: 0 }
    }
}

impl Conclusion {
    pub(crate) fn settlement(&self, task: TaskId, fence: Fence, ticket: Ticket) -> Settlement {
        let Self { occurrence, verdict, late_ms, result, next } = self.clone();
        Settlement { task, occurrence, verdict, late_ms, result, next, fence, ticket }
    }
}

/// The attempt is to be repeated.
pub(crate) struct Unanswered;

/// How an answer ends an occurrence, what to tell about it, and whether there is another one.
pub(crate) fn conclude(
    answer: Answer,
    now: Tick,
    due: Tick,
    firing: &Firing,
) -> Result<Conclusion, Unanswered> {
    let (verdict, result) = match answer {
        Answer::Done(said) => (Verdict::Done, said),
        // An attempt of ours, of which we lost the answer.
        Answer::AlreadyEnded { said, by_this_task: true } => (Verdict::Done, said),
        Answer::AlreadyEnded { said, .. } => (Verdict::CallGone, said),
        Answer::NoSuchCall => (Verdict::CallGone, "no such call".to_owned()),
        Answer::Refused(why) => (Verdict::Refused, why),
        Answer::Unanswered(why) if now.saturating_sub(firing.began) >= GIVE_UP_MS => {
            let attempts = firing.attempts;
            (Verdict::Refused, format!("given up after {attempts} attempts in a day: {why}"))
        }
        Answer::Unanswered(_) => return Err(Unanswered),
    };
    let repeat = firing.repeat.filter(|_| verdict == Verdict::Done);
    let behind_ms = now.saturating_sub(due);
    let next = repeat.and_then(|it| it.next(firing.occurrence, firing.fires_at_unix_ms, behind_ms));
    let late_ms = firing.began.saturating_sub(due);
    Ok(Conclusion { occurrence: firing.occurrence, verdict, late_ms, result, next })
}

/// Exponential back-off after so many attempts, 1 or more.
pub(crate) fn retry_after_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (RETRY_MIN_MS << doublings).min(RETRY_MAX_MS)
}

/// The one with the higher revision.
pub(crate) fn newest(one: Option<&News>, other: Option<&News>) -> Option<News> {
    one.into_iter().chain(other).max_by_key(|news| news.revision).copied()
}
