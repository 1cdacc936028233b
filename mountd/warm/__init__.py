"""Data ahead of need: what an app is going to read is brought near before it reads it."""
