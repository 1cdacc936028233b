"""What each step of a switch does with model, apps and gates."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from mountd.app.preflight import limit_s
from mountd.cache.retention import room
from mountd.errors import CannotStart, GateFailed, Refused, Unavailable
from mountd.journal.journal import Journal
from mountd.model import manifest
from mountd.model.changes import recorded
from mountd.model.content import Content
from mountd.model.known import changed_since
from mountd.model.model import Model
from mountd.operation import gates
from mountd.operation.plan import AffectedApp, Step, SwitchPlan
from mountd.operation.show import Display
from mountd.process import tool
from mountd.process.child import User
from mountd.settings.schema import AppSettings
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, State
from mountd.warm.results import WarmProgress

log = structlog.get_logger()

GATES_AGAIN_S = 5.0
"""How often the gates are asked again during the watch."""
LOOK_S = 0.5
NOTICE_S = 1.0
"""Until the exit of a process is known, and what it left is gone."""


class RestartableApp(Protocol):
    """What a switch needs of an app. Methods raise CannotStart."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> AppSettings: ...
    @property
    def state(self) -> State: ...
    @property
    def user(self) -> User | None: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def stop_limit_s(self) -> float: ...
    @property
    def ready_limit_s(self) -> float: ...
    def held(self) -> AbstractContextManager[None]: ...
    def want(self) -> None: ...
    def check_running(self) -> None: ...
    async def stop(self) -> None: ...
    async def begin(self) -> None: ...
    async def become_ready(self) -> None: ...


@dataclass
class Steps:
    """The steps of the operation `id`; `content` is set from PREFLIGHT on. Every step raises MountdError."""

    id: int
    plan: SwitchPlan
    model: Model
    apps: Sequence[RestartableApp]
    board: Board
    journal: Journal
    display: Display
    content: Content | None = None

    async def do(self, step: Step) -> None:
        match step:
            case Step.PREFLIGHT:
                self.content = await preflight(
                    self.model, self.journal, self.plan, self.board.snapshot, self._progress_percent
                )
            case Step.WARM:
                await self.model.versions.warm(self._known, self._progress_percent)
                level = self.model.settings.warm.level
                await self.model.levels.reach(self._known, level, self._progress_bytes, check=True)
            case Step.VERIFY:
                await self.model.versions.verify(self._known, self._progress if self.plan.digests else None)
                # That may have taken long. An app is stopped only if it could be started again.
                self.model.versions.check_usable(self.plan.to_version)
                check_apps(self.board.snapshot, self.plan)
            case Step.STOP:
                await each(app.stop() for app in self.apps)
            case Step.FLIP:
                self.model.versions.check_usable(self.plan.to_version)
                await self.model.flip(self._known)
            case Step.START:
                await each(app.begin() for app in self.apps)
            case Step.READY:
                await self.wait_until_ready()
            case Step.GATES:
                await self._ask_gates()
            case Step.WATCH:
                await self._watch()
            case Step.COMMIT:
                await self.model.commit(self._known, self.plan.override)

    @property
    def _known(self) -> Content:
        assert self.content is not None
        return self.content

    def _progress(self, done: float, total: float) -> None:
        self.display.progress(self.id, done, total)

    def _progress_percent(self, percent: int) -> None:
        self._progress(percent, 100)

    def _progress_bytes(self, found: WarmProgress) -> None:
        self.display.progress(self.id, found.bytes_done, found.bytes_total, round(found.bytes_per_s))

    # -- ready ----------------------------------------------------------------------------------------------------

    async def wait_until_ready(self) -> None:
        """Returns when every app is ready, and shows meanwhile how far they are. Raises CannotStart."""
        showing = asyncio.create_task(self._show_load())
        try:
            await each(app.become_ready() for app in self.apps)
        finally:
            showing.cancel()

    async def _show_load(self) -> None:
        """Until cancelled: of the apps that still load, the one that is least far."""
        while True:
            shown = self.board.snapshot.apps
            loads = [load for app in self.apps if app.name in shown and (load := shown[app.name].load) is not None]
            known = [(load.percent, load.bytes_per_s) for load in loads if load.percent is not None]
            if known:
                percent, bytes_per_s = min(known)
                self.display.progress(self.id, percent, 100, bytes_per_s, has_eta=False)
            await self.board.changed()

    # -- gates ----------------------------------------------------------------------------------------------------

    async def _ask_gates(self) -> None:
        """Raises the failure of the first gate, or that of an app which crashed and so made the gate fail."""
        try:
            await self._ask_each_gate()
        except GateFailed:
            # A gate may see that an app is gone before its supervisor does.
            with contextlib.suppress(TimeoutError):
                await self.board.wait_until(lambda _: not self._all_run(), NOTICE_S)
                await self.board.wait_until(lambda _: bool(self._failed()) or self._all_run(), NOTICE_S)
            for app in self._failed():
                app.check_running()
            raise

    async def _ask_each_gate(self) -> None:
        """One after the other. A command runs as the first app does."""
        app = self.apps[0] if self.apps else None
        for number, gate in enumerate(self.model.settings.gates, start=1):
            await gates.check(
                gate,
                number=number,
                model=self.model.name,
                version=self.plan.to_version,
                environment=app.environment if app else {"PATH": tool.MINIMAL_PATH, "LANG": "C.UTF-8"},
                directory=str(app.settings.directory) if app else "/",
                user=app.user if app else None,
            )

    # -- the watch ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Until its time is over; raises after too many crashes, or when a gate fails."""
        until = time.monotonic() + self.plan.watch_s
        tasks = {asyncio.create_task(self._watch_apps(until))}
        if self.plan.gates:
            tasks.add(asyncio.create_task(self._watch_gates(until)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await each(app.become_ready() for app in self.apps)  # one may be on its way back from a remount

    async def _watch_apps(self, until: float) -> None:
        began, crashes = time.monotonic(), 0
        while (left_s := until - time.monotonic()) > 0:
            self._progress(self.plan.watch_s - left_s, self.plan.watch_s)
            with contextlib.suppress(TimeoutError):
                await self.board.wait_until(lambda _: bool(self._failed()), min(left_s, LOOK_S))
            for app in self._failed():
                crashes += 1
                after_s = time.monotonic() - began
                log.warning(
                    "app crashed while it was watched", app=app.name, crashes=crashes, after_s=round(after_s, 1)
                )
                if crashes >= self.plan.crashes:
                    try:
                        app.check_running()
                    except CannotStart as error:
                        count = f", crash {crashes} of at most {self.plan.crashes - 1}" if crashes > 1 else ""
                        text = f"{error.text}, {after_s:.0f} s after it was ready{count}"
                        raise CannotStart(text, hint=error.hint, code=error.code) from None
                try:
                    await app.stop()
                    await app.begin()
                    await app.become_ready()
                except CannotStart:
                    if app.state is not State.FAILED:
                        raise
                    # It has crashed once more: the loop counts that.

    def _failed(self) -> list[RestartableApp]:
        return [app for app in self.apps if app.state is State.FAILED]

    async def _watch_gates(self, until: float) -> None:
        while (left_s := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, GATES_AGAIN_S))
            try:
                await self._ask_gates()
            except CannotStart:
                continue  # `_watch_apps` counts it
            except GateFailed:
                # An app that is being restarted cannot answer.
                if self._all_run():
                    raise

    def _all_run(self) -> bool:
        return all(app.state is State.RUNNING for app in self.apps)


def affected(app: RestartableApp) -> AffectedApp:
    return AffectedApp(app.name, app.stop_limit_s, app.ready_limit_s, limit_s(app.settings))


async def preflight(
    model: Model,
    journal: Journal,
    plan: SwitchPlan,
    snapshot: Snapshot,
    progress: Callable[[int], None] = lambda _: None,
) -> Content:
    """Changes nothing, so a dry run does it as well; `progress` is called with percents.

    Raises NotFound, Refused, Unavailable.
    """
    content = await model.versions.preflight(
        plan.to_version, digests=plan.digests, touch=not plan.force, progress=progress
    )
    check_apps(snapshot, plan)
    if plan.level != "pin":  # which looks for room where the copy will lie
        await _check_room(model, content)
    former = await recorded(journal, model.name, content)
    quarantined = await journal.quarantined(model.name)
    known = quarantined.get(content.digest) or quarantined.get(content.former)
    if known is not None and not plan.force:
        raise Refused(
            f"cannot use version {plan.to_version}: it is in quarantine since {known.since}: {known.cause}",
            hint="it is refused until what it holds changes; --force tries it all the same",
        )
    changed = changed_since(former, content)
    if changed is not None and not plan.force:
        raise Refused(f"cannot use version {plan.to_version}: {changed}")
    live = model.live_content()
    if former is None and live is not None and live.verified and not content.verified and not plan.force:
        raise Refused(
            f"cannot use version {plan.to_version}: it has no {manifest.NAME}, but {live.version}, which is live, has"
            " one: its upload may never have finished",
            hint="publish it (mountd publish), or --force",
        )
    return content


def check_apps(snapshot: Snapshot, plan: SwitchPlan) -> None:
    """Raises Unavailable for an app that runs and, once stopped, could not be started: another of its needs is down."""
    for app in plan.apps:
        if snapshot.apps[app.name].state not in (State.STARTING, State.RUNNING):
            continue
        if waits := readiness.blockers(snapshot, app.name, besides=plan.model):
            raise Unavailable(
                f"cannot {plan.kind} to {plan.to_version}: {app.name} runs, but could not be started again:"
                f" {waits[0].text}",
                hint="see `mountd status`: what it needs besides must be there first",
            )


async def _check_room(model: Model, content: Content) -> None:
    """Raises Refused. A disk that does not answer in time is no reason: `preflight` has checked that it can be used."""
    try:
        could_hold = await model.versions.disk.cache_could_hold()
    except Unavailable as error:
        log.warning("cannot check whether there is room", version=content.version, cause=error.text)
        return
    lacking = None if could_hold is None else room(content.version, content.bytes, could_hold)
    if lacking is not None:
        raise Refused(f"cannot use version {content.version}: {lacking}", hint="free space on the disk of cache.dir")


async def each(works: Iterable[Awaitable[None]]) -> None:
    """Waits for all of them, so that nothing is left half done; then raises the first failure."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
