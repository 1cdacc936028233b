"""One model: goes through waiting → listed → warmed → linked on a mount that runs, and again after each remount."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import structlog

from mountd.errors import JournalError, MountdError, NotFound, Refused, Unavailable
from mountd.journal.journal import Committed, Journal
from mountd.model import derived, link
from mountd.model.ahead import REFUSED_AGAIN_S, Ahead, LoadAhead
from mountd.model.changes import Changes
from mountd.model.committed import CommittedState
from mountd.model.content import Content, Touch
from mountd.model.disk import Disk
from mountd.model.drift import LinkBlocked
from mountd.model.kept_link import KeptLink
from mountd.model.levels import Levels
from mountd.model.loading import Loader
from mountd.model.survey import NO_FILES
from mountd.model.versions import Versions
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import DriftStatus, Health, ModelStage, ModelStatus, Reason, Snapshot
from mountd.warm import pins
from mountd.warm.pinned import Pins
from mountd.warm.profiles import Profiles
from mountd.warm.results import WRONG_BYTES

log = structlog.get_logger()

CONTENT_INTERVAL_S = 10.0
"""How often a bucket that lacks the version is asked again."""
TROUBLE_INTERVAL_S = 2.0


class Model:
    """`run` starts the model up and keeps its link; an operation moves the link with `held`, `flip` and `commit`."""

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        disk: Disk,
        board: Board,
        journal: Journal,
        *,
        pins: Pins | None = None,
        profiles: Profiles | None = None,
    ) -> None:
        """`pins`: where pinned versions are kept; `profiles`: what apps open at their start."""
        self.name = name
        self.settings = settings
        self.status = ModelStatus(mount=settings.mount, link=str(settings.link))
        self.versions = Versions(name, settings, disk, board, pins)
        self.levels = Levels(
            Loader(name, self.versions, profiles, needed=self._needed, live=lambda: self._live),
            lambda: self.settings,
            lambda loading, loads: self.publish(replace(self.status, loading=loading, loads=loads)),
        )
        self.state = CommittedState(name, journal, self.publish)
        self.changes = Changes(name, journal, lambda reason: self.publish(replace(self.status, changed=reason)))
        self.link = KeptLink(
            name,
            settings.link,
            self.versions.check_path,
            lambda: (self.committed.suspended is not None, self.settings.sync.self_heal),
            self._show_drift,
        )
        self._ahead = LoadAhead(name, board, self.levels, wanted=self._to_load, tidy=self._tidy, loaded=self.loaded)
        self._board = board
        self._lock = asyncio.Lock()  # a start-up and an operation must not place the link at once
        self._live: str | None = None
        """what the link should point at: the committed version, or what an operation has flipped to"""
        self._content: Content | None = None
        """what the link was pointed at last, with its files"""
        self._switching_to: str | None = None
        """the version of the operation that has the model"""
        self._absent = False
        """linked, but somebody has taken the link away"""
        self._log = log.bind(model=name)

    @property
    def committed(self) -> Committed:
        return self.state.committed

    @property
    def content(self) -> Content | None:
        """The live version as it was when it became that; None while nothing is linked."""
        return self._content if self.status.linked and self._live else None

    def publish(self, status: ModelStatus | None = None) -> None:
        """Puts `status`, else the present one, on the board, with what follows from the committed state."""
        self.status = derived.complete(
            status or self.status,
            self.committed,
            switching_to=self._switching_to,
            automatic=self.settings.sync.automatic,
        )
        self._board.set_model(self.name, self.status)

    async def load(self) -> None:
        """Reads the committed state; after a journal was lost, what the link points at was live. Raises MountdError."""
        await self.state.load()
        target = link.read(self.settings.link) if self.state.is_lost else None
        version = self.versions.version_at(target) if target else None
        if version is not None:
            await self.state.take_from_link(version, self.settings.version)
        self._live = self.committed.current
        link.sweep(self.settings.link)

    def reconfigure(self, settings: ModelSettings, disk: Disk) -> None:
        """For a reload: no operation runs, and for another mount or directory `run` does not either.

        For another mount or directory the model starts up again, and the link stays until that is done. Another link is
        placed at once if the model is live, and the old one is removed after it.
        """
        before, self.settings = self.settings, settings
        restart = disk is not self.versions.disk or settings.directory != before.directory
        if before.warm.level == "pin" != settings.warm.level:
            self.versions.unpins, restart = True, True  # the link goes back to the mount
        self.versions.reconfigure(settings, disk)
        if settings.link != before.link:
            self.link.move(settings.link)
            if not restart and self.status.linked and self.status.target is not None:
                try:
                    self.link.place(self.status.target)
                except LinkBlocked as error:  # the start-up tries again and reports it
                    self._log.warning("cannot move the link yet", cause=error.text, hint=error.hint)
                    restart = True
        status = replace(self.status, mount=settings.mount, link=str(settings.link))
        if restart:
            status = replace(
                status, stage=ModelStage.WAITING, health=Health.PROGRESSING, reason=None, mount_restarts=-1
            )
        self.publish(status)
        self.link.guard.wake()

    # -- start-up -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.link.run(), name=f"guard {self.name}")
            group.create_task(self._follow_mount(), name=f"start-up {self.name}")
            group.create_task(self._ahead.run(), name=f"data of {self.name}")

    async def _follow_mount(self) -> None:
        """Starts up whenever the mount has come (back); tries again while that fails."""
        while True:
            mount = self._board.snapshot.mounts[self.settings.mount]
            if not self._version_to_link():
                await self._board.changed()
            elif not mount.usable:
                await self._do_without_mount()
                await self._board.changed()
            elif self._is_settled(mount.restarts):
                await self._board.changed()
            else:
                retry_s = await self._try_start_up(mount.restarts)
                await self._pause(retry_s, mount.restarts)

    def _is_settled(self, restarts: int) -> bool:
        held = self._switching_to is not None
        return derived.is_settled(
            self.status, self.committed, restarts, live=self._live, held=held, absent=self._absent
        )

    async def _do_without_mount(self) -> None:
        """A pinned version goes live, or stays it; any other waits."""
        pinned = self.versions.pinned(self._version_to_link())
        if pinned is None:
            self.publish(replace(self.status, stage=ModelStage.WAITING, health=Health.PROGRESSING, reason=None))
        elif not (self.status.linked and self.status.pinned):
            try:
                async with self._lock:
                    self._point(pinned, -1, starting=True)
            except LinkBlocked as error:
                self._show_failure(error)

    async def _try_start_up(self, restarts: int) -> float:
        """Seconds until the next try."""
        try:
            await self._start_up(restarts)
        except MountdError as error:
            return self._show_failure(error)
        return 0.0

    def _show_failure(self, error: MountdError) -> float:
        """Seconds until the next try."""
        code, text, health, retry_s = _failure(error)
        self.levels.loads.forget()
        if self.status.reason is None or self.status.reason.text != text:
            self._log.warning("model cannot go live yet", cause=text, hint=error.hint)
        self.publish(replace(self.status, health=health, reason=Reason(code, text, "link", self.name, error.hint)))
        return retry_s

    async def _pause(self, retry_s: float, restarts: int) -> None:
        before = self.settings, self.committed.desired

        def has_changed(snapshot: Snapshot) -> bool:
            mount = snapshot.mounts[self.settings.mount]
            edited = (self.settings, self.committed.desired) != before
            return edited or not mount.usable or mount.restarts != restarts or self._is_settled(restarts)

        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(has_changed, retry_s)

    def _version_to_link(self) -> str:
        """Empty as long as nothing has said which one."""
        return self._live or self.committed.current or self.committed.desired or ""

    async def _start_up(self, restarts: int) -> None:
        version = self._version_to_link()
        self._absent = False
        stays = self.status.linked and self.status.pinned and self.versions.pinned(version) is not None
        if not stays:  # a pinned version is live all the while
            self.publish(replace(self.status, stage=ModelStage.WAITING, warmed_percent=0))
        # The store must give the files of a first version; those of a former one may be cached.
        began, touch = time.monotonic(), Touch.NONE
        if self.committed.current is None:
            touch = Touch.ASKED if self.levels.first() == "pin" else Touch.REQUIRED
        progress = (lambda _: None) if stays else self._show_loading
        content, lost = await self.versions.at_start(version, touch, progress)
        if not stays:
            self.publish(replace(self.status, stage=ModelStage.LISTED, reason=None))
        await self.versions.verify(content)
        await self.levels.reach(content, self.levels.first())
        seconds = round(time.monotonic() - began, 3)
        if not stays:
            self.publish(replace(self.status, stage=ModelStage.WARMED, warm_seconds=seconds))
        await self.changes.compare(content, lost)  # a change while mountd was down is reported as it goes live
        # Until here an operation may flip the link, however slow the bucket is.
        async with self._lock:
            if version != self._version_to_link():
                return
            self._point(content, restarts, starting=True)
            if self.committed.current is None and self._switching_to is None:
                await self.state.save(lambda now: replace(now, current=version), content)

    def _to_load(self) -> Ahead | None:
        """Data of the live version that are asked for and not here; an operation loads those of its own version."""
        content, warm = self.content, self.settings.warm
        if content is None or self._switching_to is not None or self.levels.has(content, warm.level):
            return None
        if self.versions.pinned(content.version) is not None:
            return None  # the bucket holds something else under its name by now: what is pinned stays live
        return content, warm

    async def loaded(self, content: Content) -> None:
        """Its data are here. If it is live, its level is shown, and the link moves to a pinned copy."""
        async with self._lock:
            live = self._content if self._switching_to is None else None
            if live is not None and (live.version, live.digest) == (content.version, content.digest):
                self._point(live, self.status.mount_restarts, starting=True)

    async def _tidy(self) -> None:
        """Pinned versions beyond `keep` go, or all that are no longer used; none while automatic changes are paused,
        nor one that was loaded ahead of a switch. Raises MountdError."""
        versions = self.versions
        if versions.pins is None or self._needed() is None:
            return
        if not versions.unpins:
            await versions.pins.keep_only(self.name, self._to_keep, self.settings.keep)
        elif self.status.linked and not self.status.pinned:
            await versions.pins.keep_only(self.name, lambda: (), 0)
            versions.unpins = False

    def _to_keep(self) -> set[str] | None:
        needed = self._needed()
        return None if needed is None else needed | pins.ahead(self.versions.all_pinned(), self._live or "")

    def _needed(self) -> set[str] | None:
        """Versions whose pinned copies stay whatever `keep` is; None while it is paused: all."""
        known = self.committed
        needed = {known.current, known.previous, known.desired, self._live, self._switching_to}
        return {each for each in needed if each} if known.suspended is None else None

    def _show_loading(self, percent: int) -> None:
        self.publish(replace(self.status, stage=ModelStage.LISTED, warmed_percent=percent))

    # -- the link -------------------------------------------------------------------------------------------------

    def _point(self, content: Content, restarts: int, *, starting: bool = False) -> None:
        """Raises LinkBlocked. `starting`: what somebody made of the link may have to stay as it is."""
        target, pinned = self.versions.target(content.version), self.versions.pinned(content.version)
        if starting and self.committed.current is not None and self.link.is_to_be_left(target):
            self.link.leave(target)
        else:
            self.link.place(target)
            self._log.info("link points", link=str(self.settings.link), target=target, version=content.version)
        self._absent = False
        if self._live != content.version or self.versions.unpins:
            self._ahead.may_be_untidy()
        self._live = content.version
        self._content = content if content.files else None
        self.publish(
            replace(
                self.status,
                stage=ModelStage.LINKED,
                health=Health.HEALTHY,
                reason=None,
                current=content.version,
                target=target,
                digest=pinned.digest if pinned else content.digest,
                verified=content.verified,
                changed=self.changes.of(content.version),
                warmed_percent=100,
                mount_restarts=restarts,
                pinned=pinned is not None,
                level=self.levels.of(content),
            )
        )
        self.link.guard.look()  # at once: an app that starts now must know what it finds

    def _show_drift(self, drift: DriftStatus) -> None:
        """Without its link the model is not linked: an app that starts would not find it."""
        stage = self.status.stage
        if drift.absent and stage is ModelStage.LINKED:
            self._absent, stage = True, ModelStage.WARMED
        elif not drift.absent and self._absent:
            self._absent = False
            stage = ModelStage.LINKED if stage is ModelStage.WARMED else stage
        drifted_to = self.versions.version_at(drift.target) if drift.target else None
        self.publish(replace(self.status, drift=drift, stage=stage, drifted_to=drifted_to))

    async def suspend(self, why: str | None) -> None:
        """As the committed state's; after None a link that was left alone is healed at once, and what is beyond `keep`
        goes. Raises MountdError."""
        await self.state.suspend(why)
        self.link.guard.wake()
        self._ahead.may_be_untidy()

    # -- for operations -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self, version: str) -> Iterator[None]:
        """For the time of an operation: the model follows it, commits nothing by itself, and `version` is desired."""
        self._switching_to = version
        self.publish()
        try:
            yield
        finally:
            self._switching_to = None
            self.publish()

    async def flip(self, content: Content | None) -> None:
        """Points the link at `content`; None removes it, when nothing was live before. Raises LinkBlocked.

        What was loaded on a mount that has been replaced since is loaded again.
        """
        async with self._lock:
            if content is None:
                self.link.take_away()
                self._live = None
                waiting = replace(self.status, stage=ModelStage.WAITING, target=None, digest=None, verified=False)
                self.publish(replace(waiting, mount_restarts=-1))
                return
            if content.version != self.committed.current:  # else it goes back to what was compared before
                await self.changes.compare(content)
            self._point(content, self.versions.warmed_on(content.version))

    def live_content(self) -> Content | None:
        """What the link should point at now, enough to flip back to."""
        version = self._live
        if version is None:
            return None
        self.versions.is_warm(version, self.status.mount_restarts)
        if self._content is not None and self._content.version == version:
            return self._content
        directory = self.versions.layout.directory(version)
        return Content(version, directory, NO_FILES, self.status.digest or "", self.status.verified, ())

    async def commit(self, content: Content, override: str | None = None) -> None:
        """Makes its version live for good, and what was live `previous`. Raises MountdError, Unavailable."""
        if self._live != content.version:
            raise Unavailable(f"cannot commit {content.version}: the link is at {self._live or 'nothing'}")
        await self.state.commit(content, override)
        self.changes.accept(content.version)
        self._ahead.may_be_untidy()


def _failure(error: MountdError) -> tuple[str, str, Health, float]:
    """Of a start-up: its code, its text, the model's health, and after how many seconds it is tried again."""
    match error:
        case Refused() if error.code in WRONG_BYTES:  # they were fetched to be seen
            return "waiting-for-content", f"waiting for content: {error.text}", Health.MISSING, REFUSED_AGAIN_S
        case NotFound() | Refused():
            return "waiting-for-content", f"waiting for content: {error.text}", Health.MISSING, CONTENT_INTERVAL_S
        case LinkBlocked():
            return "link-blocked", error.text, Health.DEGRADED, CONTENT_INTERVAL_S
        case Unavailable():
            return "model-unavailable", error.text, Health.DEGRADED, TROUBLE_INTERVAL_S
        case _:
            return JournalError.code, error.text, Health.DEGRADED, CONTENT_INTERVAL_S
