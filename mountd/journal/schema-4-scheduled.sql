-- Switches for a later time: operations of the kind `schedule`, each named by the switch that it became.

ALTER TABLE operations ADD COLUMN due TEXT;                         -- of a schedule: when; UTC, ISO 8601
ALTER TABLE operations ADD COLUMN schedule INTEGER;                 -- of a switch: operations.id of its schedule
ALTER TABLE operations ADD COLUMN options TEXT NOT NULL DEFAULT ''; -- of a schedule: force digests

PRAGMA user_version = 4;
