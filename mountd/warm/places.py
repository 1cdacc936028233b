"""What is warmed: files of a mounted directory, or objects behind rclone's remote control."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from mountd.errors import RemoteError
from mountd.rclone.command import RcAddress
from mountd.rclone.command import source as slashed
from mountd.rclone.rc import RcClient
from mountd.warm.plan import FROM_RC, THROUGH_MOUNT, PieceSizes

WHY_TIMEOUT_S = 20.0

WhyUnreadable = Callable[[str], Awaitable[RemoteError | None]]
"""Why the file at this path cannot be read; None: it can be. Raises MountdError."""


class WarmPlace(Protocol):
    @property
    def sizes(self) -> PieceSizes: ...

    @property
    def keeps(self) -> bool:
        """Whether what is read becomes files of its own."""

    def source(self) -> dict[str, str]:
        """As the worker expects it. Raises Unavailable while there is none."""

    def url(self, path: str) -> str:
        """On rclone's remote control."""

    async def why_unreadable(self, path: str) -> RemoteError | None:
        """See WhyUnreadable."""


@dataclass(frozen=True, slots=True)
class MountedDirectory:
    root: str
    why: WhyUnreadable | None
    sizes: PieceSizes = THROUGH_MOUNT
    keeps: bool = False

    def source(self) -> dict[str, str]:
        return {"mount": self.root}

    def url(self, path: str) -> str:
        return ""

    async def why_unreadable(self, path: str) -> RemoteError | None:
        return await self.why(path) if self.why is not None else None


@dataclass(frozen=True, slots=True)
class ServedDirectory:
    address: Callable[[], RcAddress]
    fs: str
    directory: str
    into: Path
    sizes: PieceSizes = FROM_RC
    keeps: bool = True

    def source(self) -> dict[str, str]:
        address = self.address()
        return {"rc": str(address.socket), "authorization": address.authorization, "into": str(self.into)}

    def url(self, path: str) -> str:
        key = quote(self._key(path), errors="surrogateescape")
        return f"/%5B{quote(slashed(self.fs), safe='')}%5D/{key}"

    async def why_unreadable(self, path: str) -> RemoteError | None:
        """A bucket that does not answer says so at once where it is listed; reading waits for rclone's repetitions."""
        client = RcClient(self.address())
        try:
            await client.probe_bucket(self.fs, WHY_TIMEOUT_S)
            if not await client.fingerprint(self.fs, self._key(path), timeout_s=WHY_TIMEOUT_S):
                return RemoteError("there is no such object", code="object-missing")
            await client.read_byte(self.fs, self._key(path), timeout_s=WHY_TIMEOUT_S)
        except RemoteError as error:
            return error
        finally:
            await client.close()
        return None

    def _key(self, path: str) -> str:
        return f"{self.directory}/{path}".lstrip("/")
