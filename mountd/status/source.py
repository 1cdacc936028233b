"""What is known of the source of a model's wanted version."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """`version` to `message`: what it said last, maybe to a previous run; None and "": nothing yet."""

    kind: str
    """file or git"""
    place: str
    version: str | None = None
    revision: str | None = None
    author: str = ""
    message: str = ""
    read: str | None = None
    """when it was read last, by this run; UTC, ISO 8601"""
    code: str = ""
    """why it is not known what it says now: a code for scripts, why, and what to do; "": it is known"""
    cause: str = ""
    hint: str = ""

    @property
    def is_known(self) -> bool:
        """Whether what it said is what it says now."""
        return not self.code and self.read is not None

    @property
    def said(self) -> str:
        """`v24 (1a2b3c4d5e by Ada <ada@example.com>: Try v24)`."""
        commit = f"{self.revision[:10]} by {self.author}: {self.message}" if self.revision else ""
        return f"{self.version}{f' ({commit})' if commit else ''}"


@dataclass(frozen=True, slots=True)
class Unmet:
    """A version that was declared and could not be switched to, and why."""

    version: str
    cause: str
    hint: str = ""
