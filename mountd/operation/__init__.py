"""What changes several parts at once: the only package that knows mount, model and app."""
