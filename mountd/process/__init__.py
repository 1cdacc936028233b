"""A supervised child, whatever it is."""
