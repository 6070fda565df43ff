//! The tables, and how older ones become as they are now.

/// Version of each table: Kamailio's number for its own, our count of migrations for ours.
pub(super) const TABLES: [(&str, i64); 7] = [
    ("mohqueues", 1),
    ("mohqcalls", 1),
    ("queue_settings", 1),
    ("queue_callers", 2),
    ("queue_agents", 1),
    ("queue_members", 1),
    ("queue_changes", 1),
];

/// The one of ours that is not in its newest version: which it has, and what makes it so.
pub(super) const CALLERS_1_TO_2: &str = "
ALTER TABLE queue_callers ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue_callers ADD COLUMN since_unix_ms INTEGER;
ALTER TABLE queue_callers ADD COLUMN asked_mohq_id INTEGER;
ALTER TABLE queue_callers ADD COLUMN agent_names TEXT;
UPDATE version SET table_version = 2 WHERE table_name = 'queue_callers';
INSERT OR IGNORE INTO queue_settings (mohq_id, max_calls)
    SELECT mohq_id, max_calls FROM queue_limits;
DROP TABLE queue_limits;
DELETE FROM version WHERE table_name = 'queue_limits';
";

/// All tables in their newest version; mohqueue's as in Kamailio's own scripts for SQLite.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS version (
    id INTEGER PRIMARY KEY NOT NULL,
    table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT version_table_name_idx UNIQUE (table_name)
);
CREATE TABLE IF NOT EXISTS mohqueues (
    id INTEGER PRIMARY KEY NOT NULL,
    name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL,
    mohdir VARCHAR(100),
    mohfile VARCHAR(100) NOT NULL,
    debug INTEGER NOT NULL,
    CONSTRAINT mohqueues_mohqueue_uri_idx UNIQUE (uri),
    CONSTRAINT mohqueues_mohqueue_name_idx UNIQUE (name)
);
CREATE TABLE IF NOT EXISTS mohqcalls (
    id INTEGER PRIMARY KEY NOT NULL,
    mohq_id INTEGER NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    call_status INTEGER NOT NULL,
    call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100),
    call_time DATETIME NOT NULL,
    CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id)
);
CREATE TABLE IF NOT EXISTS queue_settings (
    mohq_id INTEGER PRIMARY KEY NOT NULL,
    max_calls INTEGER NOT NULL DEFAULT 0,
    strategy VARCHAR(32) NOT NULL DEFAULT '',
    ring_ms INTEGER NOT NULL DEFAULT 0,
    service_level_ms INTEGER NOT NULL DEFAULT 0,
    max_wait_ms INTEGER NOT NULL DEFAULT 0,
    join_empty VARCHAR(32) NOT NULL DEFAULT '',
    leave_empty VARCHAR(32) NOT NULL DEFAULT '',
    overflow VARCHAR(255) NOT NULL DEFAULT '',
    announce_every_ms INTEGER NOT NULL DEFAULT 0,
    announce_first_ms INTEGER NOT NULL DEFAULT 0,
    announce_position INTEGER NOT NULL DEFAULT 0,
    announce_wait INTEGER NOT NULL DEFAULT 0,
    periodic_every_ms INTEGER NOT NULL DEFAULT 0,
    periodic TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS queue_callers (
    call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence INTEGER NOT NULL,
    arrived_unix_ms INTEGER NOT NULL,
    call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL,
    assignment_id VARCHAR(64),
    agent TEXT,
    reserved_unix_ms INTEGER,
    ring_ms INTEGER,
    priority INTEGER NOT NULL DEFAULT 0,
    since_unix_ms INTEGER,
    asked_mohq_id INTEGER,
    agent_names TEXT
);
CREATE TABLE IF NOT EXISTS queue_agents (
    name VARCHAR(64) PRIMARY KEY NOT NULL,
    address VARCHAR(255) NOT NULL,
    wrap_up_ms INTEGER NOT NULL,
    reject_delay_ms INTEGER NOT NULL,
    busy_delay_ms INTEGER NOT NULL,
    no_answer_delay_ms INTEGER NOT NULL,
    max_missed INTEGER NOT NULL,
    presence VARCHAR(16) NOT NULL,
    paused VARCHAR(255) NOT NULL,
    work VARCHAR(16) NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    mohq_id INTEGER NOT NULL,
    work_unix_ms INTEGER NOT NULL,
    idle_since_unix_ms INTEGER NOT NULL,
    rest_until_unix_ms INTEGER NOT NULL,
    missed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS queue_members (
    agent VARCHAR(64) NOT NULL,
    mohq_id INTEGER NOT NULL,
    level INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    PRIMARY KEY (agent, mohq_id)
);
CREATE TABLE IF NOT EXISTS queue_changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    event BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS queue_told (
    id INTEGER PRIMARY KEY NOT NULL,
    revision INTEGER NOT NULL
);
INSERT OR IGNORE INTO queue_told (id, revision) VALUES (1, 0);
";

/// After the migrations: a caller whose row somebody deleted by hand.
pub(super) const TIDY: &str =
    "DELETE FROM queue_callers WHERE call_id NOT IN (SELECT call_id FROM mohqcalls)";
