"""The wanted version from outside: mountd reads it from a file or a Git repository, regularly and at a webhook."""
