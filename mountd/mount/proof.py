"""The last stage of a start: what is seen through the mount is what the bucket holds, and bytes can be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, RemoteError
from mountd.files.client import Files, Listing, NoStat
from mountd.mount.disk import MountDisk
from mountd.rclone.keys import BucketEntry

LIST_TIMEOUT_S = 60.0
LIST_LIMIT = 5000
SOME_FILES = 100
PROOF_BYTES = 4096
DEPTH = 4
"""How many directories deep the smallest file is looked for when no model says what to read."""
TRIES = 8
"""Files that are tried: one that cannot be read says nothing of the mount as long as another one can."""
DIRECTORIES = 3
ARCHIVED = "object-archived"


async def prove(disk: MountDisk, files: Files, candidates: Sequence[str]) -> str | None:
    """The witness: a directory that holds something, in one request; None without one.

    Raises DiskError, RemoteError or Unavailable unless the root lists alike on both sides and bytes come through. A
    root of more than LIST_LIMIT names is not compared.

    `candidates` are the files to read, best first: a model's manifest, its required files. Reads at most 4 KiB of a
    file, once a start: one byte more than needed can fetch a whole model. A file that cannot be read past the mount
    either is its own fault, and another one is tried; where all are archived, no byte can be expected.
    """
    before = await disk.refresh("")
    listing = await files.list(disk.root, limit=LIST_LIMIT, timeout_s=LIST_TIMEOUT_S)
    outside: list[BucketEntry] | None = None
    if not listing.truncated:  # else the bucket would have to be asked page by page: bytes of one file say enough
        outside = before or await disk.list_bucket("")  # that there is nothing is to be confirmed
        seen = {item.name for item in listing.items}
        missing = sorted(item.name for item in outside if item.name not in seen)
        if missing:
            names = ", ".join(missing[:3])
            raise DiskError(f"cannot trust {disk.root}: {names} of the bucket is not seen through it")
    faults: dict[str, RemoteError] = {}
    async for path in _worth_reading(disk, candidates, listing, outside):
        if path in faults:
            continue
        fault = await _read(disk, path)
        if fault is None:
            return await _witness(disk, files, path, outside)
        faults[path] = fault
        if len(faults) == TRIES:
            break
    refused = next((fault for fault in faults.values() if fault.code != ARCHIVED), None)
    if refused is not None:
        raise RemoteError(f"cannot read any file of {disk.fs}: {refused.text}", hint=refused.hint, code=refused.code)
    return None


async def _read(disk: MountDisk, path: str) -> RemoteError | None:
    """Why the object itself cannot be read; None: its bytes came through. Raises DiskError, RemoteError."""
    (found,) = await disk.stat([path])
    if isinstance(found, NoStat):
        raise DiskError(f"cannot trust {disk.root}: {path} is in the bucket, through the mount: {found.error}")
    wanted = min(PROOF_BYTES, found.size)
    try:
        data = await disk.read(path, wanted)
    except (DiskTimeout, ProbeNotSent):
        raise
    except DiskError:
        fault = await disk.why_unreadable(path)
        if fault is None:
            raise
        return fault
    if len(data) != wanted:
        raise DiskError(f"cannot trust {disk.root}: {path} gave {len(data)} of {found.size} bytes")
    return None


async def _witness(disk: MountDisk, files: Files, path: str, outside: Sequence[BucketEntry] | None) -> str | None:
    """The directory of `path`, else the root, when it is small: it is listed repeatedly from now on."""
    directory = path.rpartition("/")[0]
    # The mount has listed it, so that it is large is known without asking for 100 pages once more.
    if directory and not await _is_large(disk, files, directory):
        items = await disk.small_listing(directory)
        if items and len(items) <= SOME_FILES:
            return directory
    return "" if outside and len(outside) <= SOME_FILES else None


async def _is_large(disk: MountDisk, files: Files, directory: str) -> bool:
    listing = await files.list(f"{disk.root}/{directory}", limit=SOME_FILES, timeout_s=LIST_TIMEOUT_S)
    return listing.truncated


async def _worth_reading(
    disk: MountDisk, candidates: Sequence[str], listing: Listing, outside: Sequence[BucketEntry] | None
) -> AsyncIterator[str]:
    """Some more than once; those after the first are only looked for when it could not be read."""
    for path in await _present(disk, candidates):
        yield path
    if outside is None:
        names = [item.name for item in listing.items if item.type == "file"][:SOME_FILES]
        for path in await _present(disk, names, smallest_first=True):
            yield path
        return
    for item in sorted((item for item in outside if not item.is_dir and item.size > 0), key=lambda item: item.size)[:2]:
        yield item.path
    asked = {path.partition("/")[0] for path in candidates}
    directories = sorted((item.path for item in outside if item.is_dir), key=lambda path: (path in asked, path))
    for directory in directories[:DIRECTORIES]:
        if (found := await _smallest(disk, directory)) is not None:
            yield found


async def _present(disk: MountDisk, paths: Sequence[str], *, smallest_first: bool = False) -> list[str]:
    """Of these the files that are not empty, seen through the mount."""
    stats = zip(paths, await disk.stat(paths) if paths else (), strict=True)
    found = [(stat.size, path) for path, stat in stats if not isinstance(stat, NoStat) and stat.type == "file"]
    if smallest_first:
        found.sort()
    return [path for size, path in found if size > 0]


async def _smallest(disk: MountDisk, directory: str) -> str | None:
    for _ in range(DEPTH):
        items = await disk.small_listing(directory)
        if items is None:
            return None
        if files := [item for item in items if not item.is_dir and item.size > 0]:
            return min(files, key=lambda item: item.size).path
        directories = sorted(item.path for item in items if item.is_dir)
        if not directories:
            return None
        directory = directories[0]
    return None
