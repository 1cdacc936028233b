"""The program that needs the model."""
