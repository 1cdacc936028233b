"""A mount that can be trusted: up to the rungs `answering` and `ready`."""
