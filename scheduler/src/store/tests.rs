//! On a real file: what is opened, what is refused, and what another process may do meanwhile.

use super::*;
use tempfile::TempDir;

fn url(dir: &TempDir) -> String {
    format!("sqlite:{}", dir.path().join("tasks.db").display())
}

fn sample(id: u128) -> Task {
    Task {
        id: TaskId(id),
        call_id: format!("call-{}", id % 3),
        state: State::Pending,
        fires_at_unix_ms: 1_000 + (id as i64 * 7) % 50,
        revision: 1,
        cause: "ALLOTTED_TIMEOUT".to_owned(),
        group: if id.is_multiple_of(2) { "even".to_owned() } else { String::new() },
        label: "grüße".to_owned(),
        created_unix_ms: 1,
        ended_unix_ms: 0,
        late_ms: 0,
        result: String::new(),
    }
}

async fn insert(store: &Store, ids: impl IntoIterator<Item = u128>) {
    let mut transaction = store.begin().await.unwrap();
    for id in ids {
        transaction.insert(&sample(id), "").await.unwrap();
    }
    transaction.commit().await.unwrap();
}

fn filter() -> Filter {
    Filter {
        call_id: String::new(),
        group: String::new(),
        states: vec![State::Pending, State::Firing],
        after: None,
        limit: 10,
    }
}

#[tokio::test]
async fn a_reopened_file_has_everything_and_is_not_migrated_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    insert(&store, 0..20).await;
    let mut transaction = store.begin().await.unwrap();
    let arrow = (State::Pending, Event::Claimed);
    transaction.change(TaskId(3), arrow, 1, Ending::default()).await.unwrap().unwrap();
    let arrow = (State::Pending, Event::Cancelled);
    let ending = Ending { ended_unix_ms: 9, late_ms: 0, result: "me".to_owned() };
    let cancelled = transaction.change(TaskId(4), arrow, 0, ending).await.unwrap().unwrap();
    transaction.commit().await.unwrap();
    drop(store);

    let store = Store::open(&url(&dir)).await.unwrap();
    let live = store.live().await.unwrap();
    assert_eq!(live.len(), 19);
    assert!(live.is_sorted_by_key(|task| (task.fires_at_unix_ms, task.id)));
    let firing: Vec<_> = live.iter().filter(|task| task.firing).collect();
    assert_eq!((firing.len(), firing[0].id, firing[0].revision), (1, TaskId(3), 2));
    assert_eq!(store.get(TaskId(4)).await.unwrap(), Some(cancelled));
    assert_eq!(store.get(TaskId(5)).await.unwrap(), Some(sample(5)));
}

#[tokio::test]
async fn a_transaction_that_is_not_committed_did_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    transaction.insert(&sample(1), "key").await.unwrap();
    drop(transaction);
    assert_eq!(store.get(TaskId(1)).await.unwrap(), None);
    insert(&store, [1]).await;
}

#[tokio::test]
async fn two_schedulers_do_not_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(&url(&dir)).await.unwrap();
    let refused = Store::open(&url(&dir)).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another scheduler uses it"), "{refused:#}");
    drop(first);
    Store::open(&url(&dir)).await.unwrap();
}

#[tokio::test]
async fn what_is_not_a_file_of_ours_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to have a header of one ".repeat(99))
        .unwrap();
    let newer = dir.path().join("newer.db");
    let store = Store::open(&format!("sqlite:{}", newer.display())).await.unwrap();
    sqlx::raw_sql("INSERT INTO scheduler_schema VALUES (99)").execute(&store.writer).await.unwrap();
    drop(store);
    for (url, why) in [
        ("postgres://localhost/x".to_owned(), "wanted `sqlite:FILE`"),
        ("sqlite::memory:".to_owned(), "wanted `sqlite:FILE`"),
        (format!("sqlite:{}", text.display()), "not a database"),
        (format!("sqlite:{}", dir.path().join("no/such/dir/x.db").display()), "No such file"),
        (format!("sqlite:{}", newer.display()), "newer"),
    ] {
        let e = format!("{:#}", Store::open(&url).await.err().unwrap());
        assert!(e.contains(&url) && e.contains(why), "{url}: {e}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    insert(&store, 0..95).await;
    let mut seen = Vec::new();
    let mut page = filter();
    loop {
        let tasks = store.list(&page, usize::MAX, |_| 1).await.unwrap();
        let Some(last) = tasks.last() else { break };
        page.after = Some(Cursor { fires_at_unix_ms: last.fires_at_unix_ms, id: last.id });
        insert(&store, [1_000 + seen.len() as u128]).await; // Others write meanwhile.
        seen.extend(tasks.into_iter().map(|task| (task.fires_at_unix_ms, task.id)));
    }
    let of_the_start: Vec<_> = seen.iter().filter(|(_, id)| id.0 < 1_000).collect();
    assert_eq!(of_the_start.len(), 95);
    assert!(seen.is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn a_list_holds_what_the_filter_says_and_no_more_bytes_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    insert(&store, 0..30).await;
    let ids = async |filter: &Filter| -> Vec<u128> {
        let tasks = store.list(filter, usize::MAX, |_| 1).await.unwrap();
        tasks.into_iter().map(|task| task.id.0).collect()
    };
    let of_call = Filter { call_id: "call-1".to_owned(), ..filter() };
    assert!(ids(&of_call).await.iter().all(|id| id % 3 == 1));
    let of_group = Filter { group: "even".to_owned(), limit: 100, ..filter() };
    assert_eq!(ids(&of_group).await.len(), 15);
    let of_state = Filter { states: vec![State::Fired], ..filter() };
    assert_eq!(ids(&of_state).await, []);
    let by_bytes = store.list(&filter(), 250, |_| 100).await.unwrap();
    assert_eq!(by_bytes.len(), 3);
}

#[tokio::test]
async fn old_ends_are_forgotten_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    insert(&store, 0..10).await;
    let mut transaction = store.begin().await.unwrap();
    for id in 0..6 {
        let ending = Ending { ended_unix_ms: 100 + id as i64, ..Ending::default() };
        let arrow = (State::Pending, Event::Cancelled);
        transaction.change(TaskId(id), arrow, 0, ending).await.unwrap().unwrap();
    }
    assert_eq!(transaction.forget(103, 2).await.unwrap(), 2);
    assert_eq!(transaction.forget(103, 99).await.unwrap(), 1);
    transaction.commit().await.unwrap();
    assert_eq!(store.ended().await.unwrap(), 3);
    assert_eq!(store.get(TaskId(2)).await.unwrap(), None);
    assert!(store.get(TaskId(3)).await.unwrap().is_some());
    assert_eq!(store.live().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_checkpoint_leaves_nothing_in_the_log_of_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&url(&dir)).await.unwrap();
    insert(&store, 0..100).await;
    store.checkpoint().await.unwrap();
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&store.writer).await.unwrap();
    let (pages, moved): (i64, i64) = (row.get(1), row.get(2));
    assert!(pages > 0 && pages == moved, "{moved} of {pages}");
    let row = sqlx::query("PRAGMA wal_autocheckpoint").fetch_one(&store.writer).await.unwrap();
    assert_eq!(row.get::<i64, _>(0).to_string(), LOG_PAGES_MAX);
}
