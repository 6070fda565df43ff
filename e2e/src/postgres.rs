//! A PostgreSQL server with its own port and folder: Debian's, with its defaults, so that a commit is
//! on disk when it is answered.

use crate::unprivileged::user_if_root;
use crate::{Process, free_port};
use anyhow::{Context as _, bail, ensure};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the server may take to make its files, to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(60);
/// Where Debian puts the programs of each version: `15/bin/postgres`.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Superuser of the server; anybody on this machine may be it.
const USER: &str = "holdfast";
const DATABASE: &str = "postgres";
/// Connections it takes at most.
const CONNECTIONS_MAX: u32 = 200;

/// A running PostgreSQL; ended when dropped, its files too.
pub struct Postgres {
    /// None between [`Postgres::crash`] or [`Postgres::stop`] and [`Postgres::start_again`].
    process: Option<Process>,
    programs: PathBuf,
    port: u16,
    /// The system's user and group it runs as, if we are root: it refuses to be root.
    owner: Option<(u32, u32)>,
    folder: TempDir,
}

impl Postgres {
    /// A new server on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If Debian's package `postgresql-15` (or any version) is not installed, or it does not start.
    pub fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let owner = user_if_root("postgres")?;
        let folder = tempfile::tempdir().context("make a folder for PostgreSQL")?;
        let port = free_port()?;
        let mut server = Self { process: None, programs, port, owner, folder };
        server.initialise().context("make PostgreSQL's files")?;
        server.start_again()?;
        Ok(server)
    }

    fn initialise(&self) -> anyhow::Result<()> {
        if let Some((user, group)) = self.owner {
            chown(self.folder.path(), Some(user), Some(group)).context("give away the folder")?;
        }
        let mut command = self.command("initdb");
        command.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"]);
        command.args(["--locale", "C", "--no-sync", "--pgdata"]).arg(self.data());
        let output = command.output().context("run initdb")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts it on its port and files, after [`Postgres::crash`] or [`Postgres::stop`].
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.data());
            for setting in [
                "listen_addresses=127.0.0.1".to_owned(),
                "unix_socket_directories=".to_owned(),
                format!("port={}", self.port),
                format!("max_connections={CONNECTIONS_MAX}"),
            ] {
                command.args(["-c", &setting]);
            }
            let process = Process::spawn("postgres", &mut command)?;
            let ready = process.wait_for("that it is ready", LIMIT, |line| {
                line.contains("database system is ready to accept").then_some(())
            });
            match ready {
                Ok(()) => {
                    self.process = Some(process);
                    return Ok(());
                }
                // What is left of the one that was killed ends in a moment.
                Err(e) if Instant::now() < deadline && format!("{e}").contains("still in use") => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// For `--database-url`.
    pub fn url(&self) -> String {
        self.url_through(self.addr())
    }

    /// The same through a [`crate::Cut`] at `addr`.
    pub fn url_through(&self, addr: SocketAddr) -> String {
        format!("postgres://{USER}@{addr}/{DATABASE}")
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Process id of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Ends it at once with all its children, writing nothing more: what was committed is there
    /// again after [`Postgres::start_again`]. Not SIGKILL, because a child that outlives it may still
    /// commit.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.end("QUIT") // Its "immediate" way.
    }

    /// Ends all connections, then itself, in good order.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end("INT") // Its "fast" way; SIGTERM would wait for its clients.
    }

    fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(signal)?;
        process.wait(LIMIT).map(drop)
    }

    /// Runs statements; their rows with `|` between columns, as psql prints them.
    ///
    /// # Errors
    /// Has psql's words.
    pub fn psql(&self, sql: &str) -> anyhow::Result<String> {
        self.run_psql(["--command".as_ref(), sql.as_ref()])
    }

    /// Runs the statements of a file.
    pub fn psql_file(&self, path: &Path) -> anyhow::Result<String> {
        self.run_psql(["--file".as_ref(), path.as_os_str()])
    }

    fn run_psql(&self, what: [&OsStr; 2]) -> anyhow::Result<String> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"]);
        command.args(["--quiet", "--dbname", &self.url()]).args(what);
        let output = command.output().context("run psql")?;
        let (stdout, stderr) = (output.stdout, output.stderr);
        ensure!(output.status.success(), "run {what:?}: {}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8(stdout)?.trim_end().to_owned())
    }

    /// Ends every connection that clients have now; how many.
    pub fn terminate_connections(&self) -> anyhow::Result<usize> {
        let ended = self.psql(
            "SELECT COUNT(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )?;
        ended.parse().with_context(|| format!("read {ended:?}"))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of its programs, not as root, in a folder that it may read.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    /// Immediately, but in a way in which it removes its shared memory.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let asked = process.signal("QUIT").and_then(|()| process.wait(LIMIT));
            drop(asked); // If it does not listen, dropping kills.
        }
    }
}

/// The folder with `postgres` and `initdb`, of the newest version that Debian has installed.
fn programs() -> anyhow::Result<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten();
    let mut versions: Vec<_> = versions.filter_map(|it| Some(it.ok()?.path())).collect();
    versions.sort_by_key(|path| version(path));
    let folders = versions.into_iter().rev().map(|it| it.join("bin"));
    let mut folders = folders.filter(|folder| folder.join("postgres").is_file());
    match folders.next() {
        Some(folder) => Ok(folder),
        None => bail!(
            "find postgres below {DEBIAN}: run `sudo apt-get install --no-install-recommends postgresql-15`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_a_crash_and_after_a_stop() {
        let mut server = Postgres::start().unwrap();
        server.psql("CREATE TABLE calls (id BIGINT); INSERT INTO calls VALUES (7)").unwrap();
        let url = server.url();
        server.crash().unwrap();
        assert!(server.psql("SELECT id FROM calls").is_err());
        server.start_again().unwrap();
        assert_eq!(server.psql("SELECT id FROM calls").unwrap(), "7");
        server.stop().unwrap();
        server.start_again().unwrap();
        assert_eq!(
            (server.psql("SELECT id FROM calls").unwrap().as_str(), server.url()),
            ("7", url)
        );
        assert_eq!(server.terminate_connections().unwrap(), 0);
    }

    #[test]
    fn nothing_of_it_is_left_when_it_is_dropped() {
        let server = Postgres::start().unwrap();
        let (pid, folder) = (server.pid().unwrap(), server.folder.path().to_owned());
        drop(server);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
