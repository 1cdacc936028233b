"""Data ahead of need: what of a version lies on this machine before the app reads it."""
