"""A mount that can be trusted: up to the stages `answering` and `ready`."""
