"""What is true now: the types that every room fills, and what follows from them."""
