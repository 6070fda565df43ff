//! The loop on a real database and a real bus: cancels that meet their task at its deadline.

use super::*;
use crate::args::EdgeAddress;
use crate::commits::{self, Cancelled, Desk, Limits, New};
use crate::leases;
use crate::recent::Recent;
use crate::store::{Filter, Store, Task};
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use uuid::Uuid;
use wheel::{Effect, State};

/// How long everything together may take.
const LIMIT: Duration = Duration::from_secs(300);
const SUBJECT: &str = "race.effects";
/// Tasks that are stored at a time, and how many of them are due at the same ms.
const BATCH: usize = 1_000;
const PER_MS: usize = 5;
/// Cancels that wait for the database at a time; the writer takes no more than 8,192.
const CANCELS_MAX: usize = 4_096;

/// A scheduler without its API.
struct Rig {
    commits: Commits,
    store: Store,
    clock: Clock,
    bus: async_nats::Client,
    /// Turns true when the process drains: never.
    _process: watch::Sender<bool>,
    _nats: e2e::NatsServer,
    _dir: TempDir,
}

impl Rig {
    async fn start() -> Self {
        let nats = e2e::NatsServer::start().unwrap();
        let bus = async_nats::connect(nats.url()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("tasks.db").display());
        let store = Store::open(&url).await.unwrap();
        let clock = Clock::start();
        let address = EdgeAddress { name: String::new(), url: "http://127.0.0.1:1".to_owned() };
        let lanes = Lanes::new([String::new()]);
        let (leases, keeper, turns) = leases::open(&store, "http://127.0.0.1:1".to_owned());
        let edges = Edges::new(&[address], &leases.gate()).unwrap();
        tokio::spawn(keeper.run());
        let (messages, publisher) =
            crate::publish::open("scheduler", boot::Login::at(&nats.url()).unwrap(), leases.gate());
        tokio::spawn(publisher.run());
        let limits = Limits {
            tasks_max: 1_000_000,
            tasks_per_call_max: 1,
            tenant_quota: 1_000_000,
            tenant_quotas: HashMap::new(),
        };
        let horizon_ms = 3_600_000;
        let (store_of, leases_of, lanes_of) = (store.clone(), leases.clone(), lanes.clone());
        let desk = Desk {
            store: store_of,
            leases: leases_of,
            limits,
            clock,
            lanes: lanes_of,
            recent: Recent::default(),
            horizon_ms,
        };
        let (commits, writer, news) = commits::open(desk);
        tokio::spawn(writer.run());
        let agenda = agenda(&lanes, 2_000);
        let (_process, draining) = watch::channel(false);
        let firing = Firing {
            agenda,
            clock,
            commits: commits.clone(),
            edges,
            bus: messages,
            leases,
            horizon: Horizon { store: store.clone(), clock, lanes, horizon_ms },
            news,
            turns,
            shards: Shards::default(),
            draining,
            idle: watch::Sender::new(false),
            busy: watch::Sender::new(false),
        };
        tokio::spawn(firing.run());
        Self { commits, store, clock, bus, _process, _nats: nats, _dir: dir }
    }

    /// A task that publishes its own id, due so many ms from now.
    fn message(&self, after_ms: i64) -> New {
        let id = TaskId(Uuid::now_v7().as_u128());
        let (fires_at_unix_ms, due) = self.clock.moment().after(after_ms);
        let payload = id.to_string().into_bytes();
        let task = Task {
            id,
            call_id: String::new(),
            state: State::Pending,
            fires_at_unix_ms,
            revision: 1,
            effect: Effect::Publish { subject: SUBJECT.to_owned(), payload }.into(),
            group: String::new(),
            label: String::new(),
            tenant: String::new(),
            edge: String::new(),
            created_unix_ms: fires_at_unix_ms - after_ms,
            ended_unix_ms: 0,
            late_ms: 0,
            result: String::new(),
            repeat: None,
            occurrence: 0,
            missed: 0,
            remaining_ms: 0,
            cancel_requested: false,
            pinned: crate::clock::Pinned::default(),
        };
        New { task, key: String::new(), due }
    }

    async fn schedule(&self, tasks: Vec<New>) {
        for scheduled in self.commits.schedule_many(tasks).await.unwrap() {
            scheduled.unwrap().unwrap();
        }
    }

    /// Waits until no task is to fire.
    async fn all_ended(&self) {
        let mut committed = self.commits.committed();
        let alive = Filter {
            call_id: String::new(),
            group: String::new(),
            tenant: None,
            states: vec![State::Pending, State::Firing],
            fires_from_unix_ms: None,
            fires_before_unix_ms: None,
            after: None,
            limit: 1,
        };
        while !self.store.list(&alive, usize::MAX, |_| 1).await.unwrap().is_empty() {
            committed.changed().await.unwrap();
        }
    }
}

/// Of so many tasks, most are cancelled within ±5 ms of their deadline, some long before it, and some
/// not at all: who cancels is told the truth, each task is either cancelled or has its effect, and
/// none both.
async fn race(tasks: usize) {
    let rig = Arc::new(Rig::start().await);
    let effects = rig.bus.subscribe(SUBJECT).await.unwrap();
    rig.bus.flush().await.unwrap();
    let effects = tokio::spawn(count(effects));
    let mut asked = JoinSet::new();
    let room = Arc::new(Semaphore::new(CANCELS_MAX));
    for _ in (0..tasks).step_by(BATCH) {
        let batch: Vec<New> =
            (0..BATCH).map(|nth| rig.message(300 + (nth / PER_MS) as i64)).collect();
        let due: Vec<_> = batch.iter().map(|new| (new.task.id, new.due)).collect();
        rig.schedule(batch).await;
        drop(room.acquire_many(BATCH as u32).await.unwrap()); // Not faster than they are answered.
        for (nth, (id, due)) in due.into_iter().enumerate() {
            let at = match nth % 50 {
                0 => continue,
                1 => rig.clock.now(),
                _ => due + (nth as u64 * 7) % 11 - 5,
            };
            let (rig, room) = (rig.clone(), room.clone());
            asked.spawn(async move {
                tokio::time::sleep_until(rig.clock.instant(at).into()).await;
                let _room = room.acquire().await.unwrap();
                (id, rig.commits.cancel(id, "race".to_owned()).await)
            });
        }
    }
    let mut cancelled = HashMap::new();
    while let Some(answer) = asked.join_next().await {
        let (id, answer) = answer.unwrap();
        let now = match answer.unwrap() {
            Cancelled::Now(task) => task.state == State::Cancelled,
            Cancelled::TooLate(_) => false,
            Cancelled::NotFound => panic!("{id} is lost"),
        };
        cancelled.insert(id, now);
    }
    rig.all_ended().await;
    rig.bus.publish(SUBJECT, "end".into()).await.unwrap();
    let effected = effects.await.unwrap();
    let count = cancelled.values().filter(|now| **now).count();
    println!("{count} cancelled, {} effected, of {tasks}", effected.len());
    for (id, cancelled) in &cancelled {
        let effects = effected.get(id).copied().unwrap_or(0);
        assert_eq!(effects, u32::from(!cancelled), "{id} was cancelled: {cancelled}");
    }
    assert_eq!(count + effected.len(), tasks);
    assert!(count > 0, "nothing was cancelled");
}

/// How often each task has published, up to the first message that is not from a task.
async fn count(mut effects: async_nats::Subscriber) -> HashMap<TaskId, u32> {
    let mut effected = HashMap::new();
    loop {
        let message = effects.next().await.unwrap();
        let payload = std::str::from_utf8(&message.payload).unwrap();
        match Uuid::parse_str(payload) {
            Ok(id) => *effected.entry(TaskId(id.as_u128())).or_default() += 1,
            Err(_) => return effected,
        }
    }
}

/// As many tasks as `HOLDFAST_CANCELS` says, or 20,000: 100,000 take minutes in a debug build.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_at_its_deadline_or_has_its_effect_and_never_both() {
    let tasks = std::env::var("HOLDFAST_CANCELS").map_or(20_000, |it| it.parse().unwrap());
    tokio::time::timeout(LIMIT, race(tasks)).await.unwrap();
}
