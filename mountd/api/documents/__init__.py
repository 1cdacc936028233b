"""Every JSON document that scripts rely on: its shape as a TypedDict, and the function that makes it."""

from __future__ import annotations

from typing import TypedDict

SCHEMA = 1

FromVersion = TypedDict("FromVersion", {"from": str | None})
"""For documents with the key `from`, which no class can declare: it is a keyword of Python."""
