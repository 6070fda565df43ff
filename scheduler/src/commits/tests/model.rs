//! What the disk does against the core's table of arrows and a map, with many asks per commit.

use super::*;

/// What a client or the firing loop may ask for, of the n-th of few tasks.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Schedule(u128, u8),
    Reschedule(u128, i64),
    Pause(u128),
    Resume(u128),
    Cancel(u128),
    CancelGroup,
    EndCall(u128),
    Claim(u128, i64),
    ClaimAgain(u128),
    Settle(u128, Verdict),
}

/// The same, said with a map and the core's table of arrows.
#[derive(Default)]
struct Model {
    tasks: BTreeMap<u128, (State, i64)>,
    keys: BTreeMap<u8, u128>,
    changes: i64,
}

impl Model {
    fn change(&mut self, id: u128, event: Event) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        let next = task.0.next(event);
        if let Ok(next) = next {
            *task = (next, task.1 + 1);
            self.changes += 1;
        }
        next.is_ok()
    }

    fn has(&self, id: u128, revision: i64) -> bool {
        self.tasks.get(&id).is_some_and(|task| revision == 0 || task.1 == revision)
    }

    fn is(&self, id: u128, state: State) -> bool {
        self.tasks.get(&id).is_some_and(|task| task.0 == state)
    }

    /// Whether it was done.
    fn apply(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Schedule(_, key) if self.keys.contains_key(&key) => false,
            Ask::Schedule(id, key) => {
                self.keys.insert(key, id);
                self.changes += 1;
                self.tasks.insert(id, (State::Pending, 1)).is_none()
            }
            // To a time: only what is pending.
            Ask::Reschedule(id, revision) => {
                self.has(id, revision)
                    && self.is(id, State::Pending)
                    && self.change(id, Event::Rescheduled)
            }
            Ask::Pause(id) => self.is(id, State::Paused) || self.change(id, Event::Paused),
            Ask::Resume(id) => self.is(id, State::Pending) || self.change(id, Event::Resumed),
            Ask::Cancel(id) => self.change(id, Event::Cancelled),
            Ask::CancelGroup => {
                let ids: Vec<_> = self.tasks.keys().copied().collect();
                ids.into_iter().filter(|id| self.change(*id, Event::Cancelled)).count() > 0
            }
            Ask::EndCall(id) => self.change(id, Event::CallEnded),
            Ask::Claim(id, revision) => {
                revision > 0 && self.has(id, revision) && self.change(id, Event::Claimed)
            }
            Ask::ClaimAgain(id) => self.is(id, State::Firing),
            Ask::Settle(id, verdict) => self.change(id, Event::Answered(verdict)),
        }
    }
}

/// Whether it was done; `None` where the answer does not say it.
async fn carry_out(bench: &Bench, ask: Ask) -> Option<bool> {
    let commits = &bench.commits;
    Some(match ask {
        Ask::Schedule(id, key) => {
            let new = soon_or_not(new(id, &format!("call-{id}"), &format!("key-{key}")));
            let _ = commits.schedule(new).await.unwrap();
            return None;
        }
        Ask::Reschedule(id, revision) => {
            let fires_at_unix_ms = boot::unix_ms() + if revision % 2 == 0 { 2_000 } else { 9_000 };
            let to = To::At { fires_at_unix_ms, due: 9, pinned: crate::clock::Pinned::default() };
            commits.reschedule(TaskId(id), revision, to).await.unwrap().is_ok()
        }
        Ask::Pause(id) => commits.pause(TaskId(id)).await.unwrap().is_ok(),
        Ask::Resume(id) => commits.resume(TaskId(id)).await.unwrap().is_ok(),
        Ask::Cancel(id) => {
            matches!(commits.cancel(TaskId(id), me()).await.unwrap(), Cancelled::Now(_))
        }
        Ask::CancelGroup => {
            let scope = Scope::Group("g".to_owned());
            commits.sweep(&scope, &cancel_all(), ShardSet::ALL).await.unwrap().0 > 0
        }
        Ask::EndCall(id) => {
            let scope = Scope::Call(format!("call-{id}"));
            let action = Action::End { event: Event::CallEnded, result: "bus".to_owned() };
            commits.sweep(&scope, &action, ShardSet::ALL).await.unwrap().0 > 0
        }
        Ask::Claim(id, revision) => bench.claim_one(id, revision, false).await.is_some(),
        Ask::ClaimAgain(id) => bench.claim_one(id, 0, true).await.is_some(),
        Ask::Settle(id, verdict) => {
            bench.settle_one(id, verdict, None).await;
            return None;
        }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let id = || 0..6u128;
    let verdict = prop_oneof![Just(Verdict::Done), Just(Verdict::CallGone), Just(Verdict::Refused)];
    prop_oneof![
        6 => (id(), 0..8u8).prop_map(|(id, key)| Ask::Schedule(id, key)),
        3 => (id(), 0..4i64).prop_map(|(id, revision)| Ask::Reschedule(id, revision)),
        2 => id().prop_map(Ask::Pause),
        2 => id().prop_map(Ask::Resume),
        3 => id().prop_map(Ask::Cancel),
        1 => Just(Ask::CancelGroup),
        1 => id().prop_map(Ask::EndCall),
        5 => (id(), 0..4i64).prop_map(|(id, revision)| Ask::Claim(id, revision)),
        1 => id().prop_map(Ask::ClaimAgain),
        4 => (id(), verdict).prop_map(|(id, verdict)| Ask::Settle(id, verdict)),
    ]
}

/// Every other task is soon due: then it is kept in memory, ready to be claimed.
pub(super) fn soon_or_not(new: New) -> New {
    let fires_at_unix_ms =
        boot::unix_ms() + if new.task.id.0.is_multiple_of(2) { 1_000 } else { 60_000 };
    New { task: Task { fires_at_unix_ms, ..new.task }, ..new }
}

/// Carries the asks out one by one, and compares after each.
async fn compare(database: Database, asks: Vec<Ask>) -> Result<(), TestCaseError> {
    let bench = Bench::alone(&database).await;
    let mut model = Model::default();
    for ask in asks {
        if let Ask::Schedule(id, key) = ask
            && model.tasks.contains_key(&id)
            && !model.keys.contains_key(&key)
        {
            continue; // An id is new each time.
        }
        let done = carry_out(&bench, ask).await;
        let expected = model.apply(ask);
        prop_assert_eq!(done.unwrap_or(expected), expected, "{:?}", ask);
        for (id, expected) in &model.tasks {
            let task = bench.get(*id).await;
            prop_assert_eq!((task.state, task.revision), *expected, "{} after {:?}", id, ask);
        }
    }
    // The log has each change once, and its last one of each task is the task.
    let mut last = BTreeMap::new();
    let mut changes = 0;
    for shard in 0..6 {
        let logged = bench.store.changes(shard, 0, 999).await.unwrap().unwrap();
        changes += logged.len() as i64;
        last.extend(logged.into_iter().map(|it| (it.task.id.0, it.task)));
    }
    prop_assert_eq!(changes, model.changes);
    for (id, task) in last {
        prop_assert_eq!(bench.get(id).await, task);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The SQL does what the core's table of arrows says, whatever is asked, and however often.
    #[test]
    fn a_file_agrees_with_the_life_of_a_task(asks in prop::collection::vec(ask(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(compare(Database::file(), asks))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_server_agrees_with_the_life_of_a_task(asks in prop::collection::vec(ask(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(compare(Database::server(), asks))?;
    }
}
