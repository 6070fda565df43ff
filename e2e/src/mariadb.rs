//! A MariaDB server with its own port and folder: Debian's, with its defaults, so that a commit is on
//! disk when it is answered.

use crate::unprivileged::user_if_root;
use crate::{Process, free_port};
use anyhow::{Context as _, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long the server may take to make its files, to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(60);
/// Where Debian puts it: not on every user's PATH.
const SERVER: &str = "/usr/sbin/mariadbd";
/// May do everything; anybody on this machine may be it.
const USER: &str = "holdfast";
const DATABASE: &str = "holdfast";

/// A running MariaDB; ended when dropped, its files too.
pub struct MariaDb {
    /// None between [`MariaDb::crash`] and [`MariaDb::start_again`].
    process: Option<Process>,
    port: u16,
    /// The system's user and group it runs as, if we are root: it refuses to be root.
    owner: Option<(u32, u32)>,
    folder: TempDir,
}

impl MariaDb {
    /// A new server on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If Debian's package `mariadb-server` is not installed, or it does not start.
    pub fn start() -> anyhow::Result<Self> {
        ensure!(
            Path::new(SERVER).is_file(),
            "find {SERVER}: run `sudo apt-get install --no-install-recommends mariadb-server`"
        );
        let owner = user_if_root("mysql")?;
        let folder = tempfile::tempdir().context("make a folder for MariaDB")?;
        let mut server = Self { process: None, port: free_port()?, owner, folder };
        server.initialise().context("make MariaDB's files")?;
        server.start_again()?;
        Ok(server)
    }

    fn initialise(&self) -> anyhow::Result<()> {
        let users = format!(
            "CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1';\n\
             GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'127.0.0.1';\n\
             CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
        );
        std::fs::write(self.file("users.sql"), users).context("write its users")?;
        if let Some((user, group)) = self.owner {
            for path in [self.folder.path(), &self.file("users.sql")] {
                chown(path, Some(user), Some(group)).context("give away the folder")?;
            }
        }
        let mut command = self.command("mariadb-install-db");
        command.arg(format!("--datadir={}", self.file("data").display()));
        command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        let output = command.output().context("run mariadb-install-db")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Starts it on its port and files, after [`MariaDb::crash`].
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(SERVER);
        for (flag, file) in [
            ("datadir", "data"),
            ("socket", "socket"),
            ("pid-file", "pid"),
            ("init-file", "users.sql"),
        ] {
            command.arg(format!("--{flag}={}", self.file(file).display()));
        }
        command.arg(format!("--port={}", self.port));
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.arg("--innodb-buffer-pool-size=64M");
        let process = Process::spawn("mariadbd", &mut command)?;
        process.wait_for("that it is ready", LIMIT, |line| {
            line.contains("ready for connections").then_some(())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// For `--database-url`.
    pub fn url(&self) -> String {
        self.url_through(self.addr())
    }

    /// The same through a [`crate::Cut`] at `addr`.
    pub fn url_through(&self, addr: SocketAddr) -> String {
        format!("mysql://{USER}@{addr}/{DATABASE}")
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Ends it at once, writing nothing more: what was committed is there again after
    /// [`MariaDb::start_again`].
    pub fn crash(&mut self) {
        self.process = None;
    }

    /// Runs statements; their rows with a tab between columns, as its client prints them.
    ///
    /// # Errors
    /// Has the client's words.
    pub fn sql(&self, sql: &str) -> anyhow::Result<String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--host=127.0.0.1", "--batch", "--skip-column-names"]);
        command.arg(format!("--port={}", self.port)).arg(format!("--user={USER}"));
        command.args(["--default-character-set=utf8mb4", "--database", DATABASE, "--execute", sql]);
        let output = command.output().context("run mariadb")?;
        let (stdout, stderr) = (output.stdout, output.stderr);
        ensure!(output.status.success(), "run {sql:?}: {}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8(stdout)?.trim_end().to_owned())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// One of its programs, not as root, without what the machine's own server is set to.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--no-defaults").current_dir(self.folder.path()).env("LC_ALL", "C");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_a_crash() {
        let mut server = MariaDb::start().unwrap();
        server.sql("CREATE TABLE calls (id BIGINT); INSERT INTO calls VALUES (7)").unwrap();
        server.crash();
        assert!(server.sql("SELECT id FROM calls").is_err());
        server.start_again().unwrap();
        assert_eq!(server.sql("SELECT id FROM calls").unwrap(), "7");
    }
}
