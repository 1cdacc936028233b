-- Each step of an operation, versions that are kept out by their own fault, the content that was live, and pauses.

ALTER TABLE models ADD COLUMN suspended TEXT;   -- who and why automatic changes are paused; NULL: they are not

CREATE TABLE steps (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    operation  INTEGER NOT NULL,             -- operations.id
    step       TEXT NOT NULL,                -- as operation/plan.py calls it; undo steps too
    began      TEXT NOT NULL,                -- UTC, ISO 8601; written before anything is done
    ended      TEXT,                         -- NULL: it runs, or mountd ended in it
    outcome    TEXT,                         -- done | failed | …
    duration_s REAL                          -- monotonic; NULL also when mountd was restarted in between
);
CREATE INDEX steps_of_operation ON steps (operation);

CREATE TABLE quarantine (
    model     TEXT NOT NULL,
    digest    TEXT NOT NULL,
    version   TEXT NOT NULL,                 -- what it was called when it failed
    operation INTEGER,                       -- the one that found it out
    cause     TEXT NOT NULL,
    since     TEXT NOT NULL,                 -- UTC, ISO 8601
    PRIMARY KEY (model, digest)
);

CREATE TABLE contents (
    model    TEXT NOT NULL,
    version  TEXT NOT NULL,
    digest   TEXT NOT NULL,
    listing  TEXT NOT NULL,                  -- digest of the sorted lines of paths and sizes
    recorded TEXT NOT NULL,                  -- UTC, ISO 8601
    PRIMARY KEY (model, version)
);

PRAGMA user_version = 3;
