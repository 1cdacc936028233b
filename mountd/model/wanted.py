"""The files of a version with their digests, read again when they are needed: nothing keeps 100,000 of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import IO

from mountd.errors import Refused, Unavailable, cause_of
from mountd.model import manifest
from mountd.model.content import Content, check_has_digests
from mountd.model.disk import Disk
from mountd.model.look import Look
from mountd.model.surveyor import Scratch

AT_ONCE = 1000
"""Files of a batch."""

Wanted = tuple[str, int, str | None]
"""Path below the version's directory, bytes, and sha256 in hex where it is known."""


async def wanted_files(disk: Disk, content: Content) -> list[Wanted]:
    """All files that belong to the version: those of its manifest, else those that are there.

    Of 100,000 it takes 30 MB: let go of it soon. Raises Refused when the manifest is another one by now, Unavailable.
    """
    return [each async for batch in wanted_batches(disk, content) for each in batch]


async def wanted_batches(disk: Disk, content: Content) -> AsyncGenerator[list[Wanted], None]:
    """As `wanted_files`, AT_ONCE of them at a time. To be closed when it is left early."""
    if content.manifest is None:
        files = (await asyncio.to_thread(content.files.sizes)).items()
        while some := [*islice(files, AT_ONCE)]:
            yield [(path, size, None) for path, size in some]
        return
    with Scratch(disk.scratch) as scratch:
        look = Look(disk, scratch, content.version, content.directory, ())
        await look.read_manifest(must=True)
        if look.summary is None or look.summary.digest != content.digest:
            raise Refused(
                f"cannot use version {content.version}: its {manifest.NAME} has changed since it was looked at",
                hint="a version must never change: publish what is new under another name",
            )
        try:
            lines = await asyncio.to_thread(open, look.parsed, encoding="ascii")
            try:
                await asyncio.to_thread(next, lines)  # the version
                while batch := await asyncio.to_thread(_read, lines):
                    yield batch
            finally:
                lines.close()
        except OSError as error:
            raise Unavailable(f"cannot read the lists of a version: {cause_of(error)}") from None


def _read(lines: IO[str]) -> list[Wanted]:
    return [(path, size, sha256) for path, size, sha256 in map(json.loads, islice(lines, AT_ONCE))]


def _advance(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


async def check_digests(disk: Disk, content: Content, progress: Callable[[int, int], None]) -> None:
    """Reads the whole version through the mount; `progress` is called with bytes done and in all.

    Raises Refused with every file that differs, DiskError.
    """
    check_has_digests(content)
    assert content.manifest is not None
    total, before = content.manifest.bytes, 0
    problems = []
    async with aclosing(wanted_batches(disk, content)) as batches:
        async for path, _, wanted in (each async for batch in batches for each in batch):
            found = await disk.hash(f"{content.directory}/{path}", partial(_advance, progress, before, total))
            before += found.bytes
            if found.sha256 != wanted:
                problems.append(f"{path} has other bytes than {manifest.NAME} says (sha256 {found.sha256[:12]}…)")
    if problems:
        raise Refused(
            f"cannot use version {content.version}: {manifest.summary(problems)}",
            hint="upload it again, or publish it under a new name",
        )
