-- Results on their way to a bucket: one row a file of an outbox, from its last finished writing on.

CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    outbox   TEXT NOT NULL,
    name     BLOB NOT NULL,                  -- path below the directory of the outbox, bytes as the kernel has it
    state    TEXT NOT NULL,                  -- queued | uploading | uploaded | removed | failed | refused | lost
    size     INTEGER NOT NULL,
    stamp    TEXT NOT NULL,                  -- mtime in ns, inode, ctime in ns: other content has another one
    root     TEXT NOT NULL,                  -- inode of the directory
    sha256   TEXT NOT NULL DEFAULT '',
    md5      TEXT NOT NULL DEFAULT '',
    bucket   TEXT NOT NULL DEFAULT '',
    key      TEXT NOT NULL DEFAULT '',
    cause    TEXT NOT NULL DEFAULT '',       -- why the last try failed
    tries    INTEGER NOT NULL DEFAULT 0,
    queued   TEXT NOT NULL,                  -- UTC, ISO 8601
    uploaded TEXT,                           -- UTC, ISO 8601
    event    INTEGER,                        -- events.id of result-uploaded, written with state uploaded or not at all
    UNIQUE (outbox, name)
);
-- In the order in which they are tried, with what is summed up: there may be 100,000.
CREATE INDEX outbox_waiting ON outbox (outbox, root, tries, id, size, queued) WHERE state IN ('queued', 'uploading');
CREATE INDEX outbox_by_id ON outbox (outbox, id);
CREATE INDEX outbox_by_time ON outbox (outbox, state, uploaded);
CREATE INDEX outbox_by_event ON outbox (outbox, event);

CREATE TABLE outbox_totals (
    outbox   TEXT PRIMARY KEY,
    uploaded INTEGER NOT NULL                -- uploads since there is this journal
);

-- Of each kind so many are kept: there may be far more uploads than anything else.
CREATE INDEX events_of_results ON events (id, code) WHERE code = 'result-uploaded';
CREATE INDEX events_of_others ON events (id, code) WHERE code != 'result-uploaded';

PRAGMA user_version = 7;
