//! A scheduler in release on a database of its own, with NATS, and nothing else.

use anyhow::Context as _;
use e2e::{NatsServer, Postgres, Replica, ReplicaFlags};
use std::path::PathBuf;
use tempfile::TempDir;

/// Where tasks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub(crate) const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    pub(crate) fn named(word: &str) -> Option<Self> {
        match word {
            "sqlite" => Some(Self::Sqlite),
            "postgres" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// The name of a metric on this database.
    pub(crate) fn metric(self, name: &str) -> String {
        match self {
            Self::Sqlite => name.to_owned(),
            Self::Postgres => format!("{name}_postgres"),
        }
    }
}

/// Dropped in this order.
pub(crate) struct Rig {
    pub(crate) replica: Replica,
    pub(crate) postgres: Option<Postgres>,
    pub(crate) nats: NatsServer,
    folder: TempDir,
    backend: Backend,
}

/// More than any part adds; all of it in memory.
const FLAGS: [&str; 6] =
    ["--max-tasks", "3000000", "--horizon", "2d", "--sip-edge", "http://127.0.0.1:9"];

impl Rig {
    pub(crate) fn start(backend: Backend) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let nats = NatsServer::start()?;
        let postgres = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(Postgres::start()?),
        };
        let replica = start(&folder, &nats, postgres.as_ref())?;
        Ok(Self { replica, postgres, nats, folder, backend })
    }

    /// SIGKILL, and a new process on the same database.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.replica.process.kill();
        self.replica = start(&self.folder, &self.nats, self.postgres.as_ref())?;
        Ok(())
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// SQLite's file.
    pub(crate) fn file(&self) -> PathBuf {
        file(&self.folder)
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("scheduler.db")
}

fn start(
    folder: &TempDir,
    nats: &NatsServer,
    postgres: Option<&Postgres>,
) -> anyhow::Result<Replica> {
    let sqlite = format!("sqlite:{}", file(folder).display());
    let database_url = postgres.map_or(sqlite, Postgres::url);
    let flags = ReplicaFlags {
        database_url: &database_url,
        nats_url: &nats.url(),
        more: FLAGS.map(str::to_owned).to_vec(),
        environment: Vec::new(),
    };
    Replica::start(&flags)
}
