"""One model: climbs waiting → listed → warmed → linked on a mount that runs, and again after each remount."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from mountd.errors import MountdError, NotFound, Refused, Unavailable
from mountd.journal.journal import Committed, Journal
from mountd.model import catalogue, link, manifest
from mountd.model.content import Content, check_required, inspect, load_metadata
from mountd.model.disk import Disk
from mountd.model.layout import Layout
from mountd.settings.schema import Model as ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import Health, ModelStage, ModelStatus, Reason, Snapshot, Sync

log = structlog.get_logger()

CONTENT_INTERVAL_S = 10.0
"""How often a bucket that lacks the version is asked again."""
TROUBLE_INTERVAL_S = 2.0


class Model:
    """Owns the link. `run` keeps it true; an operation changes it through `verify`, `flip` and `commit`."""

    def __init__(self, name: str, settings: ModelSettings, disk: Disk, board: Board, journal: Journal) -> None:
        self.name = name
        self.settings = settings
        self.layout = Layout(settings.directory)
        self._disk = disk
        self._board = board
        self._journal = journal
        self._lock = asyncio.Lock()  # a climb and an operation must not use the link at once
        self._committed = Committed()
        # What the link is to point at: the committed version, or what an operation has flipped to.
        self._live: str | None = None
        self._held = False
        self._former_links: list[Path] = []
        self._status = ModelStatus(mount=settings.mount, link=str(settings.link))
        self._log = log.bind(model=name)

    @property
    def current(self) -> str | None:
        return self._committed.current

    @property
    def previous(self) -> str | None:
        return self._committed.previous

    async def load(self) -> str | None:
        """Reads what was committed; returns the version that the file asks for by a switch, else None.

        It asks when its `version:` differs from the last one seen there, and goes on asking at each start until that
        version is live or a person asked for another one.
        """
        committed = await self._journal.committed(self.name)
        wanted = self.settings.version
        edited = committed.config_version != wanted
        desired = wanted if edited or committed.current is None else committed.desired
        self._committed = replace(committed, config_version=wanted, desired=desired)
        self._live = committed.current
        await self._journal.commit(self.name, self._committed)
        link.sweep(self.settings.link)
        self._publish()
        return wanted if desired == wanted and committed.current not in (None, wanted) else None

    async def edit(self) -> str | None:
        """A reload has changed `version:`: as `load` asks at a start, so here."""
        wanted, live = self.settings.version, self._committed.current
        await self._remember(replace(self._committed, config_version=wanted, desired=wanted))
        return wanted if live not in (None, wanted) else None

    def reconfigure(self, settings: ModelSettings, disk: Disk) -> None:
        """A reload; while no operation runs, and for another mount or directory between two lives of `run`.

        What is elsewhere now is climbed again, and the link stays as it is until that is there. Another link is placed
        at once when the model is live, and the former one taken away after it.
        """
        before, self.settings = self.settings, settings
        elsewhere = disk is not self._disk or settings.directory != before.directory
        self._disk, self.layout = disk, Layout(settings.directory)
        if settings.link != before.link:
            self._former_links.append(before.link)
        if elsewhere:
            self._climb_again()
        elif settings.link != before.link and self._status.linked and self._status.target is not None:
            try:
                self._place_link(self._status.target)
            except link.LinkBlocked as error:  # climbing tries again, and tells
                self._log.warning("cannot move the link yet", cause=error.text, hint=error.hint)
                self._climb_again()
        self._publish(mount=settings.mount, link=str(settings.link))

    def _climb_again(self) -> None:
        self._publish(stage=ModelStage.WAITING, health=Health.PROGRESSING, reason=None, mount_restarts=-1)

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, **changes: object) -> None:
        status = replace(self._status, **changes)  # type: ignore[arg-type]
        known = self._committed
        current = status.current if status.linked else known.current
        synced = Sync.SYNCED if current == known.desired else Sync.OUT_OF_SYNC
        self._status = replace(
            status,
            current=current,
            previous=known.previous,
            desired=known.desired,
            sync=synced if status.linked else Sync.UNKNOWN,
        )
        self._board.set_model(self.name, self._status)

    # -- the climb ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: whenever the mount has come (back), climb; while that fails, try again."""
        while True:
            mount = self._board.snapshot.mounts[self.settings.mount]
            if not mount.usable:
                self._publish(stage=ModelStage.WAITING, health=Health.PROGRESSING, reason=None)
                await self._board.changed()
            elif self._is_settled(mount.restarts):
                await self._board.changed()
            else:
                pause_s = await self._try_climb(mount.restarts)
                await self._pause(pause_s, mount.restarts)

    def _is_settled(self, restarts: int) -> bool:
        if self._status.linked:
            # A first version that could not be journaled is tried again.
            remembered = self._committed.current is not None or self._held
            return self._status.mount_restarts == restarts and remembered
        # Nothing was ever live, and an operation is about to decide what will be: leave that to it.
        return self._held and self._live is None

    async def _try_climb(self, restarts: int) -> float:
        version = self._live or self._committed.current or self._committed.desired
        assert version is not None
        try:
            async with self._lock:
                await self._climb(version, restarts)
        except (NotFound, Refused) as error:
            self._fail("waiting-for-content", f"waiting for content: {error.text}", error.hint, Health.MISSING)
            return CONTENT_INTERVAL_S
        except link.LinkBlocked as error:
            self._fail("link-blocked", error.text, error.hint, Health.DEGRADED)
            return CONTENT_INTERVAL_S
        except Unavailable as error:
            self._fail("model-unavailable", error.text, error.hint, Health.DEGRADED)
            return TROUBLE_INTERVAL_S
        except MountdError as error:
            self._fail("journal-unusable", error.text, error.hint, Health.DEGRADED)
            return CONTENT_INTERVAL_S
        return 0.0

    def _fail(self, code: str, text: str, hint: str, health: Health) -> None:
        if self._status.reason is None or self._status.reason.text != text:
            self._log.warning("model cannot go live yet", cause=text, hint=hint)
        self._publish(health=health, reason=Reason(code, text, "link", self.name, hint))

    async def _pause(self, pause_s: float, restarts: int) -> None:
        asked = self.settings, self._committed.desired

        def mount_changed(snapshot: Snapshot) -> bool:
            mount = snapshot.mounts[self.settings.mount]
            edited = (self.settings, self._committed.desired) != asked
            return edited or not mount.usable or mount.restarts != restarts or self._is_settled(restarts)

        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(mount_changed, pause_s)

    async def _climb(self, version: str, restarts: int) -> None:
        self._publish(stage=ModelStage.WAITING, warmed_percent=0)
        content = await self._prepare(version, climbing=True)
        self._point(content, restarts)
        if self._committed.current is None and not self._held:
            await self._remember(replace(self._committed, current=version))

    async def _prepare(self, version: str, *, climbing: bool) -> Content:
        """From waiting to warmed; the stages are the model's own only when it climbs itself."""
        required = self.settings.required
        content = await inspect(self._disk, self.layout, version, required)
        if not content.complete:
            raise Refused(
                f"cannot use version {version}: incomplete, {manifest.summary(list(content.problems))}",
                hint="finish its upload, or name another version; `mountd versions` shows which are complete",
            )
        if climbing:
            self._publish(stage=ModelStage.LISTED, reason=None)
        if manifest.NAME not in content.files:  # else it was done in order to read it
            await self._disk.refresh(self.layout.parent)
        seconds = await load_metadata(self._disk, content, self._progress if climbing else lambda _: None)
        await check_required(self._disk, content, required)
        if climbing:
            self._publish(stage=ModelStage.WARMED, warm_seconds=round(seconds, 3))
        self._log.info("metadata loaded", version=version, files=len(content.files), seconds=round(seconds, 3))
        return content

    def _progress(self, percent: int) -> None:
        self._publish(warmed_percent=percent)

    def _target(self, version: str) -> str:
        return f"{self._disk.root}/{self.layout.directory(version)}"

    def _point(self, content: Content, restarts: int) -> None:
        target = self._target(content.version)
        self._place_link(target)
        self._live = content.version
        self._log.info("link points", link=str(self.settings.link), target=target, version=content.version)
        self._publish(
            stage=ModelStage.LINKED,
            health=Health.HEALTHY,
            reason=None,
            current=content.version,
            target=target,
            digest=content.digest,
            verified=content.verified,
            warmed_percent=100,
            mount_restarts=restarts,
        )

    def _place_link(self, target: str) -> None:
        """Then the links of a former configuration go, as far as they are still ours. Raises LinkBlocked."""
        ours = {target, self._status.target}
        link.point(self.settings.link, target)
        while self._former_links:
            former = self._former_links.pop()
            if former != self.settings.link and link.read(former) in ours:
                with contextlib.suppress(OSError):
                    os.unlink(former)
                    self._log.info("former link removed", link=str(former))

    # -- for operations -------------------------------------------------------------------------------------------

    async def verify(self, version: str) -> Content:
        """Everything that must hold before a version may go live; changes nothing.

        Raises NotFound, Refused, Unavailable.
        """
        mount = self._board.snapshot.mounts[self.settings.mount]
        if not mount.usable:
            why = mount.reason.text if mount.reason else f"it is {mount.state}"
            raise Unavailable(f"cannot verify {version}: mount {self.settings.mount} is not running: {why}")
        try:
            link.check(self.settings.link)
        except link.LinkBlocked as error:
            raise Refused(error.text, hint=error.hint) from None
        async with self._lock:
            return await self._prepare(version, climbing=False)

    async def flip(self, content: Content | None) -> None:
        """Point the link at `content`; None takes it away again, when nothing was live before. Raises LinkBlocked."""
        async with self._lock:
            if content is None:
                self._unlink()
            else:
                self._point(content, self._board.snapshot.mounts[self.settings.mount].restarts)

    def _unlink(self) -> None:
        try:
            os.unlink(self.settings.link)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EISDIR, errno.EPERM):
                raise link.LinkBlocked(f"cannot remove the link {self.settings.link}: {error.strerror}") from None
        self._live = None
        self._publish(stage=ModelStage.WAITING, target=None, digest=None, verified=False, mount_restarts=-1)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For the time of an operation: the model follows it, and commits nothing by itself."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def live_content(self) -> Content | None:
        """What the link is to point at now, enough to flip back to."""
        version, status = self._live, self._status
        if version is None:
            return None
        directory = self.layout.directory(version)
        return Content(version, directory, {}, status.digest or "", status.verified, ())

    async def ask_for(self, version: str) -> None:
        """Remember what was asked for."""
        await self._remember(replace(self._committed, desired=version))

    async def commit(self, version: str) -> None:
        """`version` is live for good; what was live becomes `previous`. Raises MountdError, Unavailable."""
        if self._live != version:
            raise Unavailable(f"cannot commit {version}: the link is at {self._live or 'nothing'}")
        known = self._committed
        previous = known.previous if known.current in (None, version) else known.current
        await self._remember(replace(known, current=version, previous=previous, desired=version))

    async def _remember(self, committed: Committed) -> None:
        await self._journal.commit(self.name, committed)
        self._committed = committed
        self._publish()

    @property
    def desired(self) -> str | None:
        return self._committed.desired

    async def versions(self) -> Sequence[Content]:
        """What the bucket holds now. Raises Unavailable."""
        return await catalogue.describe(self._disk, self.layout, self.settings.required)

    def probe_paths(self) -> list[str]:
        """What is worth reading to prove a mount: the manifest, then the required files."""
        version = self._committed.current or self._committed.desired
        if version is None:
            return []
        directory = self.layout.directory(version)
        return [f"{directory}/{path}" for path in (manifest.NAME, *self.settings.required)]
