"""The wanted version from outside: read from a file or a Git repository, at its time, and by webhook."""
