//! On a real file: races, repetitions, limits, and a database that does not answer.

use super::*;
use crate::store::Store;
use futures::stream::{self, StreamExt as _};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;

/// A writer that runs in the background, on a file of its own.
struct Bench {
    commits: Commits,
    store: Store,
    changes: Option<mpsc::Receiver<Change>>,
    dir: TempDir,
}

const LIMITS: Limits = Limits { tasks_max: 5_000, tasks_per_call_max: 3 };

impl Bench {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("tasks.db").display());
        let store = Store::open_waiting(&url, Duration::from_millis(50)).await.unwrap();
        let (commits, writer, changes) = open(store.clone(), limits, 0);
        tokio::spawn(writer.run());
        Self { commits, store, changes: Some(changes), dir }
    }

    /// For tests with more changes than wait for a reader.
    fn discard_changes(&mut self) {
        let mut changes = self.changes.take().unwrap();
        tokio::spawn(async move { while changes.recv().await.is_some() {} });
    }

    async fn schedule(&self, id: u128, call: &str, key: &str) -> Result<Task, Declined> {
        self.commits.schedule(sample(id, call), key.to_owned(), 7).await.unwrap()
    }
}

fn sample(id: u128, call: &str) -> Task {
    Task {
        id: TaskId(id),
        call_id: call.to_owned(),
        state: State::Pending,
        fires_at_unix_ms: 1_000,
        revision: 1,
        cause: "ALLOTTED_TIMEOUT".to_owned(),
        group: "g".to_owned(),
        label: String::new(),
        created_unix_ms: 1,
        ended_unix_ms: 0,
        late_ms: 0,
        result: String::new(),
    }
}

fn by(who: &str) -> Ending {
    Ending { ended_unix_ms: 2, late_ms: 0, result: who.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cancel_and_a_claim_at_once_exactly_one_wins_each_of_a_thousand_times() {
    let mut bench = Bench::start(LIMITS).await;
    bench.discard_changes();
    for id in 0..1_000 {
        bench.schedule(id, &format!("call-{id}"), "").await.unwrap();
    }
    // Both for each, in an order that is random over a short way, 200 at a time.
    let mut order: Vec<_> = (0..2_000u64).map(|nth| (nth + nth * 7_919 % 67, nth)).collect();
    order.sort_unstable();
    let asks = order.into_iter().map(|(_, nth)| {
        let (commits, id) = (bench.commits.clone(), TaskId(u128::from(nth / 2)));
        tokio::spawn(async move {
            match nth % 2 {
                0 => (id, Ok(commits.cancel(id, by("me")).await.unwrap())),
                _ => (id, Err(commits.claim(id, 1, false).await.unwrap())),
            }
        })
    });
    let answers: Vec<_> = stream::iter(asks).buffered(200).map(Result::unwrap).collect().await;
    let (mut cancels, mut claims) = (BTreeMap::new(), BTreeMap::new());
    for (id, answer) in answers {
        match answer {
            Ok(cancelled) => drop(cancels.insert(id, cancelled)),
            Err(granted) => drop(claims.insert(id, granted)),
        }
    }
    let mut cancelled = 0;
    for (id, cancel) in cancels {
        let state = bench.store.get(id).await.unwrap().unwrap().state;
        match (cancel, &claims[&id]) {
            (Cancelled::Now(_), None) => assert_eq!(state, State::Cancelled),
            (Cancelled::TooLate(task), Some(_)) => {
                assert_eq!((task.state, state), (State::Firing, State::Firing));
            }
            other => panic!("{id}: {other:?}"),
        }
        cancelled += u32::from(state == State::Cancelled);
    }
    println!("{cancelled} of 1,000 cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_task_however_many_ask_at_once() {
    let bench = Bench::start(LIMITS).await;
    let asks = (0..100).map(|id| {
        let commits = bench.commits.clone();
        tokio::spawn(async move {
            commits.schedule(sample(id, "call"), "key".to_owned(), 7).await.unwrap().unwrap().id
        })
    });
    let ids = futures::future::join_all(asks.collect::<Vec<_>>()).await;
    let first = *ids[0].as_ref().unwrap();
    assert!(ids.iter().all(|id| *id.as_ref().unwrap() == first));
    assert_eq!(bench.store.live().await.unwrap().len(), 1);
    let other_call = bench.schedule(200, "other", "key").await;
    assert_eq!(other_call, Err(Declined::KeyTaken(first)));
}

#[tokio::test]
async fn a_known_key_is_answered_also_when_the_limits_are_reached_and_the_task_has_ended() {
    let bench = Bench::start(Limits { tasks_max: 1, tasks_per_call_max: 1 }).await;
    let task = bench.schedule(1, "call", "key").await.unwrap();
    assert_eq!(bench.schedule(2, "call", "key").await.unwrap(), task);
    bench.commits.cancel(task.id, by("me")).await.unwrap();
    assert_eq!(bench.schedule(3, "call", "key").await.unwrap().state, State::Cancelled);
}

#[tokio::test]
async fn limits_count_what_has_not_ended() {
    let bench = Bench::start(Limits { tasks_max: 4, tasks_per_call_max: 3 }).await;
    for id in 0..3 {
        bench.schedule(id, "call", "").await.unwrap();
    }
    assert_eq!(bench.schedule(3, "call", "").await, Err(Declined::TooManyOfCall { max: 3 }));
    bench.schedule(4, "other", "").await.unwrap();
    assert_eq!(bench.schedule(5, "third", "").await, Err(Declined::TooManyTasks { max: 4 }));
    bench.commits.cancel(TaskId(0), by("me")).await.unwrap();
    bench.schedule(6, "call", "").await.unwrap();
    assert_eq!(bench.schedule(7, "third", "").await, Err(Declined::TooManyTasks { max: 4 }));
    let scope = Scope::Call("call".to_owned());
    let ended = bench.commits.end_all(scope, Event::CallEnded, by("call ended")).await.unwrap();
    assert_eq!(ended, (3, 0));
    bench.schedule(8, "third", "").await.unwrap();
}

#[tokio::test]
async fn every_change_is_told_once_in_the_order_of_commits() {
    let mut bench = Bench::start(LIMITS).await;
    let (id, commits) = (TaskId(1), &bench.commits);
    bench.schedule(1, "call", "").await.unwrap();
    commits.reschedule(id, 1, (2_000, 99)).await.unwrap().unwrap();
    assert_eq!(
        commits.reschedule(id, 1, (3_000, 99)).await.unwrap(),
        Err(Unmoved::Revision { got: 1, has: 2 })
    );
    assert_eq!(commits.claim(id, 1, false).await.unwrap(), None);
    assert!(commits.claim(id, 2, false).await.unwrap().is_some());
    assert_eq!(commits.claim(id, 2, false).await.unwrap(), None);
    assert!(commits.claim(id, 3, true).await.unwrap().is_some());
    assert_eq!(
        commits.reschedule(id, 0, (3_000, 99)).await.unwrap(),
        Err(Unmoved::NotPending(State::Firing))
    );
    commits.settle(id, Verdict::Done, by("edge")).await.unwrap();
    commits.settle(id, Verdict::Refused, by("edge, late")).await.unwrap();
    assert!(matches!(commits.cancel(id, by("me")).await.unwrap(), Cancelled::TooLate(_)));
    assert_eq!(commits.cancel(TaskId(2), by("me")).await.unwrap(), Cancelled::NotFound);
    let mut told = Vec::new();
    let mut changes = bench.changes.take().unwrap();
    while let Ok(Change { task, due }) = changes.try_recv() {
        told.push((task.state, task.revision, due));
    }
    assert_eq!(
        told,
        [
            (State::Pending, 1, Some(7)),
            (State::Pending, 2, Some(99)),
            (State::Firing, 3, None),
            (State::Fired, 4, None)
        ]
    );
}

#[tokio::test]
async fn a_large_group_is_cancelled_whole() {
    let mut bench = Bench::start(LIMITS).await;
    bench.discard_changes();
    let many = 2 * u128::from(ROWS_PER_STATEMENT) + 1;
    let asks = (0..many)
        .map(|id| bench.commits.schedule(sample(id, &format!("call-{id}")), String::new(), 7));
    futures::future::join_all(asks).await.into_iter().for_each(|asked| drop(asked.unwrap()));
    bench.commits.claim(TaskId(0), 1, false).await.unwrap().unwrap();
    let scope = Scope::Group("g".to_owned());
    let ended = bench.commits.end_all(scope, Event::Cancelled, by("me")).await.unwrap();
    assert_eq!(ended, (many as u32 - 1, 1));
}

#[tokio::test]
async fn a_locked_database_does_nothing_and_says_so_and_goes_on_afterwards() {
    let bench = Bench::start(LIMITS).await;
    bench.schedule(1, "call", "").await.unwrap();
    // Another process, e.g. an operator's shell.
    let url = format!("sqlite:{}", bench.dir.path().join("tasks.db").display());
    let other = sqlx::SqlitePool::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = bench.commits.schedule(sample(2, "call"), String::new(), 7).await;
    assert_eq!(refused, Err(Unwritten::Failed));
    assert_eq!(bench.commits.cancel(TaskId(1), by("me")).await, Err(Unwritten::Failed));
    assert_eq!(bench.store.get(TaskId(1)).await.unwrap().unwrap().state, State::Pending);
    lock.rollback().await.unwrap();
    assert_eq!(bench.store.get(TaskId(2)).await.unwrap(), None);
    bench.schedule(2, "call", "").await.unwrap();
    assert!(matches!(bench.commits.cancel(TaskId(1), by("me")).await, Ok(Cancelled::Now(_))));
}

#[tokio::test]
async fn a_full_disk_does_nothing_and_says_so_and_goes_on_afterwards() {
    let bench = Bench::start(LIMITS).await;
    bench.schedule(1, "call", "").await.unwrap();
    bench.store.limit_pages(Some(0)).await;
    let text = "x".repeat(1 << 20);
    let big = Task { label: text, ..sample(2, "call") };
    let refused = bench.commits.schedule(big, String::new(), 7).await;
    assert_eq!(refused, Err(Unwritten::Failed));
    bench.store.limit_pages(None).await;
    assert_eq!(bench.store.get(TaskId(2)).await.unwrap(), None);
    bench.schedule(2, "call", "").await.unwrap();
}

#[tokio::test]
async fn more_writes_than_may_wait_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("tasks.db").display());
    let store = Store::open(&url).await.unwrap();
    let (commits, _stopped, _changes) = open(store, LIMITS, 0);
    let mut waiting = Vec::new();
    for id in 0..WRITES_WAITING_MAX as u128 {
        let mut ask = Box::pin(commits.cancel(TaskId(id), by("me")));
        assert!(futures::poll!(&mut ask).is_pending());
        waiting.push(ask);
    }
    assert_eq!(commits.cancel(TaskId(0), by("me")).await, Err(Unwritten::TooMany));
}

/// What a client or the firing loop may ask for, of the n-th of few tasks.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Schedule(u128, u8),
    Reschedule(u128, i64),
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
}

impl Model {
    fn change(&mut self, id: u128, event: Event) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        let next = task.0.next(event);
        if let Ok(next) = next {
            *task = (next, task.1 + 1);
        }
        next.is_ok()
    }

    fn has(&self, id: u128, revision: i64) -> bool {
        self.tasks.get(&id).is_some_and(|task| revision == 0 || task.1 == revision)
    }

    /// Whether it was done.
    fn apply(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Schedule(_, key) if self.keys.contains_key(&key) => false,
            Ask::Schedule(id, key) => {
                self.keys.insert(key, id);
                self.tasks.insert(id, (State::Pending, 1)).is_none()
            }
            Ask::Reschedule(id, revision) => {
                self.has(id, revision) && self.change(id, Event::Rescheduled)
            }
            Ask::Cancel(id) => self.change(id, Event::Cancelled),
            Ask::CancelGroup => {
                let ids: Vec<_> = self.tasks.keys().copied().collect();
                ids.into_iter().filter(|id| self.change(*id, Event::Cancelled)).count() > 0
            }
            Ask::EndCall(id) => self.change(id, Event::CallEnded),
            Ask::Claim(id, revision) => self.has(id, revision) && self.change(id, Event::Claimed),
            Ask::ClaimAgain(id) => self.tasks.get(&id).is_some_and(|task| task.0 == State::Firing),
            Ask::Settle(id, verdict) => self.change(id, Event::Answered(verdict)),
        }
    }
}

/// Whether it was done; `None` where the answer does not say it.
async fn carry_out(commits: &Commits, ask: Ask) -> Option<bool> {
    Some(match ask {
        Ask::Schedule(id, key) => {
            let task = sample(id, &format!("call-{id}"));
            drop(commits.schedule(task, format!("key-{key}"), 7).await.unwrap());
            return None;
        }
        Ask::Reschedule(id, revision) => {
            commits.reschedule(TaskId(id), revision, (9, 9)).await.unwrap().is_ok()
        }
        Ask::Cancel(id) => {
            matches!(commits.cancel(TaskId(id), by("me")).await.unwrap(), Cancelled::Now(_))
        }
        Ask::CancelGroup => {
            let scope = Scope::Group("g".to_owned());
            commits.end_all(scope, Event::Cancelled, by("me")).await.unwrap().0 > 0
        }
        Ask::EndCall(id) => {
            let scope = Scope::Call(format!("call-{id}"));
            commits.end_all(scope, Event::CallEnded, by("bus")).await.unwrap().0 > 0
        }
        Ask::Claim(id, revision) => {
            commits.claim(TaskId(id), revision, false).await.unwrap().is_some()
        }
        Ask::ClaimAgain(id) => commits.claim(TaskId(id), 0, true).await.unwrap().is_some(),
        Ask::Settle(id, verdict) => {
            commits.settle(TaskId(id), verdict, by("edge")).await.unwrap();
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
        3 => id().prop_map(Ask::Cancel),
        1 => Just(Ask::CancelGroup),
        1 => id().prop_map(Ask::EndCall),
        5 => (id(), 0..4i64).prop_map(|(id, revision)| Ask::Claim(id, revision)),
        1 => id().prop_map(Ask::ClaimAgain),
        4 => (id(), verdict).prop_map(|(id, verdict)| Ask::Settle(id, verdict)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The SQL does what the core's table of arrows says, whatever is asked, and however often.
    #[test]
    fn the_disk_agrees_with_the_life_of_a_task(asks in prop::collection::vec(ask(), 1..60)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::start(LIMITS).await;
            bench.discard_changes();
            let mut model = Model::default();
            for ask in asks {
                if let Ask::Schedule(id, key) = ask
                    && model.tasks.contains_key(&id) && !model.keys.contains_key(&key)
                {
                    continue; // An id is new each time.
                }
                let done = carry_out(&bench.commits, ask).await;
                let expected = model.apply(ask);
                prop_assert_eq!(done.unwrap_or(expected), expected, "{:?}", ask);
                for (id, expected) in &model.tasks {
                    let task = bench.store.get(TaskId(*id)).await.unwrap().unwrap();
                    prop_assert_eq!((task.state, task.revision), *expected, "{} after {:?}", id, ask);
                }
            }
            Ok(())
        })?;
    }
}
