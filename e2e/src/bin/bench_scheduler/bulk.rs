//! The ceiling: the rows that the scheduler has written, inserted again into an empty table of the same
//! database with the same indexes, by the database's own program, durably, 1,000 rows a transaction.

use crate::rig::{Backend, Rig};
use anyhow::{Context as _, ensure};
use std::process::Command;
use std::time::Instant;

const ROWS_PER_COMMIT: usize = 1_000;

/// Rows a second, over the first `count` rows.
pub(crate) fn inserts_per_s(rig: &Rig, count: usize) -> anyhow::Result<f64> {
    let elapsed_s = match rig.backend() {
        Backend::Sqlite => sqlite(rig, count),
        Backend::Postgres => postgres(rig, count),
    }?;
    Ok(count as f64 / elapsed_s)
}

/// sqlite3 reads from the scheduler's file, which holds still, and writes another.
fn sqlite(rig: &Rig, count: usize) -> anyhow::Result<f64> {
    let (from, to) = (rig.file(), rig.file().with_file_name("bulk.db"));
    let schema = run(Command::new("sqlite3").arg("-readonly").arg(&from).arg(
        "SELECT sql || ';' FROM sqlite_master WHERE tbl_name = 'tasks' AND sql IS NOT NULL
         ORDER BY type = 'index'",
    ))?;
    let prepare = format!(
        "PRAGMA journal_mode = WAL; {schema} ATTACH '{}' AS source;
         CREATE TABLE staged AS SELECT * FROM source.tasks ORDER BY task_id LIMIT {count};",
        from.display()
    );
    run(Command::new("sqlite3").arg(&to).arg(prepare))?;
    let mut script = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000;\n".to_owned();
    for first in (0..count).step_by(ROWS_PER_COMMIT) {
        let last = first + ROWS_PER_COMMIT;
        script += &format!(
            "INSERT INTO tasks SELECT * FROM staged WHERE rowid > {first} AND rowid <= {last};\n"
        );
    }
    let file = to.with_extension("sql");
    std::fs::write(&file, script).context("write the inserts")?;
    let begun = Instant::now();
    run(Command::new("sqlite3").arg(&to).arg(format!(".read {}", file.display())))?;
    let elapsed_s = begun.elapsed().as_secs_f64();
    let rows = run(Command::new("sqlite3").arg(&to).arg("SELECT COUNT(*) FROM tasks"))?;
    ensure!(rows.trim() == count.to_string(), "insert {count} rows: {rows}");
    Ok(elapsed_s)
}

/// psql copies from files made before.
fn postgres(rig: &Rig, count: usize) -> anyhow::Result<f64> {
    let server = rig.postgres.as_ref().context("find PostgreSQL")?;
    server.psql("CREATE TABLE bulk (LIKE tasks INCLUDING ALL)")?;
    let rows = server
        .psql(&format!("COPY (SELECT * FROM tasks ORDER BY task_id LIMIT {count}) TO STDOUT"))?;
    let mut script = String::new();
    let lines: Vec<&str> = rows.lines().collect();
    ensure!(lines.len() == count, "read {count} rows: {}", lines.len());
    for batch in lines.chunks(ROWS_PER_COMMIT) {
        script += &format!("COPY bulk FROM STDIN;\n{}\n\\.\n", batch.join("\n"));
    }
    let file = rig.file().with_file_name("bulk.sql");
    std::fs::write(&file, script).context("write the inserts")?;
    let begun = Instant::now();
    server.psql_file(&file)?;
    let elapsed_s = begun.elapsed().as_secs_f64();
    let copied = server.psql("SELECT COUNT(*) FROM bulk")?;
    ensure!(copied == count.to_string(), "insert {count} rows: {copied}");
    Ok(elapsed_s)
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "run sqlite3: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
