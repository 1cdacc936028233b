"""What every source of the wanted version has: it can be read, and says when to read it again."""

from __future__ import annotations

from typing import Protocol

from mountd.gitops.wanted import WantedVersion


class Source(Protocol):
    @property
    def kind(self) -> str:
        """`file` or `git`: the source of operations that follow from it."""

    @property
    def place(self) -> str:
        """Which file or repository, for people; holds no secret."""

    async def read(self, *, has_changed: bool = False) -> WantedVersion:
        """Within its own deadline; `has_changed`: somebody says so. Raises Unavailable, Refused (it names no version),
        CannotStart (a secret)."""

    async def changed(self) -> None:
        """Returns when it is time to read it again."""

    def close(self) -> None: ...
