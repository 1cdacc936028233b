"""What changes several rooms at once: the only room that knows mount, model and app."""
