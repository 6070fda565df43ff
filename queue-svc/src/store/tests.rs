//! Rows come back as they went, from a file of SQLite, from PostgreSQL and from MariaDB.

use super::*;
use queue::{
    Address, AgentName, AgentSettings, Assignment, AssignmentId, CallerState, EmptyRule,
    Membership, Place, Presence, Strategy, Target, Work,
};
use std::cmp::Reverse;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tempfile::TempDir;

/// The servers that tests share while any of them runs.
static POSTGRES: Mutex<Weak<e2e::Postgres>> = Mutex::new(Weak::new());
static MARIADB: Mutex<Weak<e2e::MariaDb>> = Mutex::new(Weak::new());

/// A database of a test.
enum Home {
    File(TempDir),
    Postgres { url: String, _server: Arc<e2e::Postgres> },
    MariaDb { url: String, server: Arc<e2e::MariaDb> },
}

struct Database {
    store: Store,
    home: Home,
}

fn shared<T>(server: &Mutex<Weak<T>>, start: impl FnOnce() -> anyhow::Result<T>) -> Arc<T> {
    let mut shared = server.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let server = shared.upgrade().unwrap_or_else(|| Arc::new(start().unwrap()));
    *shared = Arc::downgrade(&server);
    server
}

fn in_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

impl Home {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Self {
        let server = shared(&POSTGRES, e2e::Postgres::start);
        let name = format!("t{}", boot::new_id().replace('-', ""));
        server.psql(&format!("CREATE DATABASE {name}")).unwrap();
        let url = in_database(&server.url(), &name);
        Self::Postgres { url, _server: server }
    }

    fn mariadb() -> Self {
        let server = shared(&MARIADB, e2e::MariaDb::start);
        let name = format!("t{}", boot::new_id().replace('-', ""));
        // As Kamailio's own tool makes it: the tables of others need not be able to hold every letter.
        server.sql(&format!("CREATE DATABASE {name} CHARACTER SET latin1")).unwrap();
        let url = in_database(&server.url(), &name);
        Self::MariaDb { url, server }
    }

    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("sqlite:{}", folder.path().join("queue.db").display()),
            Self::Postgres { url, .. } | Self::MariaDb { url, .. } => url.clone(),
        }
    }

    async fn open(self) -> Database {
        Database { store: opened(&self.url()).await, home: self }
    }
}

/// Opened as soon as nobody else has the file: a process that another test is just about to start holds
/// what was open here until it runs a program of its own.
pub(super) async fn opened(url: &str) -> Store {
    loop {
        match Store::open(url, Synchronous::Full).await {
            Err(e) if format!("{e:#}").contains("another queue-svc uses it") => {
                tokio::task::yield_now().await;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// One of each kind that replicas can share.
fn shared_homes() -> [Home; 2] {
    [Home::postgres(), Home::mariadb()]
}

/// One of each kind.
fn homes() -> [Home; 3] {
    [Home::file(), Home::postgres(), Home::mariadb()]
}

/// What nobody has taken over yet.
const FENCE: Fence = Fence(0);

impl Database {
    /// As after the death of the process.
    async fn reopen(self) -> Self {
        let Self { store, home } = self;
        drop(store);
        let database = home.open().await;
        database.store.tidy(FENCE).await.unwrap();
        database
    }

    async fn save(&self, callers: &[Caller]) {
        self.store.write(FENCE, &saved(callers), None).await.unwrap();
    }

    async fn by_hand(&self, sql: &'static str) {
        match &self.store.database {
            super::Database::Sqlite(it) => sqlx::raw_sql(sql).execute(it.pool()).await.map(drop),
            super::Database::Postgres(it) => sqlx::raw_sql(sql).execute(it.pool()).await.map(drop),
            super::Database::Mysql(it) => sqlx::raw_sql(sql).execute(it.pool()).await.map(drop),
        }
        .unwrap();
    }

    /// What a statement says, as text.
    async fn asked(&self, sql: &'static str) -> String {
        match &self.store.database {
            super::Database::Sqlite(it) => sqlx::query_scalar(sql).fetch_one(it.pool()).await,
            super::Database::Postgres(it) => sqlx::query_scalar(sql).fetch_one(it.pool()).await,
            super::Database::Mysql(it) => sqlx::query_scalar(sql).fetch_one(it.pool()).await,
        }
        .unwrap()
    }
}

pub(super) fn saved(callers: &[Caller]) -> Batch {
    let writes = callers.iter().map(|it| (it.call_id.clone(), Write::Save(it.clone())));
    Batch { callers: writes.collect(), ..Batch::default() }
}

pub(super) fn caller(sequence: u64, state: CallerState) -> Caller {
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
    for home in homes() {
        let database = home.open().await;
        let third = caller(300, CallerState::Entering);
        let first = caller(1, leaving());
        let second = caller(20, CallerState::InQueue);
        database.save(&[third.clone(), first.clone(), second.clone()]).await;
        let database = database.reopen().await;
        assert_eq!(database.store.load_callers().await.unwrap(), [first, second, third]);
    }
}

#[tokio::test]
async fn row_follows_its_caller_until_it_is_deleted() {
    for home in homes() {
        let database = home.open().await;
        for state in [CallerState::Entering, CallerState::InQueue, leaving(), CallerState::InQueue]
        {
            let moved = Caller { queue: QueueId(9), ..caller(1, state) };
            database.save(std::slice::from_ref(&moved)).await;
            assert_eq!(database.store.load_callers().await.unwrap(), [moved]);
        }
        let callers = BTreeMap::from([(caller(1, leaving()).call_id, Write::Delete)]);
        let gone = Batch { callers, ..Batch::default() };
        database.store.write(FENCE, &gone, None).await.unwrap();
        database.store.write(FENCE, &gone, None).await.unwrap();
        assert_eq!(database.store.load_callers().await.unwrap(), []);
    }
}

#[tokio::test]
async fn rows_changed_by_hand_never_lose_anybody_else() {
    for home in homes() {
        let database = home.open().await;
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
}

#[tokio::test]
async fn queues_are_written_as_they_are_read() {
    for home in homes() {
        let database = home.open().await;
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
        let id = database.store.insert_queue(FENCE, &row).await.unwrap();
        assert!(matches!(database.store.insert_queue(FENCE, &row).await, Err(StoreError::Taken)));
        let database = database.reopen().await;
        let queues = database.store.load_queues().await.unwrap();
        assert_eq!(queues, BTreeMap::from([(id, row.clone())]));
        let renamed = SettingsRow { name: "def".into(), max_calls: 3, ..row };
        database.store.update_queue(FENCE, id, &renamed).await.unwrap();
        assert_eq!(
            database.store.load_queues().await.unwrap(),
            BTreeMap::from([(id, renamed.clone())])
        );
        database.store.delete_queue(FENCE, id).await.unwrap();
        let missing = database.store.update_queue(FENCE, id, &renamed).await;
        assert!(matches!(missing, Err(StoreError::Missing)));
        assert_eq!(database.store.load_queues().await.unwrap(), BTreeMap::new());
    }
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
    for home in homes() {
        let database = home.open().await;
        let call_id = CallId::parse("c").unwrap();
        let agents = [
            agent("a", Presence::LoggedOut, Work::Free),
            agent("b", Presence::Ready, Work::Talking { call_id, queue: QueueId(7), since: 12 }),
            agent("c", Presence::Paused("lunch".into()), Work::WrapUp { until: 13 }),
        ];
        for agent in &agents {
            database.store.write(FENCE, &of(agent, true), None).await.unwrap();
        }
        let database = database.reopen().await;
        assert_eq!(database.store.load_agents().await.unwrap(), agents);

        let mut changed = agents[0].clone();
        changed.settings.memberships.clear();
        changed.presence = Presence::Ready;
        database.store.write(FENCE, &of(&changed, false), None).await.unwrap();
        changed.settings.memberships = agents[0].settings.memberships.clone();
        assert_eq!(database.store.load_agents().await.unwrap()[0], changed, "but for its queues");
        let mut gone = Batch::default();
        gone.put_agent(name("a"), WriteAgent::Delete);
        database.store.write(FENCE, &gone, None).await.unwrap();
        assert_eq!(database.store.load_agents().await.unwrap(), agents[1..]);
    }
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

fn told(revision: i64, old_unix_ms: i64) -> Option<Told> {
    Some(Told { revision, old_unix_ms })
}

fn changes(range: std::ops::Range<i64>) -> Batch {
    let change = |at: i64| Change { at_unix_ms: at, event: at.to_be_bytes().to_vec() };
    Batch { changes: range.map(change).collect(), ..Batch::default() }
}

#[tokio::test]
async fn log_counts_without_gaps_also_over_what_is_forgotten_and_a_restart() {
    for home in homes() {
        let database = home.open().await;
        let store = &database.store;
        assert_eq!(store.reach().await.unwrap(), Reach { first: 1, last: 0, told: 0 });
        store.write(FENCE, &changes(0..1_200), None).await.unwrap();
        assert_eq!(store.reach().await.unwrap(), Reach { first: 1, last: 1_200, told: 0 });
        let read = store.changes(1_100, 3).await.unwrap();
        let read: Vec<_> = read.into_iter().map(|it| (it.revision, it.event)).collect();
        let wanted = |revision: i64| (revision, (revision - 1).to_be_bytes().to_vec());
        assert_eq!(read, [1_101, 1_102, 1_103].map(wanted));

        // Only what NATS has may be forgotten, and of that only what is old.
        store.write(FENCE, &Batch::default(), told(700, 1_000_000)).await.unwrap();
        assert_eq!(store.reach().await.unwrap(), Reach { first: 701, last: 1_200, told: 700 });
        store.write(FENCE, &Batch::default(), told(1_200, 800)).await.unwrap();
        assert_eq!(store.reach().await.unwrap(), Reach { first: 801, last: 1_200, told: 1_200 });
        store.write(FENCE, &Batch::default(), told(900, 1_000_000)).await.unwrap();
        assert_eq!(store.reach().await.unwrap(), Reach { first: 1_201, last: 1_200, told: 1_200 });

        let database = database.reopen().await;
        database.store.write(FENCE, &changes(0..1), None).await.unwrap();
        assert_eq!(database.store.changes(0, 9).await.unwrap()[0].revision, 1_201);
    }
}

#[tokio::test]
async fn a_write_says_which_revision_is_the_last() {
    for home in homes() {
        let database = home.open().await;
        let store = &database.store;
        assert_eq!(store.write(FENCE, &Batch::default(), None).await.unwrap(), 0);
        assert_eq!(store.write(FENCE, &changes(0..3), None).await.unwrap(), 3);
        let told = told(3, 1_000_000);
        assert_eq!(store.write(FENCE, &Batch::default(), told).await.unwrap(), 3);
        assert_eq!(store.write(FENCE, &changes(0..1), None).await.unwrap(), 4);
    }
}

#[tokio::test]
async fn a_row_that_is_written_again_uses_up_no_id() {
    for home in homes() {
        let database = home.open().await;
        for state in [CallerState::Entering, CallerState::InQueue, leaving()] {
            database.save(&[caller(1, state)]).await;
        }
        database.save(&[caller(1, CallerState::InQueue), caller(2, CallerState::Entering)]).await;
        let ids = "SELECT CAST(MAX(id) AS CHAR(9)) FROM mohqcalls";
        assert_eq!(database.asked(ids).await.trim(), "2");
    }
}

#[tokio::test]
async fn a_row_for_dashboards_says_what_mohqueue_would() {
    for home in homes() {
        let database = home.open().await;
        let from = format!("\"Zoë 🎧\" <sip:{}@b>", "x".repeat(200));
        database.save(&[Caller { from, ..caller(1, leaving()) }]).await;
        let row =
            "SELECT CONCAT(mohq_id, ' ', call_id, ' ', call_status, ' ', CHAR_LENGTH(call_from))
            FROM mohqcalls WHERE call_from LIKE '\"Zo_ _%' AND call_contact = ''";
        let row = match database.home {
            Home::File(_) => {
                "SELECT mohq_id || ' ' || call_id || ' ' || call_status || ' ' || length(call_from)
                 FROM mohqcalls WHERE call_from LIKE '\"Zo_ _%' AND call_contact = ''"
            }
            _ => row,
        };
        assert_eq!(database.asked(row).await, "7 call-1 3 100");
        let time = match database.home {
            Home::MariaDb { .. } => "SELECT CAST(call_time AS CHAR) FROM mohqcalls",
            _ => "SELECT CAST(call_time AS TEXT) FROM mohqcalls",
        };
        assert_eq!(database.asked(time).await, "2023-11-14 22:13:20");
    }
}

#[tokio::test]
async fn a_queue_put_in_by_hand_with_an_id_is_in_nobodys_way() {
    for home in homes() {
        let database = home.open().await;
        database
            .by_hand(
                "INSERT INTO mohqueues (id, name, uri, mohdir, mohfile, debug)
                 VALUES (1, 'abc', 'sip:1@h', NULL, 'm', 0)",
            )
            .await;
        let named = |name: &str| SettingsRow {
            name: name.into(),
            uri: format!("sip:{name}@h"),
            ..SettingsRow::default()
        };
        assert_eq!(database.store.insert_queue(FENCE, &named("b")).await.unwrap(), QueueId(2));
        database
            .by_hand(
                "INSERT INTO mohqueues (name, uri, mohfile, debug) VALUES ('c', 'sip:c@h', '', 0)",
            )
            .await;
        assert_eq!(database.store.insert_queue(FENCE, &named("d")).await.unwrap(), QueueId(4));
        let names: Vec<_> =
            database.store.load_queues().await.unwrap().into_values().map(|it| it.name).collect();
        assert_eq!(names, ["abc", "b", "c", "d"]);
    }
}

#[tokio::test]
async fn two_replicas_make_the_tables_at_the_same_time() {
    for home in shared_homes() {
        let url = home.url();
        let open = || Store::open(&url, Synchronous::Normal);
        let opened = futures::future::join_all([open(), open(), open()]).await;
        for store in opened {
            assert_eq!(store.unwrap().reach().await.unwrap(), Reach { first: 1, last: 0, told: 0 });
        }
    }
}

#[tokio::test]
async fn tables_of_an_unknown_version_are_not_touched_by_replicas() {
    for home in shared_homes() {
        let database = home.open().await;
        database
            .by_hand(
                "UPDATE version SET table_version = 2 WHERE table_name = 'mohqcalls';
                 DROP TABLE queue_owner",
            )
            .await;
        let url = database.home.url();
        let refused = Store::open(&url, Synchronous::Normal).await.err().unwrap();
        let says = "table mohqcalls has version 2 in table `version`, wanted 1";
        assert!(format!("{refused:#}").contains(says), "{refused:#}");
        let count = match database.home {
            Home::MariaDb { .. } => {
                "SELECT CAST(COUNT(*) AS CHAR(9)) FROM information_schema.tables
                 WHERE table_name = 'queue_owner' AND table_schema = DATABASE()"
            }
            _ => {
                "SELECT CAST(COUNT(*) AS CHAR(9)) FROM information_schema.tables
                 WHERE table_name = 'queue_owner'"
            }
        };
        assert_eq!(database.asked(count).await.trim(), "0");
    }
}

#[tokio::test]
async fn a_table_without_transactions_is_refused() {
    let home = Home::mariadb();
    let Home::MariaDb { server, url } = &home else { unreachable!() };
    let name = url.rsplit('/').next().unwrap();
    server.sql(&format!("CREATE TABLE {name}.mohqcalls (id INT) ENGINE = MyISAM")).unwrap();
    let refused = Store::open(url, Synchronous::Normal).await.err().unwrap();
    assert!(
        format!("{refused:#}").contains("ALTER TABLE mohqcalls ENGINE = InnoDB"),
        "{refused:#}"
    );
}

fn claimant(name: &str) -> Claimant {
    Claimant { name: name.into(), address: format!("http://{name}") }
}

/// Longer than any test takes.
const LEASE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn one_replica_has_the_lease_and_only_its_token_writes() {
    for home in shared_homes() {
        let database = home.open().await;
        let store = &database.store;
        let mut leases = store.leases().unwrap();
        let (a, b) = (claimant("a"), claimant("b"));
        let first = leases.ask(&a, Wish::Take, LEASE).await.unwrap();
        let of = |holder: &str, fence, done| View {
            done,
            fence,
            holder: holder.into(),
            address: format!("http://{holder}"),
            alive: true,
        };
        assert_eq!(first, of("a", 1, true));
        assert_eq!(leases.ask(&b, Wish::Take, LEASE).await.unwrap(), of("a", 1, false));
        assert_eq!(leases.ask(&a, Wish::Renew(Fence(1)), LEASE).await.unwrap(), of("a", 1, true));
        assert_eq!(leases.ask(&b, Wish::Renew(Fence(1)), LEASE).await.unwrap(), of("a", 1, false));
        assert_eq!(leases.ask(&b, Wish::Look, LEASE).await.unwrap(), of("a", 1, true));
        assert_eq!(store.write(Fence(1), &changes(0..1), None).await.unwrap(), 1);

        database.by_hand("UPDATE queue_owner SET until_unix_ms = until_unix_ms - 900000").await;
        let late = leases.ask(&a, Wish::Renew(Fence(1)), LEASE).await.unwrap();
        assert!(!late.done && !late.alive, "{late:?}");
        assert_eq!(leases.ask(&b, Wish::Take, LEASE).await.unwrap(), of("b", 2, true));
        for lost in [
            store.write(Fence(1), &saved(&[caller(1, CallerState::InQueue)]), None).await.map(drop),
            store.insert_queue(Fence(1), &SettingsRow::default()).await.map(drop),
            store.update_queue(Fence(1), QueueId(1), &SettingsRow::default()).await,
            store.delete_queue(Fence(1), QueueId(1)).await,
            store.tidy(Fence(1)).await,
        ] {
            assert!(matches!(lost, Err(StoreError::Lost)), "{lost:?}");
        }
        assert_eq!(store.load_callers().await.unwrap(), []);
        assert_eq!(store.write(Fence(2), &changes(0..1), None).await.unwrap(), 2);

        assert!(!leases.ask(&a, Wish::Release(Fence(1)), LEASE).await.unwrap().done);
        let released = leases.ask(&b, Wish::Release(Fence(2)), LEASE).await.unwrap();
        assert!(released.done && !released.alive, "{released:?}");
        assert_eq!(leases.ask(&a, Wish::Take, LEASE).await.unwrap(), of("a", 3, true));
    }
}

#[tokio::test]
async fn a_process_that_stands_still_amid_a_transaction_does_not_hold_up_who_takes_over() {
    for home in shared_homes() {
        let database = home.open().await;
        let lock = "SELECT fence FROM queue_log WHERE id = 1 FOR UPDATE";
        let (mut postgres, mut mysql) = (None, None);
        match &database.store.database {
            super::Database::Sqlite(_) => unreachable!("replicas do not share it"),
            super::Database::Postgres(it) => {
                let tx = postgres.insert(it.pool().begin().await.unwrap());
                sqlx::raw_sql(lock).execute(&mut **tx).await.unwrap();
            }
            super::Database::Mysql(it) => {
                let tx = mysql.insert(it.pool().begin().await.unwrap());
                sqlx::raw_sql(lock).execute(&mut **tx).await.unwrap();
            }
        }
        let mut leases = database.store.leases().unwrap();
        let me = claimant("a");
        // The answer to the one that succeeds may come too late.
        let ours = |view: View| view.alive && view.holder == me.name;
        let take = async { while !leases.ask(&me, Wish::Take, LEASE).await.is_ok_and(ours) {} };
        tokio::time::timeout(Duration::from_secs(60), take).await.expect("the lock is let go");
    }
}
