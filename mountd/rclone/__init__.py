"""Everything that knows rclone."""
