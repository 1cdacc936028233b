"""The versions of one model as bucket and mount show them: which there are, whether one is complete and loaded."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from mountd.errors import MountdError, NotFound, Refused, Unavailable
from mountd.model import link, manifest
from mountd.model.content import Content, Touch, check_has_digests, check_seen
from mountd.model.disk import Disk
from mountd.model.drift import LinkBlocked
from mountd.model.layout import Layout
from mountd.model.look import Progress, inspect, load
from mountd.model.survey import NO_FILES
from mountd.model.wanted import Wanted, check_digests, wanted_files
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import MountStatus
from mountd.text import did_you_mean
from mountd.warm.pinned import Pins
from mountd.warm.pins import PinRecord

log = structlog.get_logger()

PARALLEL = 4
"""How many versions are looked at together."""


class Versions:
    """Changes nothing but what the mount has loaded. Methods raise Unavailable while mount or bucket do not answer."""

    def __init__(self, model: str, settings: ModelSettings, disk: Disk, board: Board, pins: Pins | None = None) -> None:
        self.allow_unsafe = False
        """whether the link may be where somebody else can move a directory above it"""
        self.pins = pins
        self.unpins = False
        """the configuration no longer asks for pinned versions: they are not used, and about to be removed"""
        self._model = model
        self._board = board
        self._warmed: dict[str, int] = {}
        self._log = log.bind(model=model)
        self.reconfigure(settings, disk)

    def reconfigure(self, settings: ModelSettings, disk: Disk) -> None:
        self._settings = settings
        self.disk = disk
        self.layout = Layout(settings.directory)

    @property
    def mount(self) -> MountStatus:
        return self._board.snapshot.mounts[self._settings.mount]

    def target(self, version: str) -> str:
        """What the link points at when `version` is live: a pinned copy, if there is one, or its place on the mount."""
        return self._tree(version) if self.pinned(version) else self._mounted(version)

    def planned_target(self, version: str) -> str:
        """What it will point at after a switch, which pins it if that is asked for."""
        is_pinned = self._settings.warm.level == "pin" or self.pinned(version)
        return self._tree(version) if self.pins is not None and is_pinned else self._mounted(version)

    def targets(self, version: str) -> tuple[str, ...]:
        """All places where the version may lie."""
        return (self._mounted(version), self._tree(version)) if self.pins is not None else (self._mounted(version),)

    def version_at(self, target: str) -> str | None:
        """The version whose place this is; None: it is none."""
        found = self.layout.version_of_target(self.disk.root, target)
        return found if found or self.pins is None else self.pins.version_of(self._model, target)

    def _mounted(self, version: str) -> str:
        return f"{self.disk.root}/{self.layout.directory(version)}"

    def _tree(self, version: str) -> str:
        assert self.pins is not None
        return self.pins.tree(self._model, version)

    def all_pinned(self) -> dict[str, PinRecord]:
        """Versions whose copy is used, oldest name first, with what is known of each."""
        if self.pins is None or self.unpins:
            return {}
        found = {each: self.pins.record(self._model, each) for each in self.pins.versions(self._model)}
        return {each: record for each in sorted(found, key=_natural) if (record := found[each]) is not None}

    def pinned(self, version: str) -> Content | None:
        """What is pinned of it, if its copy is to be used; None: it lies on the mount alone."""
        record = self.pins.record(self._model, version) if self.pins is not None and not self.unpins else None
        if record is None:
            return None
        return Content(version, self.layout.directory(version), NO_FILES, record.digest, True, ())

    def check_path(self, path: Path) -> None:
        """Raises LinkBlocked where somebody else decides in which directory the link `path` is made."""
        if not self.allow_unsafe:
            link.refuse_unsafe(path)

    async def all(self) -> list[Content]:
        """What the bucket holds now, oldest name first; a version that vanishes meanwhile is left out."""
        disk, layout, required = self.disk, self.layout, self._settings.required  # as a reload leaves them now
        items = await disk.list_bucket(layout.parent)
        names = {layout.version_of(item.name) for item in items if item.is_dir}
        gate = asyncio.Semaphore(PARALLEL)

        async def one(version: str) -> Content | None:
            async with gate:
                try:
                    return await inspect(disk, layout, version, required)
                except NotFound:
                    return None
                except MountdError as error:
                    return Content(version, layout.directory(version), NO_FILES, "", False, (error.text,))

        found = await asyncio.gather(*(one(version) for version in sorted(filter(None, names), key=_natural)))
        return [content for content in found if content is not None]

    async def named_near(self, error: NotFound, version: str) -> NotFound:
        """`error` with the name of a version that may have been meant; asks the bucket once."""
        near = ""
        with contextlib.suppress(MountdError):
            items = await self.disk.list_bucket(self.layout.parent)
            names = (self.layout.version_of(each.name) for each in items if each.is_dir)
            near = did_you_mean(version, filter(None, names))
        return NotFound(error.text, hint=near + error.hint)

    async def ask_bucket(self) -> None:
        """Whether the bucket answers, past any cache."""
        await self.disk.list_bucket(self.layout.parent)

    def paths(self, version: str) -> list[str]:
        """Files that are worth reading to prove a mount: the manifest, then the required files."""
        directory = self.layout.directory(version)
        return [f"{directory}/{path}" for path in (manifest.NAME, *self._settings.required)]

    # -- from waiting to warmed -----------------------------------------------------------------------------------

    async def inspect(self, version: str, *, touch: Touch = Touch.NONE, progress: Progress = lambda _: None) -> Content:
        """What it holds, loaded through the mount by one listing; `progress` is called with percents of that.

        `touch`: the store must give its files, archived ones it does not. Raises NotFound, Refused for one that is
        incomplete, Unavailable also when the bucket's answer is not valid.
        """
        began, restarts = time.monotonic(), self.mount.restarts
        if self.warmed_on(version) == restarts:
            await self.disk.confirm()  # an answer that is not valid must not take its files out of the mount
        try:
            content = await load(self.disk, self.layout, version, self._settings.required, progress, touch=touch)
        except NotFound:
            why = self.mount.backend.reason
            if why is None:
                raise
            raise Unavailable(f"cannot look for version {version}: {why.text}", hint=why.hint) from None
        if not content.complete:
            problems = manifest.summary(content.problems, content.more_problems)
            raise Refused(f"cannot use version {version}: incomplete, {problems}", hint=_hint(content))
        self._warmed[version] = restarts
        seconds = round(time.monotonic() - began, 3)
        self._log.info("metadata loaded", version=version, files=len(content.files), seconds=seconds)
        return content

    async def at_start(self, version: str, touch: Touch, progress: Progress) -> tuple[Content, str]:
        """As `inspect`; where the bucket no longer holds what is pinned of it, the copy, and why: it is live."""
        pinned = self.pinned(version)
        try:
            content = await self.inspect(version, touch=touch, progress=progress)
        except NotFound:
            if pinned is None:
                raise
            return pinned, "it is no longer there"
        except Refused as error:
            if pinned is None:
                raise
            return pinned, error.text.partition(": ")[2]
        if pinned is not None and content.digest != pinned.digest:
            what = "says something else" if content.manifest else "is missing"
            return pinned, f"{manifest.NAME} {what}"
        return content, ""

    async def warm(self, content: Content, progress: Progress) -> None:
        """Once more, on a mount that was replaced since; `progress` is called with percents. Raises as `inspect`."""
        if self.is_pinned_copy(content):
            return
        if self.warmed_on(content.version) != self.mount.restarts:
            again = await self.inspect(content.version, progress=progress)
            if again.digest != content.digest:
                raise Refused(f"cannot use version {content.version}: it has changed since it was looked at")
        progress(100)

    async def wanted_files(self, content: Content) -> list[Wanted]:
        """Path, bytes and sha256 of each file that belongs to it, read again. Raises Refused, Unavailable."""
        return await wanted_files(self.disk, content)

    def warmed_on(self, version: str) -> int:
        """The mount's `restarts` that its metadata was loaded on; -1: never."""
        return self._warmed.get(version, -1)

    def is_warm(self, version: str, restarts: int) -> None:
        """Its metadata was loaded when the mount had that number of restarts."""
        self._warmed[version] = restarts

    async def verify(self, content: Content, progress: Callable[[int, int], None] | None = None) -> None:
        """Checks its files where the app will read them; with `progress`, called with bytes, their content too.

        Raises Refused, Unavailable.
        """
        if self.pins is not None and self.pinned(content.version) is not None:
            if progress is not None:
                await self.pins.verify(self._model, content.version, progress)
            return
        await check_seen(self.disk, content, self._settings.required)
        if progress is not None:
            await check_digests(self.disk, content, progress)

    # -- before a switch ------------------------------------------------------------------------------------------

    async def preflight(
        self, version: str, *, digests: bool = False, touch: bool = True, progress: Progress = lambda _: None
    ) -> Content:
        """What must hold before anything else is worth the time; changes nothing but what the mount has loaded.

        `touch`: the store must give its files; of one that will be pinned it is only asked about them, since they are
        fetched, or lie here already, before anything is stopped. `progress` is called with percents.
        Raises NotFound, Refused (incomplete, the link blocked, the cache broken, an archived file).
        """
        pinned = self.pinned(version)
        if pinned is None:
            self.check_mount(version)
        if pinned is None and self.mount.cache_broken and not self.mount.cache_bypassed:
            raise Refused(
                f"cannot use version {version}: the cache of mount {self._settings.mount} cannot be used",
                hint="see `mountd status`: it says what is wrong with it",
            )
        try:
            self.check_path(self._settings.link)
            link.prove(self._settings.link, self.planned_target(version))
        except LinkBlocked as error:
            raise Refused(error.text, hint=error.hint) from None
        try:
            self.check_mount(version)
            content = await self.inspect(
                version, touch=self._touch(version) if touch else Touch.NONE, progress=progress
            )
        except (NotFound, Refused, Unavailable) as error:
            if pinned is None:
                raise (await self.named_near(error, version) if isinstance(error, NotFound) else error) from None
            return pinned  # neither mount nor bucket is needed, nor that it still holds all of the version
        if digests:
            check_has_digests(content)
        return content

    def _touch(self, version: str) -> Touch:
        if self.pinned(version) is not None:
            return Touch.NONE
        return Touch.ASKED if self._settings.warm.level == "pin" else Touch.READ

    def is_pinned_copy(self, content: Content) -> bool:
        """Whether it is what lies on local disk, looked at without the mount."""
        return not content.files and self.pinned(content.version) is not None

    def check_usable(self, version: str) -> None:
        """Raises Unavailable unless the mount runs, or the version is pinned."""
        if self.pinned(version) is None:
            self.check_mount(version)

    def check_mount(self, version: str) -> None:
        """Raises Unavailable unless the mount runs."""
        mount = self.mount
        if not mount.usable:
            why = mount.reason.text if mount.reason else f"it is {mount.state}"
            raise Unavailable(f"cannot use version {version}: mount {self._settings.mount} is not running: {why}")


def _hint(content: Content) -> str:
    is_uploaded = content.manifest is not None and content.misnamed == content.problem_count
    upload = "" if is_uploaded else "finish its upload, "
    correct = "correct `required` of the model in the configuration, " if content.misnamed else ""
    return f"{upload}{correct}or name another version; `mountd versions` shows which are complete"


def _natural(version: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts v9 before v10."""
    parts = re.split(r"(\d+)", version)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)
