"""What is wanted of a version, file by file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WantedFile:
    """`path` below the version's directory, `size` in bytes, `sha256` in hex where the manifest has it."""

    path: str
    size: int
    sha256: str | None = None
