-- What drills measured; the rest of them stands in operations, with kind = 'drill', model = the mount, to_version = the fault.

CREATE TABLE drills (
    operation       INTEGER PRIMARY KEY,     -- operations.id
    kind            TEXT NOT NULL,           -- kill | hang | slow | offline
    mount           TEXT NOT NULL,
    detected_s      REAL,                    -- from the fault on; NULL: did not happen
    serving_again_s REAL,                    -- from the fault on; slow and offline: from its end on
    ready_again_s   REAL,
    app_restarted   INTEGER NOT NULL,
    passed          INTEGER NOT NULL,
    details         TEXT NOT NULL            -- JSON: limits, for_s, shortfalls, …
);

PRAGMA user_version = 2;
