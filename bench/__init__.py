"""Measures what the tests only assert: each benchmark is one command, `./dev bench NAME`, and prints its figures."""
