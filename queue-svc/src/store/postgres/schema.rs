//! The tables; mohqueue's as in Kamailio's own scripts for PostgreSQL.

pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS version (
    id SERIAL PRIMARY KEY NOT NULL,
    table_name VARCHAR(32) NOT NULL,
    table_version INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT version_table_name_idx UNIQUE (table_name)
);
CREATE TABLE IF NOT EXISTS mohqueues (
    id SERIAL PRIMARY KEY NOT NULL,
    name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL,
    mohdir VARCHAR(100),
    mohfile VARCHAR(100) NOT NULL,
    debug INTEGER NOT NULL,
    CONSTRAINT mohqueues_mohqueue_uri_idx UNIQUE (uri),
    CONSTRAINT mohqueues_mohqueue_name_idx UNIQUE (name)
);
CREATE TABLE IF NOT EXISTS mohqcalls (
    id SERIAL PRIMARY KEY NOT NULL,
    mohq_id INTEGER NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    call_status INTEGER NOT NULL,
    call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100),
    call_time TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    CONSTRAINT mohqcalls_mohqcalls_idx UNIQUE (call_id)
);
CREATE TABLE IF NOT EXISTS queue_settings (
    mohq_id BIGINT PRIMARY KEY NOT NULL,
    max_calls BIGINT NOT NULL DEFAULT 0,
    strategy VARCHAR(32) NOT NULL DEFAULT '',
    ring_ms BIGINT NOT NULL DEFAULT 0,
    service_level_ms BIGINT NOT NULL DEFAULT 0,
    max_wait_ms BIGINT NOT NULL DEFAULT 0,
    join_empty VARCHAR(32) NOT NULL DEFAULT '',
    leave_empty VARCHAR(32) NOT NULL DEFAULT '',
    overflow VARCHAR(255) NOT NULL DEFAULT '',
    announce_every_ms BIGINT NOT NULL DEFAULT 0,
    announce_first_ms BIGINT NOT NULL DEFAULT 0,
    announce_position BIGINT NOT NULL DEFAULT 0,
    announce_wait BIGINT NOT NULL DEFAULT 0,
    periodic_every_ms BIGINT NOT NULL DEFAULT 0,
    periodic TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS queue_callers (
    call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence BIGINT NOT NULL,
    arrived_unix_ms BIGINT NOT NULL,
    call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL,
    assignment_id VARCHAR(64),
    agent TEXT,
    reserved_unix_ms BIGINT,
    ring_ms BIGINT,
    priority BIGINT NOT NULL DEFAULT 0,
    since_unix_ms BIGINT,
    asked_mohq_id BIGINT,
    agent_names TEXT
);
CREATE TABLE IF NOT EXISTS queue_agents (
    name VARCHAR(64) PRIMARY KEY NOT NULL,
    address VARCHAR(255) NOT NULL,
    wrap_up_ms BIGINT NOT NULL,
    reject_delay_ms BIGINT NOT NULL,
    busy_delay_ms BIGINT NOT NULL,
    no_answer_delay_ms BIGINT NOT NULL,
    max_missed BIGINT NOT NULL,
    presence VARCHAR(16) NOT NULL,
    paused VARCHAR(255) NOT NULL,
    work VARCHAR(16) NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    mohq_id BIGINT NOT NULL,
    work_unix_ms BIGINT NOT NULL,
    idle_since_unix_ms BIGINT NOT NULL,
    rest_until_unix_ms BIGINT NOT NULL,
    missed BIGINT NOT NULL
);
-- `nth` is the order in which an agent named the queues.
CREATE TABLE IF NOT EXISTS queue_members (
    agent VARCHAR(64) NOT NULL,
    mohq_id BIGINT NOT NULL,
    nth BIGINT NOT NULL,
    level BIGINT NOT NULL,
    place BIGINT NOT NULL,
    weight BIGINT NOT NULL,
    PRIMARY KEY (agent, mohq_id)
);
CREATE TABLE IF NOT EXISTS queue_changes (
    revision BIGINT PRIMARY KEY NOT NULL,
    at_unix_ms BIGINT NOT NULL,
    event BYTEA NOT NULL
);
-- How far the log reaches, which of it NATS has, and who may write: every transaction locks it.
CREATE TABLE IF NOT EXISTS queue_log (
    id BIGINT PRIMARY KEY NOT NULL,
    fence BIGINT NOT NULL,
    commits BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    told BIGINT NOT NULL
);
-- Who owns the queues: the process at that address, until then on the clock of the database.
CREATE TABLE IF NOT EXISTS queue_owner (
    id BIGINT PRIMARY KEY NOT NULL,
    fence BIGINT NOT NULL,
    holder VARCHAR(100) NOT NULL,
    address VARCHAR(255) NOT NULL,
    until_unix_ms BIGINT NOT NULL
);
INSERT INTO queue_log (id, fence, commits, revision, told)
    SELECT 1, 0, 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM queue_log);
INSERT INTO queue_owner (id, fence, holder, address, until_unix_ms)
    SELECT 1, 0, '', '', 0 WHERE NOT EXISTS (SELECT 1 FROM queue_owner);
";
