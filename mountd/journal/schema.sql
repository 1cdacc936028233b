-- The journal's tables. `user_version` is the schema's number; a change of shape adds a migration, never an edit.

CREATE TABLE operations (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT NOT NULL,              -- switch | rollback
    model        TEXT NOT NULL,
    from_version TEXT,
    to_version   TEXT NOT NULL,
    operator     TEXT NOT NULL,
    source       TEXT NOT NULL,              -- cli | api | config
    reason       TEXT NOT NULL DEFAULT '',
    step         TEXT NOT NULL,              -- the step that was begun last
    started      TEXT NOT NULL,              -- UTC, ISO 8601
    finished     TEXT,                       -- NULL while it runs
    result       TEXT,                       -- committed | refused | rolled-back | failed | interrupted
    cause        TEXT NOT NULL DEFAULT '',
    hint         TEXT NOT NULL DEFAULT '',
    exit_code    INTEGER,
    duration_s   REAL
);

CREATE TABLE events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    time   TEXT NOT NULL,
    code   TEXT NOT NULL,
    object TEXT NOT NULL,
    text   TEXT NOT NULL
);

CREATE TABLE models (
    model          TEXT PRIMARY KEY,
    current        TEXT,                     -- last committed
    previous       TEXT,
    desired        TEXT,                     -- what was asked for last
    config_version TEXT                      -- last `version:` seen in the file: only another one is an edit
);

PRAGMA user_version = 1;
