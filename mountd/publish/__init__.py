"""A local directory becomes a version in the bucket: hashed, sent, verified, and only then to be seen."""
