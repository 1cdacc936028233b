"""What `mountd install` puts on a machine with systemd, and takes away again."""
