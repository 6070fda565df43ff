//! The loop on a real database and a real bus: cancels that meet their task at its deadline.

use super::*;
use crate::args::EdgeAddress;
use crate::commits::{self, Cancelled, Desk, Limits, New};
use crate::leases;
use crate::store::{Filter, Store, Task};
use futures::StreamExt as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;
use wheel::{Effect, State};

/// How long everything together may take.
const LIMIT: Duration = Duration::from_secs(300);
const SUBJECT: &str = "race.effects";

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
        let edges = Edges::new(&[address]).unwrap();
        let lanes = Lanes::new([String::new()]);
        let (leases, keeper, turns) = leases::open(&store, "http://127.0.0.1:1".to_owned());
        tokio::spawn(keeper.run());
        let limits = Limits {
            tasks_max: 1_000_000,
            tasks_per_call_max: 1,
            tenant_quota: 1_000_000,
            tenant_quotas: HashMap::new(),
        };
        let horizon_ms = 3_600_000;
        let (store_of, leases_of, lanes_of) = (store.clone(), leases.clone(), lanes.clone());
        let desk =
            Desk { store: store_of, leases: leases_of, limits, clock, lanes: lanes_of, horizon_ms };
        let (commits, writer, news) = commits::open(desk);
        tokio::spawn(writer.run());
        let agenda = agenda(&lanes, 2_000);
        let (_process, draining) = watch::channel(false);
        let firing = Firing {
            agenda,
            clock,
            commits: commits.clone(),
            edges,
            bus: Bus::new(bus.clone()),
            leases,
            horizon: Horizon { store: store.clone(), clock, lanes, horizon_ms },
            news,
            turns,
            shards: Shards::default(),
            draining,
            idle: watch::Sender::new(false),
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
            effect: Effect::Publish { subject: SUBJECT.to_owned(), payload },
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

/// A cancel within ±5 ms of the deadline, for each of so many tasks at so many per ms: it is told
/// the truth, each task is either cancelled or has its effect, and none both.
async fn race(tasks: usize, per_ms: usize) {
    let rig = Arc::new(Rig::start().await);
    let mut effects = rig.bus.subscribe(SUBJECT).await.unwrap();
    rig.bus.flush().await.unwrap();
    let first_ms = 2_000 + (tasks / 20) as i64; // So that all are stored before.
    let began = rig.clock.now();
    let mut cancels: BTreeMap<wheel::Tick, Vec<TaskId>> = BTreeMap::new();
    for from in (0..tasks).step_by(1_000) {
        let mut batch = Vec::new();
        for nth in from..tasks.min(from + 1_000) {
            let passed = (rig.clock.now() - began) as i64;
            let new = rig.message(first_ms + (nth / per_ms) as i64 - passed);
            let at = new.due + (nth as u64 * 7) % 11 - 5;
            cancels.entry(at).or_default().push(new.task.id);
            batch.push(new);
        }
        rig.schedule(batch).await;
    }
    let mut asked = JoinSet::new();
    for (at, ids) in cancels {
        tokio::time::sleep_until(rig.clock.instant(at).into()).await;
        for id in ids {
            let rig = rig.clone();
            asked.spawn(async move { (id, rig.commits.cancel(id, "race".to_owned()).await) });
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
    let mut effected: HashMap<TaskId, u32> = HashMap::new();
    loop {
        let message = effects.next().await.unwrap();
        let payload = std::str::from_utf8(&message.payload).unwrap();
        match Uuid::parse_str(payload) {
            Ok(id) => *effected.entry(TaskId(id.as_u128())).or_default() += 1,
            Err(_) => break,
        }
    }
    let count = cancelled.values().filter(|now| **now).count();
    println!("{count} cancelled, {} effected, of {tasks}", effected.len());
    for (id, cancelled) in &cancelled {
        let effects = effected.get(id).copied().unwrap_or(0);
        assert_eq!(effects, u32::from(!cancelled), "{id} was cancelled: {cancelled}");
    }
    assert_eq!(count + effected.len(), tasks);
    assert!(count > 0 && !effected.is_empty(), "nothing raced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_at_its_deadline_or_has_its_effect_and_never_both() {
    tokio::time::timeout(LIMIT, race(20_000, 4)).await.unwrap();
}

/// `cargo test -p scheduler --release a_hundred_thousand -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; the same with 20,000 is above"]
async fn a_hundred_thousand_cancels_at_the_deadline() {
    tokio::time::timeout(LIMIT, race(100_000, 5)).await.unwrap();
}
