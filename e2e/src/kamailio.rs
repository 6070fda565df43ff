//! Kamailio with its rtpproxy and mohqueue modules as Debian has them, by the configuration in
//! `e2e/kamailio/`, on top of a media-relay.

use crate::document::path_with_tools;
use crate::{Process, free_port};
use anyhow::{Context as _, ensure};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to start, and to answer.
const READY_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Where the scripts of its tables are.
const TABLES: &str = "/usr/share/kamailio/db_sqlite";
const CONFIGURATION: &str = include_str!("../kamailio/mohqueue.cfg");

/// A row of `mohqueues`.
pub struct QueueRow<'a> {
    pub name: &'a str,
    pub uri: String,
    pub mohdir: Option<&'a Path>,
    pub mohfile: &'a str,
}

impl QueueRow<'_> {
    /// Writes it into an SQLite file, as people do by hand.
    ///
    /// # Errors
    /// As sqlite3 says.
    pub fn insert(&self, database: &Path) -> anyhow::Result<()> {
        let Self { name, uri, mohdir, mohfile } = self;
        let mohdir = mohdir.map_or("NULL".to_owned(), |it| format!("'{}'", it.display()));
        let columns = "name, uri, mohdir, mohfile, debug";
        let values = format!("'{name}', '{uri}', {mohdir}, '{mohfile}', 0");
        sql(database, &format!("INSERT INTO mohqueues ({columns}) VALUES ({values})"))
    }
}

pub struct Kamailio {
    sip: SocketAddr,
    /// Its configuration and tables.
    _folder: TempDir,
    process: Process,
}

impl Kamailio {
    /// Starts it with `queues` (a name, which is also the user of its URI, and a file below `mohdir`
    /// without its payload type). `relay` speaks the rtpproxy protocol over UDP; calls to `agent` go
    /// to that address. Waits until each of its processes has found the relay.
    ///
    /// # Errors
    /// If it does not start, or does not take the relay for an rtpproxy.
    pub fn start(
        relay: SocketAddr,
        mohdir: &Path,
        queues: &[(&str, &str)],
        agent: SocketAddr,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Kamailio")?;
        let sip = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let database = folder.path().join("kamailio.sqlite");
        create_tables(&database)?;
        for (name, mohfile) in queues {
            let (uri, mohdir) = (format!("sip:{name}@{sip}"), None);
            QueueRow { name, uri, mohdir, mohfile }.insert(&database)?;
        }
        let configuration = CONFIGURATION
            .replace("{port}", &sip.port().to_string())
            .replace("{relay}", &format!("udp:{relay}"))
            .replace("{database}", &database.display().to_string())
            .replace("{mohdir}", &mohdir.display().to_string())
            .replace("{agent}", &format!("sip:{agent}"));
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-f"]).arg(&file).arg("-Y").arg(folder.path());
        let process = Process::spawn("kamailio", &mut command)?;
        let mut found = 0;
        process.wait_for("that it has found the relay", READY_LIMIT, |line| {
            found += u32::from(line.contains("support for it enabled"));
            (found >= PROCESSES).then_some(())
        })?;
        Ok(Self { sip, _folder: folder, process })
    }

    /// Starts it at `sip` by a configuration that listens there, and waits until it answers.
    ///
    /// # Errors
    /// If it does not; has what it says.
    pub fn start_by(configuration: &str, sip: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Kamailio")?;
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new("kamailio");
        command.env("PATH", path_with_tools()?);
        command.args(["-DD", "-E", "-f"]).arg(&file).arg("-Y").arg(folder.path());
        let process = Process::spawn("kamailio", &mut command)?;
        let mut kamailio = Self { sip, _folder: folder, process };
        let deadline = Instant::now() + READY_LIMIT;
        while kamailio.ask_within("ready", ASK_AGAIN).is_err() {
            let ended = kamailio.process.ended().is_some() || Instant::now() > deadline;
            ensure!(!ended, "wait for Kamailio: {}", kamailio.output());
            std::thread::sleep(ASK_AGAIN);
        }
        Ok(kamailio)
    }

    /// Has it read a configuration.
    ///
    /// # Errors
    /// What it finds wrong.
    pub fn check(configuration: &str) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new().context("make a file for Kamailio")?;
        std::fs::write(file.path(), configuration)?;
        let mut command = Command::new("kamailio");
        let output =
            command.args(["-c", "-f"]).arg(file.path()).output().context("run kamailio")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "check a configuration: {said}");
        Ok(())
    }

    pub fn uri(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.sip)
    }

    pub fn sip(&self) -> SocketAddr {
        self.sip
    }

    /// Has the oldest caller of the queue `abc` referred to the agent.
    ///
    /// # Errors
    /// If nobody waits there.
    pub fn retrieve(&self) -> anyhow::Result<()> {
        let answer = self.ask("retrieve")?;
        ensure!(answer.starts_with("SIP/2.0 200"), "retrieve a caller: {answer}");
        Ok(())
    }

    /// Waits until so many callers are in a queue, and confirmed.
    ///
    /// # Errors
    /// If it is otherwise for too long.
    pub fn wait_callers(&self, queue: &str, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let answer = self.ask(&format!("count-{queue}"))?;
            if answer.starts_with(&format!("SIP/2.0 200 {wanted}\r\n")) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "wanted {wanted} callers in {queue}: {answer}");
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// The answer to OPTIONS.
    ///
    /// # Errors
    /// If there is none.
    pub fn ask(&self, user: &str) -> anyhow::Result<String> {
        self.ask_within(user, READY_LIMIT)
    }

    fn ask_within(&self, user: &str, limit: Duration) -> anyhow::Result<String> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(self.sip)?;
        socket.set_read_timeout(Some(limit))?;
        let (own, uri) = (socket.local_addr()?, self.uri(user));
        let request = format!(
            "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{own}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:operator@{own}>;tag=operator\r\nTo: <{uri}>\r\n\
             Call-ID: {user}-{own}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send(request.as_bytes())?;
        let mut buffer = [0; 2_048];
        let len = socket.recv(&mut buffer).context("wait for an answer to OPTIONS")?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// Those of them that try the relay: main, two for SIP, and two timers.
const PROCESSES: u32 = 5;

impl Drop for Kamailio {
    fn drop(&mut self) {
        let _ = self.process.stop(STOP_LIMIT); // Its children go with it only if it may say so.
    }
}

/// Makes the tables in an SQLite file by Kamailio's own scripts.
///
/// # Errors
/// As sqlite3 says.
pub fn create_tables(database: &Path) -> anyhow::Result<()> {
    for script in ["standard-create.sql", "mohqueue-create.sql"] {
        sql(database, &format!(".read {TABLES}/{script}"))?;
    }
    Ok(())
}

fn sql(database: &Path, statement: &str) -> anyhow::Result<()> {
    let mut command = Command::new("sqlite3");
    let output = command.arg(database).arg(statement).output().context("run sqlite3")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "run {statement:?}: {said}");
    Ok(())
}
