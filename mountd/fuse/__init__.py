"""The mounts of the kernel: which there are, and how one is taken away."""
