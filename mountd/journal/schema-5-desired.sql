-- What a source outside says that should be live, who said so, and who holds another version against it.

ALTER TABLE models ADD COLUMN overridden TEXT;  -- who switched by hand and to what, until `mountd resume`; NULL: nobody
ALTER TABLE operations ADD COLUMN revision TEXT; -- the commit that asked for it; NULL: it came from elsewhere

CREATE TABLE declared (
    model    TEXT PRIMARY KEY,
    version  TEXT NOT NULL,
    source   TEXT NOT NULL,                  -- file | git
    revision TEXT,                           -- of Git: the commit at which it was seen
    author   TEXT NOT NULL,
    message  TEXT NOT NULL,                  -- the first line of the commit's
    seen     TEXT NOT NULL                   -- since when it has named this version, UTC, ISO 8601
);

PRAGMA user_version = 5;
