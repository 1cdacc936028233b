"""What writes the generated parts of docs/: `./dev docs --write`. It is not installed with mountd."""
