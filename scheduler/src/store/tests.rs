//! What is opened, what is refused, what becomes of older files, and pages; and databases for tests.

use super::*;
use sqlx::{Connection as _, Row as _};
use std::sync::{Arc, Mutex, Weak};
use tempfile::TempDir;
use wheel::Legs;

/// The server that tests share while any of them runs.
static SERVER: Mutex<Weak<e2e::Postgres>> = Mutex::new(Weak::new());

/// A database of a test, gone when dropped.
pub(crate) enum Database {
    File(TempDir),
    /// With the name of the database.
    Server(Arc<e2e::Postgres>, String),
}

impl Database {
    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    pub(crate) fn server() -> Self {
        let server = {
            let mut shared = SERVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let server = shared.upgrade();
            let server = server.unwrap_or_else(|| Arc::new(e2e::Postgres::start().unwrap()));
            *shared = Arc::downgrade(&server);
            server
        };
        let name = format!("t{}", boot::new_id().replace('-', ""));
        server.psql(&format!("CREATE DATABASE {name}")).unwrap();
        Self::Server(server, name)
    }

    /// One of each kind.
    pub(crate) fn each() -> [Self; 2] {
        [Self::file(), Self::server()]
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(dir) => format!("sqlite:{}", dir.path().join("tasks.db").display()),
            Self::Server(server, name) => server.url().replace("/postgres", &format!("/{name}")),
        }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url()).await.unwrap()
    }
}

/// What a process holds that has all shards; in PostgreSQL under the token of the beginning.
fn all() -> Vec<Held> {
    (0..wheel::SHARDS).map(|shard| Held { shard, fence: 0 }).collect()
}

fn sample(id: u128) -> Task {
    let call_id = format!("call-{}", id % 3);
    Task {
        id: TaskId(id),
        state: State::Pending,
        fires_at_unix_ms: 1_000 + (id as i64 * 7) % 50,
        revision: 1,
        effect: Arc::new(Effect::HangUp {
            call_id: call_id.clone(),
            cause: "ALLOTTED_TIMEOUT".to_owned(),
            legs: Legs::Both,
        }),
        call_id,
        group: if id.is_multiple_of(2) { "even".to_owned() } else { String::new() },
        label: "grüße".to_owned(),
        tenant: if id.is_multiple_of(5) { "five".to_owned() } else { String::new() },
        edge: String::new(),
        created_unix_ms: 1,
        ended_unix_ms: 0,
        late_ms: 0,
        result: String::new(),
        repeat: id.is_multiple_of(7).then_some(Repeat {
            every_ms: 1_000,
            count: Some(2),
            until_unix_ms: None,
        }),
        occurrence: 0,
        missed: 0,
        remaining_ms: 0,
        cancel_requested: false,
        pinned: crate::clock::Pinned::default(),
    }
}

async fn insert(store: &Store, ids: impl IntoIterator<Item = u128>) {
    let (mut transaction, _) = store.begin(&all()).await.unwrap();
    let tasks: Vec<Task> = ids.into_iter().map(sample).collect();
    let tasks: Vec<(&Task, &str)> = tasks.iter().map(|task| (task, "")).collect();
    assert_eq!(transaction.insert(&tasks).await.unwrap(), []);
    transaction.commit().await.unwrap();
}

fn filter() -> Filter {
    Filter {
        call_id: String::new(),
        group: String::new(),
        tenant: None,
        states: vec![State::Pending, State::Firing],
        fires_from_unix_ms: None,
        fires_before_unix_ms: None,
        after: None,
        limit: 10,
    }
}

#[tokio::test]
async fn a_reopened_database_has_everything_and_is_not_migrated_twice() {
    for database in Database::each() {
        let store = database.open().await;
        insert(&store, 0..1_100).await; // More than one statement takes.
        let (mut transaction, held) = store.begin(&all()).await.unwrap();
        let ended = Task {
            state: State::Cancelled,
            revision: 2,
            ended_unix_ms: 9,
            result: "me\0".to_owned(),
            ..sample(4)
        };
        let update = Update { task: &ended, was: 1, claim: false };
        transaction.update(&[update], &held).await.unwrap();
        transaction.commit().await.unwrap();
        drop(store);

        let store = database.open().await;
        assert_eq!(store.get(TaskId(4)).await.unwrap().unwrap().revision, 2);
        for id in [0, 5, 7, 1_099] {
            assert_eq!(store.get(TaskId(id)).await.unwrap(), Some(sample(id)));
        }
        let mut live = Vec::new();
        for shard in 0..wheel::SHARDS {
            let of_shard = store.live(shard, None, i64::MAX, 10_000).await.unwrap();
            assert!(of_shard.is_sorted_by_key(|task| (task.fires_at_unix_ms, task.id)));
            assert!(of_shard.iter().all(|task| task.id.shard() == shard && !task.publishes));
            live.extend(of_shard);
        }
        assert_eq!(live.len(), 1_099);
    }
}

#[tokio::test]
async fn live_tasks_are_read_page_by_page_up_to_a_time() {
    for database in Database::each() {
        let store = database.open().await;
        insert(&store, (0..50).map(|nth| nth * 16)).await;
        let mut read = Vec::new();
        let mut after = None;
        loop {
            let page = store.live(0, after, 1_040, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id });
            read.extend(page.into_iter().map(|it| (it.fires_at_unix_ms, it.id)));
        }
        let mut expected: Vec<_> =
            (0..50).map(|nth| sample(nth * 16)).map(|it| (it.fires_at_unix_ms, it.id)).collect();
        expected.retain(|(fires_at, _)| *fires_at < 1_040);
        expected.sort_unstable();
        assert_eq!(read, expected);
    }
}

#[tokio::test]
async fn an_update_writes_all_or_says_that_it_did_not() {
    for database in Database::each() {
        let store = database.open().await;
        insert(&store, 0..3).await;
        let changed = |id| Task { state: State::Firing, revision: 2, ..sample(id) };
        let (first, second) = (changed(0), changed(1));
        for (was, claim) in [(7, true), (7, false)] {
            let (mut transaction, held) = store.begin(&all()).await.unwrap();
            let updates =
                [Update { task: &first, was: 1, claim }, Update { task: &second, was, claim }];
            transaction.update(&updates, &held).await.unwrap_err();
            drop(transaction);
            assert_eq!(store.get(TaskId(0)).await.unwrap(), Some(sample(0)));
        }
    }
}

#[tokio::test]
async fn who_lost_a_shard_holds_it_in_no_transaction_and_writes_nothing() {
    let database = Database::server();
    let store = database.open().await;
    insert(&store, [0]).await;
    let mut other = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let taken = sqlx::raw_sql("UPDATE shards SET fence = 1 WHERE shard = 0");
    taken.execute(&mut other).await.unwrap();
    let (transaction, held) = store.begin(&all()).await.unwrap();
    assert!(!held.iter().any(|held| held.shard == 0) && held.len() == 15);
    drop(transaction);
    // Even who has not looked: the token is in the statement itself.
    let (mut transaction, _) = store.begin(&[]).await.unwrap();
    let task = Task { state: State::Firing, revision: 2, ..sample(0) };
    let update = Update { task: &task, was: 1, claim: true };
    transaction.update(&[update], &[Held { shard: 0, fence: 0 }]).await.unwrap_err();
    drop(transaction);
    assert_eq!(store.get(TaskId(0)).await.unwrap(), Some(sample(0)));
}

#[tokio::test]
async fn two_schedulers_do_not_share_a_file() {
    let database = Database::file();
    let first = database.open().await;
    let refused = Store::open(&database.url()).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another scheduler uses it"), "{refused:#}");
    drop(first);
    database.open().await;
}

#[tokio::test]
async fn what_is_not_a_database_of_ours_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to have a header of one ".repeat(99))
        .unwrap();
    let newer = dir.path().join("newer.db");
    let url = format!("sqlite:{}", newer.display());
    drop(Store::open(&url).await.unwrap());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let newest = sqlx::raw_sql("INSERT INTO scheduler_schema VALUES (99)");
    newest.execute(&mut connection).await.unwrap();
    drop(connection);
    for (url, why) in [
        ("mysql://localhost/x".to_owned(), "wanted `sqlite:FILE`"),
        ("sqlite::memory:".to_owned(), "wanted `sqlite:FILE`"),
        (format!("sqlite:{}", text.display()), "not a database"),
        (format!("sqlite:{}", dir.path().join("no/such/dir/x.db").display()), "No such file"),
        (url, "newer"),
        ("postgres://me:secret@127.0.0.1:1/x".to_owned(), "127.0.0.1:1"),
    ] {
        let e = format!("{:#}", Store::open(&url).await.err().unwrap());
        assert!(e.contains(why) && !e.contains("secret"), "{url}: {e}");
    }
}

#[tokio::test]
async fn a_file_of_the_version_before_keeps_its_tasks() {
    let database = Database::file();
    let url = format!("{}?mode=rwc", database.url());
    let mut old = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let before = format!(
        "{}
         CREATE TABLE scheduler_schema (applied INTEGER NOT NULL) STRICT;
         INSERT INTO scheduler_schema VALUES (1);
         INSERT INTO tasks VALUES
             ('0193f0a4-7d6c-7c1e-8a55-0242ac12000b', 'call-1', 2, 5000, 3, 'hangup', 'USER_BUSY',
              'g', 'l', 'key', 1, 0, 0, ''),
             ('0193f0a4-7d6c-7c1e-8a55-0242ac12001b', 'call-1', 4, 6000, 2, 'hangup', 'USER_BUSY',
              '', '', NULL, 1, 7000, 0, 'me');",
        schema::SQLITE[0]
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(before)).execute(&mut old).await.unwrap();
    drop(old);

    let store = database.open().await;
    let [firing, ended] =
        [0x0b, 0x1b].map(|last| TaskId(0x0193_f0a4_7d6c_7c1e_8a55_0242_ac12_0000 + last));
    let kept = store.get(firing).await.unwrap().unwrap();
    let effect = Effect::HangUp {
        call_id: "call-1".to_owned(),
        cause: "USER_BUSY".to_owned(),
        legs: Legs::Both,
    };
    assert_eq!((kept.state, kept.revision, &*kept.effect), (State::Firing, 3, &effect));
    assert_eq!(store.live(11, None, i64::MAX, 9).await.unwrap().len(), 1);
    // What has ended is forgotten in its time, like what ends now.
    assert_eq!(store.get(ended).await.unwrap().unwrap().result, "me");
    let (mut transaction, _) = store.begin(&all()).await.unwrap();
    assert_eq!(transaction.by_keys(&[("", "key")]).await.unwrap()[0].1.id, firing);
    let old = Old { before_unix_ms: 7_001, told_seq: 1, before_seq: 0 };
    assert_eq!(transaction.forget(11, old, 9).await.unwrap(), 1);
    transaction.commit().await.unwrap();
    assert_eq!(store.get(ended).await.unwrap(), None);
    assert!(store.get(firing).await.unwrap().is_some());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    for database in Database::each() {
        let store = database.open().await;
        insert(&store, 0..95).await;
        for states in [vec![State::Pending], vec![State::Pending, State::Fired]] {
            let mut seen = Vec::new();
            let mut page = Filter { states, ..filter() };
            loop {
                let tasks = store.list(&page, usize::MAX, |_| 1).await.unwrap();
                let Some(last) = tasks.last() else { break };
                page.after = Some(Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id });
                let id = 1_000 * page.states.len() as u128 + seen.len() as u128;
                insert(&store, [id]).await; // Others write meanwhile.
                seen.extend(tasks.into_iter().map(|task| (task.fires_at_unix_ms, task.id)));
            }
            let of_the_start: Vec<_> = seen.iter().filter(|(_, id)| id.0 < 1_000).collect();
            assert_eq!(of_the_start.len(), 95);
            assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}

#[tokio::test]
async fn a_list_holds_what_the_filter_says_and_no_more_bytes_than_allowed() {
    for database in Database::each() {
        let store = database.open().await;
        insert(&store, 0..30).await;
        let ids = async |filter: &Filter| -> Vec<u128> {
            let tasks = store.list(filter, usize::MAX, |_| 1).await.unwrap();
            tasks.into_iter().map(|task| task.id.0).collect()
        };
        let of_call = Filter { call_id: "call-1".to_owned(), ..filter() };
        assert!(ids(&of_call).await.iter().all(|id| id % 3 == 1));
        let of_group = Filter { group: "even".to_owned(), limit: 100, ..filter() };
        assert_eq!(ids(&of_group).await.len(), 15);
        let of_tenant = Filter { tenant: Some("five".to_owned()), limit: 100, ..filter() };
        assert_eq!(ids(&of_tenant).await.len(), 6);
        let of_nobody = Filter { tenant: Some(String::new()), limit: 100, ..filter() };
        assert_eq!(ids(&of_nobody).await.len(), 24);
        let of_state = Filter { states: vec![State::Fired], ..filter() };
        assert_eq!(ids(&of_state).await, []);
        let of_time = Filter {
            fires_from_unix_ms: Some(1_007),
            fires_before_unix_ms: Some(1_015),
            ..filter()
        };
        let tasks = store.list(&of_time, usize::MAX, |_| 1).await.unwrap();
        assert!(!tasks.is_empty());
        assert!(tasks.iter().all(|task| (1_007..1_015).contains(&task.fires_at_unix_ms)));
        let by_bytes = store.list(&filter(), 250, |_| 100).await.unwrap();
        assert_eq!(by_bytes.len(), 3);
    }
}

#[tokio::test]
async fn a_checkpoint_leaves_nothing_in_the_log_of_commits() {
    let database = Database::file();
    let store = database.open().await;
    insert(&store, 0..100).await;
    store.checkpoint().await.unwrap();
    let Store::Sqlite(file) = &store else { unreachable!() };
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&file.writer).await.unwrap();
    let (pages, moved): (i64, i64) = (row.get(1), row.get(2));
    assert!(pages > 0 && pages == moved, "{moved} of {pages}");
    let row = sqlx::query("PRAGMA wal_autocheckpoint").fetch_one(&file.writer).await.unwrap();
    assert_eq!(row.get::<i64, _>(0).to_string(), sqlite::LOG_PAGES_MAX);
}
