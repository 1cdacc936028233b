"""What was asked for and what happened, durable."""
