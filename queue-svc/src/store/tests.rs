//! Rows on a real SQLite file come back as they went.

use super::*;
use queue::{
    Address, AgentName, AgentSettings, Assignment, AssignmentId, CallerState, EmptyRule,
    Membership, Place, Presence, Strategy, Target, Work,
};
use std::cmp::Reverse;
use tempfile::TempDir;

struct Database {
    store: Store,
    folder: TempDir,
}

impl Database {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(&url(&folder), Synchronous::Full).await.unwrap(), folder }
    }

    /// As after the death of the process.
    async fn reopen(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        Self { store: Store::open(&url(&folder), Synchronous::Full).await.unwrap(), folder }
    }

    async fn save(&self, callers: &[Caller]) {
        let writes = callers.iter().map(|it| (it.call_id.clone(), Write::Save(it.clone())));
        let batch = Batch { callers: writes.collect(), ..Batch::default() };
        self.store.write(&batch, None, 0).await.unwrap();
    }

    /// As if the disk were full at so many pages, for every connection there is.
    async fn limit_pages(&self, pages: u32) {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = self.store.pool.acquire().await.unwrap();
            let sql = format!("PRAGMA max_page_count = {pages}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
            held.push(connection);
        }
    }

    async fn by_hand(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.store.pool).await.unwrap();
    }
}

fn url(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("queue.db").display())
}

fn caller(sequence: u64, state: CallerState) -> Caller {
    Caller {
        call_id: CallId::parse(&format!("call-{sequence}")).unwrap(),
        queue: QueueId(7),
        asked: QueueId(6),
        place: Place { priority: Reverse(u8::try_from(sequence % 3).unwrap()), sequence },
        since: 1_700_000_000_500,
        arrived_at: 1_700_000_000_123 + i64::try_from(sequence).unwrap(),
        from: format!("\"{}\" <sip:a@b>;tag=1", "ä".repeat(200)),
        contact: String::new(),
        state,
    }
}

fn address(text: &str) -> Address {
    Address::parse("agent", text).unwrap()
}

fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

fn leaving() -> CallerState {
    CallerState::Leaving(Assignment {
        id: AssignmentId::new("assignment-1"),
        targets: vec![
            Target { address: address("sip:1001@10.0.0.1"), agent: None },
            Target { address: address("user/1002"), agent: Some(name("1002")) },
        ],
        reserved_at: 1_700_000_000_999,
        ring_ms: 30_000,
    })
}

#[tokio::test]
async fn callers_come_back_whole_and_in_order_of_arrival() {
    let database = Database::new().await;
    let third = caller(300, CallerState::Entering);
    let first = caller(1, leaving());
    let second = caller(20, CallerState::InQueue);
    database.save(&[third.clone(), first.clone(), second.clone()]).await;
    let database = database.reopen().await;
    assert_eq!(database.store.load_callers().await.unwrap(), [first, second, third]);
}

#[tokio::test]
async fn row_follows_its_caller_until_it_is_deleted() {
    let database = Database::new().await;
    for state in [CallerState::Entering, CallerState::InQueue, leaving(), CallerState::InQueue] {
        let moved = Caller { queue: QueueId(9), ..caller(1, state) };
        database.save(std::slice::from_ref(&moved)).await;
        assert_eq!(database.store.load_callers().await.unwrap(), [moved]);
    }
    let callers = BTreeMap::from([(caller(1, leaving()).call_id, Write::Delete)]);
    let gone = Batch { callers, ..Batch::default() };
    database.store.write(&gone, None, 0).await.unwrap();
    database.store.write(&gone, None, 0).await.unwrap();
    assert_eq!(database.store.load_callers().await.unwrap(), []);
}

#[tokio::test]
async fn rows_changed_by_hand_never_lose_anybody_else() {
    let database = Database::new().await;
    let all: Vec<_> = (1..=5).map(|nth| caller(nth, leaving())).collect();
    database.save(&all).await;
    database
        .by_hand(
            "UPDATE queue_callers SET agent = 'not an agent' WHERE call_id = 'call-1';
             UPDATE queue_callers SET arrival_sequence = 1 WHERE call_id = 'call-2';
             UPDATE mohqcalls SET call_status = 9 WHERE call_id = 'call-3';
             DELETE FROM queue_callers WHERE call_id = 'call-4';
             DELETE FROM mohqcalls WHERE call_id = 'call-5'",
        )
        .await;
    let database = database.reopen().await;
    let callers = database.store.load_callers().await.unwrap();
    let short: Vec<_> = callers
        .iter()
        .map(|it| (it.call_id.as_str(), it.place.sequence, it.assignment().is_some()))
        .collect();
    assert_eq!(short, [("call-1", 1, false), ("call-2", 2, true), ("call-4", 3, false)]);
    assert_eq!(callers[2].arrived_at, 1_700_000_000_000, "to the second, as mohqueue has it");
}

#[tokio::test]
async fn queues_are_written_as_they_are_read() {
    let database = Database::new().await;
    let row = SettingsRow {
        name: "abc".into(),
        uri: "sip:1008@example.com".into(),
        mohdir: "/var/moh".into(),
        mohfile: "m.wav".into(),
        debug: true,
        max_calls: 70,
        strategy: Strategy::RingAll,
        ring_ms: 1_000,
        service_level_ms: 2,
        max_wait_ms: 3,
        join_empty: EmptyRule::LoggedOut,
        leave_empty: EmptyRule::Unavailable,
        overflow: "queue/night".into(),
        announce_every_ms: 5_000,
        announce_first_ms: 6_000,
        announce_position: true,
        announce_wait: true,
        periodic_every_ms: 7_000,
        periodic: vec!["ads/one".into(), "ads/two".into()],
    };
    let id = database.store.insert_queue(&row).await.unwrap();
    assert!(matches!(database.store.insert_queue(&row).await, Err(StoreError::Taken)));
    let database = database.reopen().await;
    let queues = database.store.load_queues().await.unwrap();
    assert_eq!(queues, BTreeMap::from([(id, row.clone())]));
    let renamed = SettingsRow { name: "def".into(), max_calls: 3, ..row };
    database.store.update_queue(id, &renamed).await.unwrap();
    assert_eq!(
        database.store.load_queues().await.unwrap(),
        BTreeMap::from([(id, renamed.clone())])
    );
    database.store.delete_queue(id).await.unwrap();
    let missing = database.store.update_queue(id, &renamed).await;
    assert!(matches!(missing, Err(StoreError::Missing)));
    assert_eq!(database.store.load_queues().await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn full_disk_does_nothing_and_writes_go_on_afterwards() {
    let database = Database::new().await;
    let before = caller(1, CallerState::InQueue);
    database.save(std::slice::from_ref(&before)).await;
    let from = "x".repeat(1 << 20);
    let large = Caller { from: from.clone(), ..caller(2, CallerState::Entering) };
    let callers = BTreeMap::from([(large.call_id.clone(), Write::Save(large))]);
    let large = Batch { callers, ..Batch::default() };
    let row = SettingsRow { name: "abc".into(), uri: "sip:1@h".into(), ..SettingsRow::default() };
    let large_row = SettingsRow { mohfile: from, ..row.clone() };
    for _ in 0..=CONNECTIONS {
        database.limit_pages(1).await;
        assert!(matches!(database.store.write(&large, None, 0).await, Err(StoreError::Away(_))));
        database.limit_pages(1).await;
        let refused = database.store.insert_queue(&large_row).await;
        assert!(matches!(refused, Err(StoreError::Away(_))));
    }
    database.limit_pages(u32::MAX - 1).await;
    let after = caller(2, CallerState::InQueue);
    for _ in 0..=CONNECTIONS {
        database.save(std::slice::from_ref(&after)).await;
    }
    database.store.insert_queue(&row).await.unwrap();
    assert_eq!(database.store.load_callers().await.unwrap(), [before, after]);
}

#[tokio::test]
async fn two_do_not_share_a_database() {
    let database = Database::new().await;
    let refused = Store::open(&url(&database.folder), Synchronous::Normal).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another queue-svc uses it"), "{refused:#}");
    database.reopen().await;
}

fn agent(text: &str, presence: Presence, work: Work) -> Agent {
    let membership =
        |queue, level| Membership { queue: QueueId(queue), level, order: 2, weight: 3 };
    let settings = AgentSettings {
        name: name(text),
        address: address(&format!("user/{text}")),
        wrap_up_ms: 4,
        reject_delay_ms: 1_005,
        busy_delay_ms: 1_006,
        no_answer_delay_ms: 1_007,
        max_missed: 8,
        memberships: vec![membership(7, 1), membership(3, 0)],
    };
    Agent { settings, presence, work, idle_since: 9, rest_until: 10, missed: 11 }
}

fn of(agent: &Agent, memberships_changed: bool) -> Batch {
    let mut batch = Batch::default();
    let write = WriteAgent::Save { agent: Box::new(agent.clone()), memberships_changed };
    batch.put_agent(agent.name().clone(), write);
    batch
}

#[tokio::test]
async fn agents_come_back_whole() {
    let database = Database::new().await;
    let call_id = CallId::parse("c").unwrap();
    let agents = [
        agent("a", Presence::LoggedOut, Work::Free),
        agent("b", Presence::Ready, Work::Talking { call_id, queue: QueueId(7), since: 12 }),
        agent("c", Presence::Paused("lunch".into()), Work::WrapUp { until: 13 }),
    ];
    for agent in &agents {
        database.store.write(&of(agent, true), None, 0).await.unwrap();
    }
    let database = database.reopen().await;
    assert_eq!(database.store.load_agents().await.unwrap(), agents);

    let mut changed = agents[0].clone();
    changed.settings.memberships.clear();
    changed.presence = Presence::Ready;
    database.store.write(&of(&changed, false), None, 0).await.unwrap();
    changed.settings.memberships = agents[0].settings.memberships.clone();
    assert_eq!(database.store.load_agents().await.unwrap()[0], changed, "but for its queues");
    let mut gone = Batch::default();
    gone.put_agent(name("a"), WriteAgent::Delete);
    database.store.write(&gone, None, 0).await.unwrap();
    assert_eq!(database.store.load_agents().await.unwrap(), agents[1..]);
}

#[test]
fn memberships_that_were_to_be_written_still_are_after_a_newer_row() {
    let old = agent("a", Presence::LoggedOut, Work::Free);
    let new = agent("a", Presence::Ready, Work::Free);
    let written = |batch: &Batch| match &batch.agents[&name("a")] {
        WriteAgent::Save { agent, memberships_changed } => {
            (agent.presence.clone(), *memberships_changed)
        }
        WriteAgent::Delete => panic!("nobody deletes it"),
    };
    let mut batch = of(&old, true);
    let write = WriteAgent::Save { agent: Box::new(new.clone()), memberships_changed: false };
    batch.put_agent(name("a"), write);
    assert_eq!(written(&batch), (Presence::Ready, true));
    let mut batch = of(&new, false);
    batch.put_back(of(&old, true));
    assert_eq!(written(&batch), (Presence::Ready, true));
}

fn changes(range: std::ops::Range<i64>) -> Batch {
    let change = |at: i64| Change { at_unix_ms: at, event: at.to_be_bytes().to_vec() };
    Batch { changes: range.map(change).collect(), ..Batch::default() }
}

#[tokio::test]
async fn log_counts_without_gaps_also_over_what_is_forgotten_and_a_restart() {
    let database = Database::new().await;
    let store = &database.store;
    assert_eq!(store.reach().await.unwrap(), Reach { first: 1, last: 0, told: 0 });
    store.write(&changes(0..1_200), None, 0).await.unwrap();
    assert_eq!(store.reach().await.unwrap(), Reach { first: 1, last: 1_200, told: 0 });
    let read = store.changes(1_100, 3).await.unwrap();
    let read: Vec<_> = read.into_iter().map(|it| (it.revision, it.event)).collect();
    let wanted = |revision: i64| (revision, (revision - 1).to_be_bytes().to_vec());
    assert_eq!(read, [1_101, 1_102, 1_103].map(wanted));

    // Only what NATS has may be forgotten, and of that only what is old.
    store.write(&Batch::default(), Some(700), 1_000_000).await.unwrap();
    assert_eq!(store.reach().await.unwrap(), Reach { first: 701, last: 1_200, told: 700 });
    store.write(&Batch::default(), Some(1_200), 800).await.unwrap();
    assert_eq!(store.reach().await.unwrap(), Reach { first: 801, last: 1_200, told: 1_200 });
    store.write(&Batch::default(), Some(900), 1_000_000).await.unwrap();
    assert_eq!(store.reach().await.unwrap(), Reach { first: 1_201, last: 1_200, told: 1_200 });

    let database = database.reopen().await;
    database.store.write(&changes(0..1), None, 0).await.unwrap();
    assert_eq!(database.store.changes(0, 9).await.unwrap()[0].revision, 1_201);
}

#[tokio::test]
async fn database_of_the_first_version_keeps_its_callers_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::from_str(&url(&folder)).unwrap().create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(FIRST).execute(&pool).await.unwrap();
    pool.close().await;
    let store = Store::open(&url(&folder), Synchronous::Full).await.unwrap();
    let callers = store.load_callers().await.unwrap();
    let agent = callers[0].assignment().map(Assignment::addresses);
    assert_eq!(agent.as_deref(), Some("user/1001"));
    assert_eq!((callers[0].asked, callers[0].since), (QueueId(3), 1_700_000_000_123));
    assert_eq!(store.load_queues().await.unwrap()[&QueueId(3)].max_calls, 70);
    drop(store);
    let store = Store::open(&url(&folder), Synchronous::Full).await.unwrap();
    assert_eq!(store.load_queues().await.unwrap()[&QueueId(3)].max_calls, 70);
}

/// As this service made it before there were agents.
const FIRST: &str = "
CREATE TABLE version (id INTEGER PRIMARY KEY NOT NULL, table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL, CONSTRAINT version_table_name_idx UNIQUE (table_name));
INSERT INTO version (table_name, table_version) VALUES
    ('mohqueues', 1), ('mohqcalls', 1), ('queue_limits', 1), ('queue_callers', 1);
CREATE TABLE mohqueues (id INTEGER PRIMARY KEY NOT NULL, name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL, mohdir VARCHAR(100), mohfile VARCHAR(100) NOT NULL,
    debug INTEGER NOT NULL);
INSERT INTO mohqueues VALUES (3, 'abc', 'sip:1008@example.com', '', 'm', 0);
CREATE TABLE mohqcalls (id INTEGER PRIMARY KEY NOT NULL, mohq_id INTEGER NOT NULL,
    call_id VARCHAR(100) NOT NULL, call_status INTEGER NOT NULL, call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100), call_time DATETIME NOT NULL,
    CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id));
INSERT INTO mohqcalls VALUES (1, 3, 'a', 3, 'f', '', '2026-11-20 10:00:00');
CREATE TABLE queue_limits (mohq_id INTEGER PRIMARY KEY NOT NULL, max_calls INTEGER NOT NULL);
INSERT INTO queue_limits VALUES (3, 70);
CREATE TABLE queue_callers (call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence INTEGER NOT NULL, arrived_unix_ms INTEGER NOT NULL, call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL, assignment_id VARCHAR(64), agent VARCHAR(255),
    reserved_unix_ms INTEGER, ring_ms INTEGER);
INSERT INTO queue_callers VALUES
    ('a', 1, 1700000000123, 'f', '', 'x', 'user/1001', 1700000000999, 30000);
";
