"""What the admin wrote: one YAML file as typed, checked settings."""
