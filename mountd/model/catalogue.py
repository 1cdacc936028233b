"""The versions in the bucket, as they are now."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from mountd.errors import MountdError, NotFound
from mountd.model.content import Content, inspect
from mountd.model.disk import Disk
from mountd.model.layout import Layout

PARALLEL = 4


def natural(version: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts v9 before v10."""
    parts = re.split(r"(\d+)", version)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


async def names(disk: Disk, layout: Layout) -> list[str]:
    """Versions that have a directory, oldest name first. Raises Unavailable."""
    items = await disk.list_bucket(layout.parent)
    found = {layout.version_of(item.name) for item in items if item.is_dir}
    return sorted((version for version in found if version), key=natural)


async def describe(disk: Disk, layout: Layout, required: Sequence[str]) -> list[Content]:
    """Every version with what it holds. Raises Unavailable; a version that vanishes meanwhile is left out."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one(version: str) -> Content | None:
        async with gate:
            try:
                return await inspect(disk, layout, version, required)
            except NotFound:
                return None
            except MountdError as error:
                return Content(version, layout.directory(version), {}, "", False, (error.text,))

    found = await asyncio.gather(*(one(version) for version in await names(disk, layout)))
    return [content for content in found if content is not None]
