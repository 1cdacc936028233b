"""One model: climbs waiting → listed → warmed → linked on a mount that runs, and again after each remount."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import structlog

from mountd.errors import MountdError, NotFound, Refused, Unavailable
from mountd.journal.journal import Committed, Journal
from mountd.model import derived, link
from mountd.model.changes import Changes
from mountd.model.committed import Memory
from mountd.model.content import Content
from mountd.model.disk import Disk
from mountd.model.drift import WantedLink, left_alone
from mountd.model.kept_link import KeptLink
from mountd.model.layout import Layout
from mountd.model.link_guard import LinkGuard
from mountd.model.versions import Versions
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import DriftStatus, Health, ModelStage, ModelStatus, Reason, Snapshot, Unmet

log = structlog.get_logger()

CONTENT_INTERVAL_S = 10.0
"""How often a bucket that lacks the version is asked again."""
TROUBLE_INTERVAL_S = 2.0


class Model:
    """Owns the link. `run` keeps it true; an operation changes it through `verify`, `flip` and `commit`."""

    def __init__(self, name: str, settings: ModelSettings, disk: Disk, board: Board, journal: Journal) -> None:
        self.name = name
        self.settings = settings
        self.versions = Versions(name, settings, disk, board)
        self._board = board
        self._memory = Memory(name, journal, self._publish)
        self.changes = Changes(name, journal, self._publish)
        self._lock = asyncio.Lock()  # a climb and an operation must not place the link at once
        # What the link is to point at: the committed version, or what an operation has flipped to.
        self._live: str | None = None
        self._held = False
        self._moving = False
        """an operation has the link, and the guard leaves it alone"""
        self._wished: str | None = None
        """what an operation is about to make live"""
        self._content: Content | None = None
        """what was pointed at last, with its files"""
        self._link = KeptLink(name, settings.link, self.versions.check_way)
        self._astray = False
        """linked, but for what somebody has made of the link"""
        self._guard = LinkGuard(name, self._keeping, self._show_drift, self.versions.check_way)
        self._status = ModelStatus(mount=settings.mount, link=str(settings.link))
        self._log = log.bind(model=name)

    # -- what is durable ------------------------------------------------------------------------------------------

    @property
    def committed(self) -> Committed:
        return self._memory.committed

    @property
    def current(self) -> str | None:
        return self.committed.current

    @property
    def previous(self) -> str | None:
        return self.committed.previous

    @property
    def desired(self) -> str | None:
        return self.committed.desired

    @property
    def suspended(self) -> str | None:
        return self.committed.suspended

    async def load(self) -> str | None:
        """Reads what was committed; returns the version that the file asks for by a switch, else None.

        It asks when its `version:` differs from the last one seen there, and goes on asking at each start until that
        version is live or a person asked for another one.
        """
        await self._memory.load()
        wanted = self.settings.version
        committed = await self._as_linked(self.committed)
        edited = committed.config_version != wanted
        desired = wanted if edited or committed.current is None else committed.desired
        self._live = committed.current
        await self._memory.update(replace(committed, config_version=wanted, desired=desired))
        link.sweep(self.settings.link)
        return wanted if desired == wanted and committed.current not in (None, wanted) else None

    async def _as_linked(self, known: Committed) -> Committed:
        """After a journal was lost the link is the truth: what it points at was live."""
        target = link.read(self.settings.link) if self._memory.is_lost else None
        version = self.layout.version_of_target(self.disk.root, target) if target else None
        if version is None:
            return known
        return await self._memory.take_from_link(replace(known, config_version=self.settings.version), version)

    async def edit(self) -> str | None:
        """A reload has changed `version:`: as `load` asks at a start, so here.

        Does not raise: with a journal that cannot be written the version is asked for all the same.
        """
        wanted, live = self.settings.version, self.current
        await self._memory.update(replace(self.committed, config_version=wanted, desired=wanted))
        return wanted if live not in (None, wanted) else None

    def reconfigure(self, settings: ModelSettings, disk: Disk) -> None:
        """A reload; while no operation runs, and for another mount or directory between two lives of `run`.

        What is elsewhere now is climbed again, and the link stays as it is until that is there. Another link is placed
        at once when the model is live, and the former one taken away after it.
        """
        before, self.settings = self.settings, settings
        elsewhere = disk is not self.disk or settings.directory != before.directory
        self.versions.reconfigure(settings, disk)
        if settings.link != before.link:
            self._link.move(settings.link)
        if elsewhere:
            self._climb_again()
        elif settings.link != before.link and self._status.linked and self._status.target is not None:
            try:
                self._place(self._status.target)
            except link.LinkBlocked as error:  # climbing tries again, and tells
                self._log.warning("cannot move the link yet", cause=error.text, hint=error.hint)
                self._climb_again()
        self._publish(mount=settings.mount, link=str(settings.link))
        self._guard.wake()

    def _climb_again(self) -> None:
        self._publish(stage=ModelStage.WAITING, health=Health.PROGRESSING, reason=None, mount_restarts=-1)

    # -- status ---------------------------------------------------------------------------------------------------

    def _publish(self, **changes: object) -> None:
        status = replace(self._status, **changes)  # type: ignore[arg-type]
        sync = self.settings.sync
        self._status = derived.complete(status, self.committed, wished=self._wished, automatic=sync.automatic)
        self._board.set_model(self.name, self._status)

    # -- the climb ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: climbs, and keeps the link what it was made to be."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._guard.run(lambda: self.settings.link), name=f"guard {self.name}")
            group.create_task(self._climb_always(), name=f"climb {self.name}")

    async def _climb_always(self) -> None:
        """Whenever the mount has come (back), climb; while that fails, try again."""
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
        return derived.is_settled(
            self._status, self.committed, restarts, live=self._live, held=self._held, astray=self._astray
        )

    async def _try_climb(self, restarts: int) -> float:
        try:
            await self._climb(restarts)
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
        asked = self.settings, self.committed.desired

        def mount_changed(snapshot: Snapshot) -> bool:
            mount = snapshot.mounts[self.settings.mount]
            edited = (self.settings, self.committed.desired) != asked
            return edited or not mount.usable or mount.restarts != restarts or self._is_settled(restarts)

        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(mount_changed, pause_s)

    @property
    def _climbed_to(self) -> str:
        version = self._live or self.committed.current or self.committed.desired
        assert version is not None
        return version

    async def _climb(self, restarts: int) -> None:
        version = self._climbed_to
        self._astray = False
        self._publish(stage=ModelStage.WAITING, warmed_percent=0)
        content = await self._prepare(version)
        await self.changes.compare(content)  # it may have been replaced while nobody looked: told as it goes live
        # The link is free all that time, however slow the bucket is: an operation may have flipped it meanwhile.
        async with self._lock:
            if version != self._climbed_to:
                return
            self._point(content, restarts, climbing=True)
            if self.committed.current is None and not self._held:
                await self._memory.go_live(content)

    async def _prepare(self, version: str) -> Content:
        """From waiting to warmed."""
        content = await self.versions.inspect(version, touch=self.committed.current is None)  # else it may be cached
        self._publish(stage=ModelStage.LISTED, reason=None)
        seconds = await self.versions.warm(content, lambda percent: self._publish(warmed_percent=percent))
        await self.versions.verify(content)
        self._publish(stage=ModelStage.WARMED, warm_seconds=round(seconds, 3))
        return content

    def _point(self, content: Content, restarts: int, *, climbing: bool = False) -> None:
        target = self.versions.target(content.version)
        if climbing and self._is_left_alone(target):
            self._link.leave(target)
        else:
            self._place(target)
            self._log.info("link points", link=str(self.settings.link), target=target, version=content.version)
        self._astray = False
        self._live = content.version
        self._content = content if content.files else None
        self._publish(
            stage=ModelStage.LINKED,
            health=Health.HEALTHY,
            reason=None,
            current=content.version,
            target=target,
            digest=content.digest,
            verified=content.verified,
            changed=self.changes.of(content.version),
            warmed_percent=100,
            mount_restarts=restarts,
        )
        self._guard.look()  # at once: an app that starts now is to know what it finds

    def _place(self, target: str) -> None:
        """Raises LinkBlocked."""
        self._link.place(target)
        self._guard.placed(self._link.path, target)

    # -- content --------------------------------------------------------------------------------------------------

    @property
    def disk(self) -> Disk:
        return self.versions.disk

    @property
    def layout(self) -> Layout:
        return self.versions.layout

    @property
    def content(self) -> Content | None:
        """What is live, as it was when it became that; None while nothing is linked."""
        return self._content if self._status.linked and self._live else None

    def show_unmet(self, unmet: Unmet | None) -> None:
        """A version that is declared could not be switched to."""
        self._publish(unmet=unmet)

    # -- drift ----------------------------------------------------------------------------------------------------

    def _keeping(self) -> WantedLink | None:
        """What the guard is to keep true; None while an operation has the link, or nothing is live."""
        target = self._link.target
        if self._moving or self._live is None or target is None or not self._link.is_placed:
            return None
        return WantedLink(self._link.path, target, *self._left_alone(target))

    def _left_alone(self, target: str) -> tuple[str, str]:
        healed = self.settings.sync.self_heal
        return left_alone(self.name, self._link.path, target, self.committed.suspended is not None, healed)

    def _is_left_alone(self, target: str) -> bool:
        """Somebody has changed the link, and it is not to be healed: a climb does not do it either."""
        left = self.committed.current is not None and self._left_alone(target)[0]
        return bool(left) and self._link.is_changed(target)

    def _show_drift(self, drift: DriftStatus) -> None:
        """Without its link the model is not linked; an app that starts would not find it."""
        stage = self._status.stage
        if drift.absent and stage is ModelStage.LINKED:
            self._astray, stage = True, ModelStage.WARMED
        elif not drift.absent and self._astray:
            self._astray = False
            stage = ModelStage.LINKED if stage is ModelStage.WARMED else stage
        astray_at = self.layout.version_of_target(self.disk.root, drift.target) if drift.target else None
        self._publish(drift=drift, stage=stage, astray_at=astray_at)

    # -- for operations -------------------------------------------------------------------------------------------

    async def flip(self, content: Content | None) -> None:
        """Point the link at `content`; None takes it away again, when nothing was live before. Raises LinkBlocked.

        What was loaded on a mount that has been replaced since is loaded again.
        """
        async with self._lock:
            if content is None:
                self._unlink()
                return
            if content.version != self.committed.current:  # else it goes back to what was looked at before
                await self.changes.compare(content)
            self._point(content, self.versions.warmed_on(content.version))

    def restore_link(self, live: str | None, *, failed: str) -> bool:
        """At a start, before `load`: a link that an operation left at `failed` goes back to `live`; whether it had to.

        Raises LinkBlocked.
        """
        return self._link.restore(self.versions.target(failed), None if live is None else self.versions.target(live))

    def _unlink(self) -> None:
        self._link.take_away()
        self._live = None
        self._publish(stage=ModelStage.WAITING, target=None, digest=None, verified=False, mount_restarts=-1)

    @contextlib.contextmanager
    def held(self, wished: str) -> Iterator[None]:
        """For the time of an operation: the model follows it, and commits nothing by itself.

        `wished` is what is desired as long: of a wish that fails, or is cut off with mountd, nothing is remembered.
        """
        self._held, self._wished = True, wished
        self._publish()
        try:
            yield
        finally:
            self._held, self._wished = False, None
            self._publish()

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """While `held`, from the first step that changes something: the link is the operation's alone."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False
            self._guard.wake()

    def live_content(self) -> Content | None:
        """What the link is to point at now, enough to flip back to."""
        version, status = self._live, self._status
        if version is None:
            return None
        self.versions.is_warm(version, status.mount_restarts)
        if self._content is not None and self._content.version == version:
            return self._content
        directory = self.layout.directory(version)
        return Content(version, directory, {}, status.digest or "", status.verified, ())

    async def ask_for(self, version: str) -> None:
        await self._memory.ask_for(version)

    async def commit(self, content: Content) -> None:
        """Its version is live for good; what was live becomes `previous`. Raises MountdError, Unavailable."""
        if self._live != content.version:
            raise Unavailable(f"cannot commit {content.version}: the link is at {self._live or 'nothing'}")
        await self._memory.commit(content)
        self.changes.accept(content.version)

    async def revert(self) -> None:
        """As before a commit that failed, which may have reached the disk all the same. Raises MountdError."""
        await self._memory.revert()

    async def suspend(self, why: str | None) -> None:
        await self._memory.suspend(why)
        self._guard.wake()

    def probe_paths(self) -> list[str]:
        """What is worth reading to prove the mount."""
        version = self.current or self.desired
        return self.versions.paths(version) if version else []
