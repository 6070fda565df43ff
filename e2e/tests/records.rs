//! `--cdr-database-url`: each call that has ended is one row, with who ended it and why, whatever dies.

use anyhow::{Context as _, ensure};
use e2e::audio::Codec;
use e2e::phone::{PATIENCE, Phone};
use e2e::{Cut, MariaDb, NatsServer, Postgres, Process, QUEUE_USER, Stack, binary, free_ports};
use proto::sip_edge::v1::HangupRequest;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const CALLS: [&str; 2] =
    ["0193a1b2-c3d4-7e5f-8a6b-0123456789ab", "0193a1b2-c3d4-7e5f-8a6b-0123456789ac"];
const COUNT: &str = "SELECT COUNT(*) FROM call_records";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_an_operator_ends_is_a_row_that_says_so() -> anyhow::Result<()> {
    let stack = Stack::start_with(&["--cdr-database-url", "sqlite:calls.db"])?;
    stack.create_queue().await?;
    let caller = Phone::start("alice", Codec::Pcmu)?;
    let calling = caller.dial(stack.sip(), &stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    let call_id = stack.calls().await?.pop().context("find the call")?.call_id;
    let hangup = HangupRequest { call_id: call_id.clone(), ..HangupRequest::default() };
    stack.sip_edge().hangup(hangup).await?;
    caller.wait_bye(PATIENCE)?;
    let call = stack.wait_ended(&call_id).await?;
    let sql = "SELECT call_id, from_uri, to_uri, route, cause, ended_by, sip_call_id_a, \
               created_unix_ms, answered_unix_ms, ended_unix_ms FROM call_records";
    let path = stack.folder().join("calls.db");
    let read = || {
        let mut sqlite3 = Command::new("sqlite3");
        let output = sqlite3.args(["-readonly"]).arg(&path).arg(sql).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned()) // None while there is no table.
    };
    let row = wait_for(read, |row| !row.is_empty())?;
    let [created, answered, ended] =
        [call.created_unix_ms, call.answered_unix_ms, call.ended_unix_ms];
    let wanted = format!(
        "{call_id}|{}|{}|queues|NORMAL_CLEARING|api|{}|{created}|{answered}|{ended}",
        call.from_uri,
        stack.uri(QUEUE_USER),
        calling.sip_call_id(),
    );
    assert_eq!(row, wanted);
    stack.stop()
}

/// Both must leave one row of each call: the database is away when the first call ends, and the writer
/// is killed between the insert of the second one and its acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_one_row_whatever_dies() -> anyhow::Result<()> {
    let mut postgres = Postgres::start()?;
    let mut nats = NatsServer::start()?;
    let cut = Cut::before(nats.url().trim_start_matches("nats://").parse()?)?;
    let mut edge = start_edge(&format!("nats://{}", cut.addr()), &postgres.url())?;

    postgres.stop()?;
    end(&nats, CALLS[0]).await?;
    edge.wait_for("that it tries again", LIMIT, |line| {
        line.contains("failed to handle event").then_some(())
    })?;
    postgres.start_again()?;
    let count = || postgres.psql(COUNT);
    wait_for(|| Ok(count().unwrap_or_default()), |rows| rows == "1")?;

    // The insert waits for this lock; it does not get to acknowledge what it has inserted then.
    let _locked = lock(&postgres)?;
    end(&nats, CALLS[1]).await?;
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    wait_for(|| postgres.psql(waiting), |rows| rows != "0")?;
    cut.cut();
    let unlock = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
    postgres.psql(unlock)?;
    wait_for(count, |rows| rows == "2")?;
    edge.kill();
    drop(cut);

    let again = start_edge(&nats.url(), &postgres.url())?;
    wait_acknowledged(&nats).await?;
    assert_eq!(postgres.psql(COUNT)?, "2");
    let sql = "SELECT call_id, cause, ended_by, created_unix_ms FROM call_records ORDER BY call_id";
    let wanted = CALLS.map(|it| format!("{it}|USER_BUSY|callee|")).join("\n");
    assert_eq!(postgres.psql(sql)?, wanted);
    drop(again);
    ensure!(nats.process().ended().is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_has_one_row_of_an_event_that_comes_twice() -> anyhow::Result<()> {
    let (mariadb, nats) = (MariaDb::start()?, NatsServer::start()?);
    end(&nats, CALLS[0]).await?;
    end(&nats, CALLS[0]).await?;
    let _edge = start_edge(&nats.url(), &mariadb.url())?;
    wait_acknowledged(&nats).await?;
    assert_eq!(
        mariadb.sql("SELECT call_id, cause FROM call_records")?.trim(),
        format!("{}\tUSER_BUSY", CALLS[0])
    );
    Ok(())
}

/// A sip-edge alone: it writes records of calls that others had.
fn start_edge(nats: &str, database: &str) -> anyhow::Result<Process> {
    let first = free_ports(2)?;
    let [sip, grpc] = [first, first + 1].map(|port| format!("127.0.0.1:{port}"));
    let mut command = Command::new(binary("sip-edge")?);
    command.args(["--sip", &sip, "--grpc", &grpc, "--nats-url", nats]);
    command.args(["--cdr-database-url", database, "--log-format", "json"]);
    let edge = Process::spawn("sip-edge", &mut command)?;
    edge.wait_for("that it serves", LIMIT, |line| line.contains("serving").then_some(()))?;
    Ok(edge)
}

/// Tells of the end of a call, each time as another event.
async fn end(nats: &NatsServer, call_id: &str) -> anyhow::Result<()> {
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await?);
    let payload = format!(
        r#"{{"call":{{"call_id":"{call_id}","cause":"USER_BUSY","ended_by":"callee","ended_unix_ms":"1700000000000"}}}}"#
    );
    let config = async_nats::jetstream::stream::Config {
        name: proto::subjects::STREAM.to_owned(),
        subjects: vec![proto::subjects::ALL.to_owned()],
        max_age: Duration::from_secs(proto::subjects::MAX_AGE_S),
        max_bytes: proto::subjects::MAX_BYTES,
        ..Default::default()
    };
    jetstream.get_or_create_stream(config).await?;
    let subject = format!("holdfast.call.ended.{call_id}");
    jetstream.publish(subject, payload.into()).await?.await?;
    Ok(())
}

/// Waits until every event that there is has been acknowledged.
async fn wait_acknowledged(nats: &NatsServer) -> anyhow::Result<()> {
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await?);
    let stream = jetstream.get_stream(proto::subjects::STREAM).await?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let consumer = stream.consumer_info("sip-edge-records").await;
        if consumer.is_ok_and(|it| it.num_pending == 0 && it.num_ack_pending == 0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "events were not acknowledged in {LIMIT:?}");
        tokio::task::yield_now().await;
    }
}

/// Somebody who has the table for himself for a while.
fn lock(postgres: &Postgres) -> anyhow::Result<Process> {
    let sql = "BEGIN; LOCK TABLE call_records IN ACCESS EXCLUSIVE MODE; SELECT 'locked'; SELECT pg_sleep_for('60 s');";
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--tuples-only", "--dbname", &postgres.url()]);
    for statement in sql.split_inclusive("; ") {
        psql.args(["--command", statement]);
    }
    let locked = Process::spawn("psql", &mut psql)?;
    locked.wait_for("that it has the lock", LIMIT, |line| line.contains("locked").then_some(()))?;
    Ok(locked)
}

/// What `read` gives, once it is `enough`.
fn wait_for(
    read: impl Fn() -> anyhow::Result<String>,
    enough: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = read()?;
        if enough(&text) {
            return Ok(text);
        }
        ensure!(Instant::now() < deadline, "got {text:?} for {LIMIT:?}");
    }
}
