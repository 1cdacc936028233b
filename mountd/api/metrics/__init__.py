"""What `/metrics` shows; docs/metrics.md explains each metric."""
