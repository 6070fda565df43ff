//! The tables of both databases, and how older ones become them.
//!
//! Few indexes, because each costs at every write; each names the question it is there for. `tasks_live`
//! asks for `ended_unix_ms = 0` rather than for states, so that a claim touches no index.

/// Each is applied once, in order; the number of applied ones is in `scheduler_schema`.
pub(super) const SQLITE: [&str; 3] = [
    "
    CREATE TABLE tasks (
        task_id          TEXT    NOT NULL PRIMARY KEY,
        call_id          TEXT    NOT NULL,
        state            INTEGER NOT NULL,  -- as scheduler.v1.TaskState
        fires_at_unix_ms INTEGER NOT NULL,
        revision         INTEGER NOT NULL,
        action           TEXT    NOT NULL,  -- 'hangup'
        cause            TEXT    NOT NULL,
        group_name       TEXT    NOT NULL,
        label            TEXT    NOT NULL,
        idempotency_key  TEXT,
        created_unix_ms  INTEGER NOT NULL,
        ended_unix_ms    INTEGER NOT NULL DEFAULT 0,
        late_ms          INTEGER NOT NULL DEFAULT 0,
        result           TEXT    NOT NULL DEFAULT ''
    ) STRICT;
    CREATE UNIQUE INDEX tasks_by_key ON tasks (idempotency_key) WHERE idempotency_key IS NOT NULL;
    CREATE INDEX tasks_by_call ON tasks (call_id, state);
    CREATE INDEX tasks_by_group ON tasks (group_name, state) WHERE group_name <> '';
    CREATE INDEX tasks_live ON tasks (fires_at_unix_ms, task_id) WHERE state IN (1, 2);
    CREATE INDEX tasks_by_end ON tasks (ended_unix_ms) WHERE ended_unix_ms > 0;
",
    "
    ALTER TABLE tasks RENAME TO old_tasks;
    DROP INDEX tasks_by_key;
    DROP INDEX tasks_by_call;
    DROP INDEX tasks_by_group;
    DROP INDEX tasks_live;
    DROP INDEX tasks_by_end;
    CREATE TABLE tasks (
        task_id              BLOB    NOT NULL PRIMARY KEY,
        shard                INTEGER NOT NULL,
        call_id              TEXT    NOT NULL,
        state                INTEGER NOT NULL,  -- as scheduler.v1.TaskState
        fires_at_unix_ms     INTEGER NOT NULL,
        revision             INTEGER NOT NULL,
        action               TEXT    NOT NULL,  -- JSON
        group_name           TEXT    NOT NULL,
        label                TEXT    NOT NULL,
        tenant               TEXT    NOT NULL,
        edge                 TEXT    NOT NULL,
        idempotency_key      TEXT,
        created_unix_ms      INTEGER NOT NULL,
        ended_unix_ms        INTEGER NOT NULL DEFAULT 0,
        late_ms              INTEGER NOT NULL DEFAULT 0,
        result               TEXT    NOT NULL DEFAULT '',
        repeat_every_ms      INTEGER NOT NULL DEFAULT 0,
        repeat_count         INTEGER NOT NULL DEFAULT 0,
        repeat_until_unix_ms INTEGER NOT NULL DEFAULT 0,
        occurrence           INTEGER NOT NULL DEFAULT 0,
        missed               INTEGER NOT NULL DEFAULT 0,
        remaining_ms         INTEGER NOT NULL DEFAULT 0,
        cancel_requested     INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE task_changes (
        shard      INTEGER NOT NULL,
        seq        INTEGER NOT NULL,  -- of the last change in it
        first_seq  INTEGER NOT NULL,
        fence      INTEGER NOT NULL,
        at_unix_ms INTEGER NOT NULL,
        changes    TEXT    NOT NULL,  -- JSON
        PRIMARY KEY (shard, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE shards (
        shard         INTEGER NOT NULL PRIMARY KEY,
        published_seq INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    WITH RECURSIVE n(shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM n WHERE shard < 15)
    INSERT INTO shards (shard) SELECT shard FROM n;
    INSERT INTO tasks (task_id, shard, call_id, state, fires_at_unix_ms, revision, action, group_name,
                       label, tenant, edge, idempotency_key, created_unix_ms, ended_unix_ms, late_ms,
                       result)
    SELECT unhex(replace(task_id, '-', '')),
           (instr('0123456789abcdef', substr(lower(task_id), -1)) - 1), call_id, state,
           fires_at_unix_ms, revision,
           json_object('hangup', json_object('cause', cause, 'legs', 'both')), group_name, label, '',
           '', idempotency_key, created_unix_ms, ended_unix_ms, late_ms, result
    FROM old_tasks;
    INSERT INTO task_changes (shard, seq, first_seq, fence, at_unix_ms, changes)
    SELECT shard, COUNT(*), 1, 0, MAX(ended_unix_ms),
           json_group_array(json_array(lower(hex(task_id)), state, revision, fires_at_unix_ms,
                            ended_unix_ms, late_ms, 0, 0, 0, json('false'), result))
    FROM tasks WHERE ended_unix_ms > 0 GROUP BY shard;
    UPDATE shards SET published_seq =
        COALESCE((SELECT MAX(seq) FROM task_changes WHERE task_changes.shard = shards.shard), 0);
    DROP TABLE old_tasks;
    -- The same key makes the same task.
    CREATE UNIQUE INDEX tasks_by_key ON tasks (tenant, idempotency_key)
        WHERE idempotency_key IS NOT NULL;
    -- Tasks of a call: its limit, its end, lists.
    CREATE INDEX tasks_by_call ON tasks (call_id, ended_unix_ms, task_id) WHERE call_id <> '';
    -- Tasks of a group or tenant: their cancel, pause, lists.
    CREATE INDEX tasks_by_group ON tasks (group_name, ended_unix_ms, task_id)
        WHERE group_name <> '';
    CREATE INDEX tasks_by_tenant ON tasks (tenant, ended_unix_ms, task_id) WHERE tenant <> '';
    -- What is due within the horizon, counts of tenants, lists in order.
    CREATE INDEX tasks_live ON tasks (shard, fires_at_unix_ms, task_id) WHERE ended_unix_ms = 0;
",
    "
    -- On the steady clock of the process that wrote it: `clock::Pinned`.
    ALTER TABLE tasks ADD COLUMN pinned_tick INTEGER NOT NULL DEFAULT 0;
",
];

/// The same for PostgreSQL. Who owns a shard is in `shards.holder`, for as long as that replica's
/// lease in `replicas` is not over; the fencing token counts the owners.
pub(super) const POSTGRES: [&str; 2] = [
    "
    CREATE TABLE tasks (
        task_id              uuid     NOT NULL PRIMARY KEY,
        shard                smallint NOT NULL,
        call_id              text     NOT NULL,
        state                bigint   NOT NULL,
        fires_at_unix_ms     bigint   NOT NULL,
        revision             bigint   NOT NULL,
        action               text     NOT NULL,
        group_name           text     NOT NULL,
        label                text     NOT NULL,
        tenant               text     NOT NULL,
        edge                 text     NOT NULL,
        idempotency_key      text,
        created_unix_ms      bigint   NOT NULL,
        ended_unix_ms        bigint   NOT NULL DEFAULT 0,
        late_ms              bigint   NOT NULL DEFAULT 0,
        result               text     NOT NULL DEFAULT '',
        repeat_every_ms      bigint   NOT NULL DEFAULT 0,
        repeat_count         bigint   NOT NULL DEFAULT 0,
        repeat_until_unix_ms bigint   NOT NULL DEFAULT 0,
        occurrence           bigint   NOT NULL DEFAULT 0,
        missed               bigint   NOT NULL DEFAULT 0,
        remaining_ms         bigint   NOT NULL DEFAULT 0,
        cancel_requested     boolean  NOT NULL DEFAULT false
    ) WITH (fillfactor = 70);
    CREATE UNIQUE INDEX tasks_by_key ON tasks (tenant, idempotency_key)
        WHERE idempotency_key IS NOT NULL;
    CREATE INDEX tasks_by_call ON tasks (call_id, ended_unix_ms, task_id) WHERE call_id <> '';
    CREATE INDEX tasks_by_group ON tasks (group_name, ended_unix_ms, task_id)
        WHERE group_name <> '';
    CREATE INDEX tasks_by_tenant ON tasks (tenant, ended_unix_ms, task_id) WHERE tenant <> '';
    CREATE INDEX tasks_live ON tasks (shard, fires_at_unix_ms, task_id) WHERE ended_unix_ms = 0;
    CREATE TABLE task_changes (
        shard      smallint NOT NULL,
        seq        bigint   NOT NULL,
        first_seq  bigint   NOT NULL,
        fence      bigint   NOT NULL,
        at_unix_ms bigint   NOT NULL,
        changes    text     NOT NULL,
        PRIMARY KEY (shard, seq)
    );
    CREATE TABLE replicas (
        replica     text        NOT NULL PRIMARY KEY,
        address     text        NOT NULL,
        draining    boolean     NOT NULL DEFAULT false,
        lease_until timestamptz NOT NULL
    );
    CREATE TABLE shards (
        shard         smallint NOT NULL PRIMARY KEY,
        fence         bigint   NOT NULL DEFAULT 0,
        holder        text,
        published_seq bigint   NOT NULL DEFAULT 0
    );
    INSERT INTO shards (shard) SELECT generate_series(0, 15);
    CREATE TABLE tenant_counts (
        shard  smallint NOT NULL,
        tenant text     NOT NULL,
        live   bigint   NOT NULL,
        PRIMARY KEY (shard, tenant)
    );
",
    "
    ALTER TABLE tasks ADD COLUMN pinned_tick bigint NOT NULL DEFAULT 0;
",
];

/// Says why a database whose schema is `applied` steps on is not ours to use; nothing if it is.
pub(super) fn applied_of(applied: i64, known: usize) -> anyhow::Result<usize> {
    let steps = usize::try_from(applied).ok().filter(|applied| *applied <= known);
    steps.ok_or_else(|| {
        anyhow::anyhow!(
            "its schema is newer than the {known} known to this version; upgrade the scheduler"
        )
    })
}
