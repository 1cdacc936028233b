"""The composition root: what is made of what, in which order it starts and stops."""
