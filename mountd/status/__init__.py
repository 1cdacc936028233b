"""What is true now: the types that every package fills, and what follows from them."""
