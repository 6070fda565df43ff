//! The tables; mohqueue's as in Kamailio's own scripts for MySQL.

pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS version (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL,
    table_name VARCHAR(32) NOT NULL,
    table_version INT UNSIGNED DEFAULT 0 NOT NULL,
    CONSTRAINT table_name_idx UNIQUE (table_name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS mohqueues (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL,
    name VARCHAR(25) NOT NULL,
    uri VARCHAR(100) NOT NULL,
    mohdir VARCHAR(100),
    mohfile VARCHAR(100) NOT NULL,
    debug INT NOT NULL,
    CONSTRAINT mohqueue_uri_idx UNIQUE (uri),
    CONSTRAINT mohqueue_name_idx UNIQUE (name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS mohqcalls (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY NOT NULL,
    mohq_id INT UNSIGNED NOT NULL,
    call_id VARCHAR(100) NOT NULL,
    call_status INT UNSIGNED NOT NULL,
    call_from VARCHAR(100) NOT NULL,
    call_contact VARCHAR(100),
    call_time DATETIME NOT NULL,
    CONSTRAINT mohqcalls_idx UNIQUE (call_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
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
    periodic MEDIUMTEXT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS queue_callers (
    call_id VARCHAR(100) PRIMARY KEY NOT NULL,
    arrival_sequence BIGINT NOT NULL,
    arrived_unix_ms BIGINT NOT NULL,
    call_from TEXT NOT NULL,
    call_contact TEXT NOT NULL,
    assignment_id VARCHAR(64),
    agent MEDIUMTEXT,
    reserved_unix_ms BIGINT,
    ring_ms BIGINT,
    priority BIGINT NOT NULL DEFAULT 0,
    since_unix_ms BIGINT,
    asked_mohq_id BIGINT,
    agent_names MEDIUMTEXT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
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
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- `nth` is the order in which an agent named the queues.
CREATE TABLE IF NOT EXISTS queue_members (
    agent VARCHAR(64) NOT NULL,
    mohq_id BIGINT NOT NULL,
    nth BIGINT NOT NULL,
    level BIGINT NOT NULL,
    place BIGINT NOT NULL,
    weight BIGINT NOT NULL,
    PRIMARY KEY (agent, mohq_id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TABLE IF NOT EXISTS queue_changes (
    revision BIGINT PRIMARY KEY NOT NULL,
    at_unix_ms BIGINT NOT NULL,
    event MEDIUMBLOB NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- How far the log reaches, which of it NATS has, and who may write: every transaction locks it.
CREATE TABLE IF NOT EXISTS queue_log (
    id BIGINT PRIMARY KEY NOT NULL,
    fence BIGINT NOT NULL,
    commits BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    told BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- Who owns the queues: the process at that address, until then on the clock of the database.
CREATE TABLE IF NOT EXISTS queue_owner (
    id BIGINT PRIMARY KEY NOT NULL,
    fence BIGINT NOT NULL,
    holder VARCHAR(100) NOT NULL,
    address VARCHAR(255) NOT NULL,
    until_unix_ms BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT IGNORE INTO queue_log (id, fence, commits, revision, told) VALUES (1, 0, 0, 0, 0);
INSERT IGNORE INTO queue_owner (id, fence, holder, address, until_unix_ms) VALUES (1, 0, '', '', 0);
";
