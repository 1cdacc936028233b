"""Events sent to programs and people."""
