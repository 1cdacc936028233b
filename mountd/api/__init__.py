"""HTTP over the control socket and TCP: what the daemon tells and takes."""
