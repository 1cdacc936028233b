"""Data ahead of need: what an app opens at its start is there before it asks."""
