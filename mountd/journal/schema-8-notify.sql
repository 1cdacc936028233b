-- Which journal this is, and how far each target of notifications is in its events.

CREATE TABLE identity (
    id       TEXT NOT NULL                   -- of this journal: one that is begun after a loss has another
);
INSERT INTO identity (id) VALUES (lower(hex(randomblob(8))));

CREATE TABLE notify (
    target   TEXT PRIMARY KEY,
    cursor   INTEGER NOT NULL,               -- events.id: all up to it are decided
    messages INTEGER NOT NULL,               -- delivered
    failed   INTEGER NOT NULL,               -- messages that were given up
    dropped  INTEGER NOT NULL,               -- events that left the journal before they were delivered
    last     TEXT,                           -- when a message was delivered last, UTC, ISO 8601
    state    TEXT NOT NULL                   -- a JSON object, see notify/rules.py
);

PRAGMA user_version = 8;
