"""What is to be loaded of a version."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WantedFile:
    """`path` is below the version's directory, `size` in bytes, `sha256` in hex; None: the manifest has none."""

    path: str
    size: int
    sha256: str | None = None
