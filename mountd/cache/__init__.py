"""The cache of rclone on disk: kept whole, repaired, drained, evicted."""
