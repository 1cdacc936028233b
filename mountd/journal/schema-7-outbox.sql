-- Nothing yet.

PRAGMA user_version = 7;
