"""The last rung: what is seen through the mount is what the bucket holds, and bytes can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mountd.errors import DiskError
from mountd.files.client import Files, Listing, NoStat
from mountd.mount.disk import MountDisk
from mountd.rclone.rc import Item

LIST_TIMEOUT_S = 60.0
LIST_LIMIT = 5000
SOME_FILES = 100
PROOF_BYTES = 4096
DEPTH = 4
"""How many directories deep the smallest file is looked for when no model says what to read."""


class Disagreement(DiskError):
    """The mount shows something else than the bucket holds."""


async def prove(disk: MountDisk, files: Files, candidates: Sequence[str]) -> str | None:
    """Raises DiskError, RemoteError or Unavailable unless the root lists alike on both sides and bytes come through.

    A root of more than LIST_LIMIT names is not compared.

    `candidates` are the files to read, best first: a model's manifest, its required files. Returns the path read, or
    None where no file to read is found. Reads at most 4 KiB of one file, once a climb: one byte more than needed
    can fetch a whole model.
    """
    await disk.refresh("")
    listing = await files.list(disk.root, limit=LIST_LIMIT, timeout_s=LIST_TIMEOUT_S)
    if listing.truncated:
        # Of so many the bucket would have to be asked page by page: bytes of one of them say enough.
        path = await _first_present(disk, candidates) or await _smallest_of(disk, listing)
    else:
        outside = await disk.list_bucket("")
        seen = {item.name for item in listing.items}
        missing = sorted(item.name for item in outside if item.name not in seen)
        if missing:
            names = ", ".join(missing[:3])
            raise Disagreement(f"cannot trust {disk.root}: {names} of the bucket is not seen through it")
        path = await _first_present(disk, candidates) or await _smallest(disk, outside)
    if path is not None:
        (found,) = await disk.stat([path])
        if isinstance(found, NoStat):
            raise Disagreement(f"cannot trust {disk.root}: {path} is in the bucket, through the mount: {found.error}")
        data = await disk.read(path, min(PROOF_BYTES, found.size))
        if len(data) != min(PROOF_BYTES, found.size):
            raise Disagreement(f"cannot trust {disk.root}: {path} gave {len(data)} of {found.size} bytes")
    return path


async def _first_present(disk: MountDisk, candidates: Iterable[str]) -> str | None:
    paths = [*candidates]
    for path, found in zip(paths, await disk.stat(paths) if paths else (), strict=True):
        if not isinstance(found, NoStat) and found.type == "file" and found.size > 0:
            return path
    return None


async def _smallest_of(disk: MountDisk, listing: Listing) -> str | None:
    """Of some files that are seen through the mount."""
    names = [item.name for item in listing.items if item.type == "file"][:SOME_FILES]
    found = zip(names, await disk.stat(names) if names else (), strict=True)
    sizes = [(stat.size, name) for name, stat in found if not isinstance(stat, NoStat) and stat.size > 0]
    return min(sizes)[1] if sizes else None


async def _smallest(disk: MountDisk, items: Sequence[Item]) -> str | None:
    for _ in range(DEPTH):
        files = [item for item in items if not item.is_dir and item.size > 0]
        if files:
            return min(files, key=lambda item: item.size).path
        directories = sorted(item.path for item in items if item.is_dir)
        if not directories:
            return None
        found = await disk.small_listing(directories[0])
        if found is None:
            return None
        items = found
    return None
