//! Rows on a real SQLite file come back as they went.

use super::*;
use tempfile::TempDir;

struct Database {
    store: Store,
    folder: TempDir,
}

impl Database {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(&url(&folder)).await.unwrap(), folder }
    }

    /// As after the death of the process.
    async fn reopen(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        Self { store: Store::open(&url(&folder)).await.unwrap(), folder }
    }

    async fn save(&self, callers: &[Caller]) {
        let writes = callers.iter().map(|it| (it.call_id.clone(), Write::Save(it.clone())));
        self.store.write(&writes.collect()).await.unwrap();
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
        place: Place { sequence },
        arrived_at: 1_700_000_000_123 + i64::try_from(sequence).unwrap(),
        from: format!("\"{}\" <sip:a@b>;tag=1", "ä".repeat(200)),
        contact: String::new(),
        state,
    }
}

fn leaving() -> CallerState {
    CallerState::Leaving(Assignment {
        id: AssignmentId::new("assignment-1"),
        agent: Agent::parse("sip:1001@10.0.0.1").unwrap(),
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
    let gone = BTreeMap::from([(caller(1, leaving()).call_id, Write::Delete)]);
    database.store.write(&gone).await.unwrap();
    database.store.write(&gone).await.unwrap();
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
    let large = BTreeMap::from([(large.call_id.clone(), Write::Save(large))]);
    let row = SettingsRow { name: "abc".into(), uri: "sip:1@h".into(), ..SettingsRow::default() };
    let large_row = SettingsRow { mohfile: from, ..row.clone() };
    for _ in 0..=CONNECTIONS {
        database.limit_pages(1).await;
        assert!(matches!(database.store.write(&large).await, Err(StoreError::Away(_))));
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
    let refused = Store::open(&url(&database.folder)).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another queue-svc uses it"), "{refused:#}");
    database.reopen().await;
}
