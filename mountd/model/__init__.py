"""Versions side by side in a bucket, one of them live behind a link."""
