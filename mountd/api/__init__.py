"""HTTP over the control socket and TCP: status, events and metrics out, changes in."""
