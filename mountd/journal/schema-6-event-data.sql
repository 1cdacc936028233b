-- What an event says to programs beside its text.

ALTER TABLE events ADD COLUMN data TEXT NOT NULL DEFAULT '';    -- a JSON object, or empty

PRAGMA user_version = 6;
