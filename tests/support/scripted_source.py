"""A source of a wanted version that says what a test has it say, when it has it say that."""

from __future__ import annotations

import asyncio

from mountd.errors import MountdError
from mountd.gitops.wanted import WantedVersion


class ScriptedSource:
    kind = "git"
    place = "https://git.example.com/deploy.git"

    def __init__(self) -> None:
        self.readings = 0
        self.is_closed = False
        self._says: WantedVersion | MountdError | None = None
        self._news = asyncio.Event()

    def says(self, version: str | MountdError, revision: str = "", message: str = "") -> None:
        """From now on, and it is read at once."""
        self.prepares(version, revision, message)
        self._news.set()

    def prepares(self, version: str | MountdError, revision: str = "", message: str = "") -> None:
        """From now on, once somebody has it read."""
        if isinstance(version, MountdError):
            self._says = version
        else:
            commit = (revision or version.encode().hex()).ljust(40, "0")
            self._says = WantedVersion(
                version, self.kind, commit, "Ada <ada@example.com>", message or f"Take {version}"
            )

    async def read(self, *, has_changed: bool = False) -> WantedVersion:
        self.readings += 1
        self._news.clear()
        assert self._says is not None
        if isinstance(self._says, MountdError):
            raise self._says
        return self._says

    async def changed(self) -> None:
        await self._news.wait()

    def close(self) -> None:
        self.is_closed = True
