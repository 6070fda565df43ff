//! A start that fails says why, in one line, on stderr.

use crate::world::{command, open};
use e2e::NatsServer;
use sqlx::Executor as _;
use tempfile::TempDir;

#[tokio::test]
async fn start_that_cannot_be_says_why() {
    let nats = NatsServer::start().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flags, says) in [
        (["--max-calls", "0"], "invalid value '0' for '--max-calls <CALLS>'"),
        (
            ["--database-url", "mongodb://user:secret@h/d"],
            "read --database-url that begins with \"mongodb\" (wanted `sqlite:`",
        ),
        (["--database-url", "sqlite::memory:"], "(wanted `sqlite:` and a file"),
        (
            ["--database-url", "sqlite:/nonexistent/q.db"],
            "open --database-url sqlite:/nonexistent/q.db",
        ),
        (["--sip-edge", "nowhere"], "read --sip-edge \"nowhere\""),
        (["--nats-url", "nats://127.0.0.1:1"], "connect to NATS at nats://127.0.0.1:1"),
        (["--grpc", taken.as_str()], "bind --grpc 127.0.0.1:"),
    ] {
        fails(&nats, &tempfile::tempdir().unwrap(), &flags, says);
    }
}

#[tokio::test]
async fn table_of_an_unknown_version_is_not_touched() {
    let nats = NatsServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let newer = "CREATE TABLE version (table_name VARCHAR(32), table_version INTEGER);
        INSERT INTO version VALUES ('mohqcalls', 2)";
    let mut other = open(&folder).await;
    other.execute(newer).await.unwrap();
    let says = "table mohqcalls has version 2 in table `version`, wanted 1";
    fails(&nats, &folder, &[], says);
    let tables = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut other).await.unwrap();
    assert_eq!(tables, 1);
}

#[track_caller]
fn fails(nats: &NatsServer, folder: &TempDir, flags: &[&str], says: &str) {
    let given = ["--grpc", "--database-url", "--nats-url", "--sip-edge"];
    let mut with_all = command(folder, &nats.url(), "http://127.0.0.1:1");
    let mut bare = std::process::Command::new(with_all.get_program());
    let run = if flags.first().is_some_and(|flag| given.contains(flag)) {
        let mut defaults = vec![
            ["--grpc".to_owned(), "127.0.0.1:0".to_owned()],
            ["--database-url".to_owned(), "sqlite:queue.db".to_owned()],
            ["--nats-url".to_owned(), nats.url()],
            ["--sip-edge".to_owned(), "http://127.0.0.1:1".to_owned()],
        ];
        defaults.retain(|pair| pair[0] != flags[0]);
        bare.current_dir(folder.path()).args(defaults.concat());
        &mut bare
    } else {
        &mut with_all
    };
    let ended = run.args(flags).output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    let own: Vec<_> =
        stderr.lines().filter(|it| !it.starts_with('{') && it.contains(says)).collect();
    assert_eq!(own.len(), 1, "{flags:?} should say {says:?} once: {stderr}");
}
