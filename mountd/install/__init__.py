"""What `mountd install` puts on a machine with systemd, and removes again."""
