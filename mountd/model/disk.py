"""What a model needs of a mount, as a protocol: a model knows no mount."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, WarmProgress


class Reading(Protocol):
    """Files that are being brought here, once it is run."""

    on_open: Callable[[str], None]
    """is called with the path of each file that is about to be opened"""

    def prefer(self, paths: Iterable[str]) -> None:
        """What is left of these comes first from now on."""

    async def run(self) -> FetchResult: ...


class Disk(Protocol):
    """Paths are relative to `root`. Every method raises Unavailable (RemoteError, DiskError) when it cannot answer."""

    @property
    def root(self) -> str: ...

    @property
    def scratch(self) -> Path:
        """A local directory in memory that no other user may read, for files that are soon removed."""

    def in_turn(self) -> AbstractAsyncContextManager[None]:
        """Around one request that can wait: it takes the place of a bucket probe, so it adds no request."""

    @property
    def ignored(self) -> Mapping[str, str]:
        """Objects that were seen and left out, since they cannot be paths: which, and why."""

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        """What the bucket holds now, past any cache."""

    async def save_listing(self, directory: str, to: Path) -> str:
        """All that the bucket holds below `directory` now, past any cache, into the local file `to`, as rclone gives
        it: `{"list": [{"Path": …, "Size": …, "IsDir": …}, …]}`. The result goes back with `leave_out`."""

    async def leave_out(self, origin: str, directory: str, unusable: Mapping[str, str]) -> None:
        """What in such a listing cannot be a path, and why: the disk leaves it out from its next listing on."""

    async def walk(self, directory: str, to: Path) -> None:
        """All files that the disk itself shows below `directory`, into the local file `to`: a JSON line
        `["path below it", bytes]` for each. What it knows without asking costs no request."""

    async def confirm(self) -> None:
        """That the bucket gives valid answers: after one that says that something is gone."""

    async def why_unreadable(self, path: str) -> RemoteError | None:
        """Why this file, which is not empty, cannot be read past any cache; None: it can be."""

    async def why_refused(self, path: str) -> RemoteError | None:
        """Why the store would not give this file, which is not empty, past any cache; None: as far as it says without
        giving a byte, it would."""

    async def fingerprint(self, path: str) -> str:
        """Past any cache, without reading the file: another text when it was written again, "" when it is not there."""

    async def size(self, path: str) -> int | None:
        """Bytes of a file as the bucket holds it now, past any cache; None: it is not there."""

    async def save(self, path: str, to: Path) -> None:
        """A small file as the bucket holds it now, past any cache, into the local file `to`."""

    def read_ahead(
        self, directory: str, files: Sequence[WantedFile], *, limit: int | None, report: Callable[[WarmProgress], None]
    ) -> Reading:
        """To be run: reads files below `directory`, `limit` bytes a second at most, so that the disk has them here."""

    def fetch_into(
        self,
        directory: str,
        files: Sequence[WantedFile],
        into: Path,
        *,
        limit: int | None,
        report: Callable[[WarmProgress], None],
    ) -> Reading:
        """To be run: the same past any cache, into the local directory `into`, each file named by its sha256."""

    async def restore(
        self, directory: str, files: Sequence[WantedFile], report: Callable[[WarmProgress], None]
    ) -> None:
        """Files that were read with other bytes than their sha256 says get the right ones. Raises Refused where the
        bucket has none."""

    async def refresh(self, directory: str, *, recursive: bool = False) -> object:
        """Load a directory's listing so that the disk knows it."""

    async def listed(self) -> int:
        """How many files and directories the bucket has named since the disk is there."""

    async def cache_could_hold(self) -> int | None:
        """Bytes that find room on local disk if all else in the cache is gone; None: what is read is not kept."""

    async def know(self, directory: str, digests: Path, mark: str) -> None:
        """What a manifest says of the files below `directory`: the disk keeps a copy of the local file `digests`, which
        `survey_job.py` writes. The same `mark` stands for the same content."""

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]: ...

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        """Of the whole file, however slow the bucket is; `progress` is called with bytes."""
