"""How far the data of a version are loaded, and how far an app is that loads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """Data of a version that is coming to this machine; `bytes_done` of `bytes_total` are here.

    `waits_for`: why nothing comes at the moment, or what the last try failed for.
    """

    version: str
    level: str
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_s: float = 0.0
    eta_s: float | None = None
    waits_for: str = ""

    @property
    def percent(self) -> int:
        return 100 * self.bytes_done // self.bytes_total if self.bytes_total else 0


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """How often data that no operation loads began to come, waited for something, and were here; and of the last one
    each time: what, and why or how."""

    begun: int = 0
    waits: int = 0
    done: int = 0
    what: str = ""
    cause: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class AppLoad:
    """What an app that starts has read: of the files that it opened at its last start, or of all that it opens.

    The totals are None while no start of it is recorded. The file that it opened last is not among those that are done.
    `bytes_per_s`: from its first open to its last.
    """

    files_done: int
    bytes_done: int
    files_total: int | None = None
    bytes_total: int | None = None
    bytes_per_s: float = 0.0

    @property
    def percent(self) -> int | None:
        """99 at most: what it opens is not always what it opened then, and it is not ready yet."""
        return min(99, 100 * self.bytes_done // self.bytes_total) if self.bytes_total else None
