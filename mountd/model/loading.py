"""Brings the data of a version to this machine ahead of the app: into the mount's cache, or as a pinned copy."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from mountd.errors import MountdError, Refused
from mountd.model import manifest
from mountd.model.content import Content, check_has_digests
from mountd.model.disk import Reading
from mountd.model.surveyor import Scratch
from mountd.model.versions import Versions
from mountd.settings.schema import ModelSettings
from mountd.warm import access
from mountd.warm.pace import Speed
from mountd.warm.pinned import PinOrder
from mountd.warm.plan import WantedFile
from mountd.warm.profiles import Profiles
from mountd.warm.results import FetchResult, WarmProgress, raise_faults

log = structlog.get_logger()

Report = Callable[[WarmProgress], None]


class AppOpens(Protocol):
    """What apps open of a model at their start."""

    def follow(self, model: str, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls `listener` with each path, below the version's directory; the result ends that."""

    def opened(self, model: str) -> list[str]:
        """What apps that start now have opened, the last file first."""

    def note_own(self, path: str) -> None:
        """mountd itself is about to open this file."""


@dataclass(slots=True, eq=False)
class Loader:
    """Of one model. What it reports are bytes of the whole version. Methods raise Refused, Unavailable."""

    model: str
    versions: Versions
    profiles: Profiles | None = None
    opens: AppOpens | None = None
    needed: Callable[[], Collection[str] | None] = lambda: None
    """versions whose copies stay however little room there is; None: all"""
    live: Callable[[], str | None] = lambda: None
    """the version that the link leads to"""

    async def read_ahead(self, content: Content, settings: ModelSettings, report: Report) -> None:
        """Reads its files through the mount, so that its cache holds them; those with a sha256 are checked by it.

        What the app opened at its last start comes first, and what it opens now before that.
        """
        files = await self._files(content)
        warm = settings.warm
        files = access.order(files, await self._profile(), only_opened=warm.only_opened, required=settings.required)
        reading = self.versions.disk.read_ahead(content.directory, files, limit=warm.limit, report=report)
        disk, directory = self.versions.disk, content.directory
        result = await self._follow(reading, f"{disk.root}/{directory}")
        differing = {fault.path for fault in result.faults if fault.code == "digest-differs"}
        if differing:
            again = [each for each in files if each.path in differing]
            await disk.restore(directory, again, report)
            once_more = await disk.read_ahead(directory, again, limit=warm.limit, report=report).run()
            others = [fault for fault in result.faults if fault.path not in differing]
            result = FetchResult(result.bytes_read, (*others, *once_more.faults))
        raise_faults(result)
        log.info("data loaded", model=self.model, version=content.version, files=len(files))

    async def pin(self, content: Content, settings: ModelSettings, report: Report) -> None:
        """A checked copy of it lies on local disk then, whatever becomes of mount and bucket."""
        pins = self.versions.pins
        if pins is None:
            raise Refused(f"cannot pin {content.version}: there is no place for pinned versions")
        check_has_digests(content)
        disk = self.versions.disk
        named, itself = await asyncio.gather(self._files(content), self._manifest(content))
        files = [*named, itself]

        async def bring(wanted: Sequence[WantedFile], into: Path, relay: Report) -> FetchResult:
            return await disk.fetch_into(content.directory, wanted, into, limit=settings.warm.limit, report=relay).run()

        if (former := self.versions.pinned(content.version)) is not None and former.digest != content.digest:
            if content.version == self.live():  # its copy is read
                raise Refused(
                    f"cannot pin {content.version}: it is live, and the bucket holds something else under its name",
                    hint="publish that under another name, and switch to it",
                )
            await pins.remove(self.model, content.version)
        order = PinOrder(
            self.model,
            content.version,
            content.digest,
            access.order(files, await self._profile()),
            adopt=[str(path) for path in settings.warm.adopt],
            excluded=[disk.root],
            needed=self.needed,
            keep=settings.keep,
        )
        await pins.pin(order, bring, report)

    async def check_pinned(self, content: Content, report: Report) -> None:
        """Hashes its copy. Raises Refused when it is damaged: then `pin` fetches what is."""
        pins, speed = self.versions.pins, Speed()
        assert pins is not None
        record = pins.record(self.model, content.version)
        files = record.files if record is not None else 0

        def relay(done: int, total: int) -> None:
            speed.add(time.monotonic(), done)
            report(WarmProgress(done, total, speed.bytes_per_s, speed.eta_s(total - done), 0, files, readers=1))

        await pins.verify(self.model, content.version, relay)

    async def _manifest(self, content: Content) -> WantedFile:
        """The manifest itself, which it does not name."""
        disk, name = self.versions.disk, manifest.NAME
        with Scratch(disk.scratch) as scratch:
            path = scratch.path()
            await disk.save(f"{content.directory}/{name}", path)
            data = await asyncio.to_thread(path.read_bytes)
        return WantedFile(name, len(data), hashlib.sha256(data).hexdigest())

    async def _files(self, content: Content) -> list[WantedFile]:
        return [WantedFile(*each) for each in await self.versions.wanted_files(content)]

    async def _profile(self) -> access.AccessProfile | None:
        try:
            return await self.profiles.read(self.model) if self.profiles is not None else None
        except MountdError as error:
            log.warning("cannot read what the app opens", model=self.model, cause=error.text)
            return None

    async def _follow(self, reading: Reading, root: str) -> FetchResult:
        opens = self.opens
        if opens is None:
            return await reading.run()
        reading.on_open = lambda path: opens.note_own(f"{root}/{path}")
        stop = opens.follow(self.model, lambda _: reading.prefer(opens.opened(self.model)))
        reading.prefer(opens.opened(self.model))
        try:
            return await reading.run()
        finally:
            stop()
