"""Talks to a daemon from outside. Standard library only: imports are the whole cost of a command."""
