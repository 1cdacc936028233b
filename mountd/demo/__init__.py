"""Everything on one machine with nothing to configure."""
