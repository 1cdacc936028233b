"""Records which files of its models an app opens, from just before it is spawned until it is ready and a while longer.

A process watches for that time only. A start that fails is not recorded, nor is one that opens nothing. While the app
starts, what it opened at its last start shows how far it is.

It sees the opens of every process, and subtracts those that mountd's own readers have noted. /proc says too late which
process has a file open: of 100 small files that an app opened and closed it showed 10. It misses what the app and a
reader of mountd open in the same few milliseconds, since the kernel reports equal events in a row once.
What another program opens meanwhile counts as the app's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from mountd.clock import now_text
from mountd.daemon.tasks import Tasks
from mountd.errors import MountdError
from mountd.model import manifest
from mountd.model.content import Content
from mountd.model.model import Model
from mountd.model.survey import Sizes
from mountd.process.instance import Instance
from mountd.process.resources import of_the_machine
from mountd.status.board import Board
from mountd.status.load import AppLoad
from mountd.status.snapshot import Snapshot, State
from mountd.warm import access
from mountd.warm.access import AppStart, OpenedFile, OpenedOfModel
from mountd.warm.opens import Opens, OwnOpens
from mountd.warm.profiles import Profiles

log = structlog.get_logger()

BEGIN_LIMIT_S = 1.0
"""How long the start of an app waits for the watch, which takes a tenth of that; then it starts without.

An app that reads a file at once is seen only if it waits: without, 4 of 6 such starts lacked that file.
"""
WATCH_LIMIT_S = 10.0
"""For the watch itself: the mount may be slow, and the directories many."""
LAZY_S = 10.0
"""What an app opens so soon after it is ready belongs to its start."""
SHOW_S = 0.5
"""At most so often it is shown how far an app is: each time wakes all that follow the board."""

ShowLoad = Callable[[AppLoad], None]
Listener = Callable[[str], None]
"""is called with the path, below the version's directory, of a file that was just opened"""


class AccessRecorder:
    """What it records lies in `profiles`."""

    def __init__(self, models: Mapping[str, Model], board: Board, instance: Instance, tasks: Tasks) -> None:
        self.profiles = Profiles(instance.state)
        self.own = OwnOpens()
        """mountd's own readers of model files note each open here first"""
        self._models = models
        self._board = board
        self._instance = instance
        self._tasks = tasks
        self._running: dict[tuple[str, str], Recording] = {}
        """by app and model"""
        self._stuck: dict[str, Opens] = {}
        """by model: the process that did not end when it was to"""
        self._listeners: dict[str, list[Listener]] = {}
        self._to_show: set[str] = set()
        """apps that have opened something since it was shown how far they are"""

    async def before_start(self, app: str, versions: Mapping[str, str], show: ShowLoad = lambda _: None) -> None:
        """For an app to call before it spawns. `versions`: of its models, as it will find them.

        Returns once it is seen what the app opens, at the latest after BEGIN_LIMIT_S. While it is starting, `show` is
        called with how far it is.
        """
        begun = [self._begin(app, model, version, show) for model, version in versions.items()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_LIMIT_S):
                for recording in filter(None, begun):
                    await recording.decided.wait()

    def follow(self, model: str, listener: Listener) -> Callable[[], None]:
        """Calls `listener` for each file of the model that an app opens at its start, until the result is called."""
        listeners = self._listeners.setdefault(model, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    def note_own(self, path: str) -> None:
        """mountd itself is about to open the file at this absolute path."""
        self.own.note(path)

    def opened(self, model: str) -> list[str]:
        """What apps that start now have opened of the model, the last file first."""
        found = [each for (_, name), recording in self._running.items() if name == model for each in recording.files()]
        return [file.path for file in sorted(found, key=lambda file: -file.after_s)]

    def cancel(self) -> None:
        for recording in self._running.values():
            if recording.task is not None:
                recording.task.cancel()

    def _begin(self, app: str, model: str, version: str, show: ShowLoad) -> Recording | None:
        former, stuck = self._running.get((app, model)), self._stuck.get(model)
        if former is not None and former.task is not None:
            former.task.cancel()
        if stuck is not None and stuck.pid is not None:  # one more would hang as well
            return None
        shown, found = self._board.snapshot.models.get(model), self._models.get(model)
        content = found.content if found is not None else None
        if shown is None or shown.target is None or shown.drift.reason is not None:
            return None
        if content is None or content.version != version:
            return None
        recording = self._running[app, model] = Recording(self, app, model, content, shown.target, show=show)
        recording.task = self._tasks.keep(lambda: self._run(recording), f"opens of {app} in {model}")
        return recording

    async def _run(self, recording: Recording) -> None:
        key = recording.app, recording.model
        try:
            await recording.run(self._instance.marks(f"{recording.model}-opens"))
            if (start := recording.start) is not None:
                await self.profiles.keep(recording.model, recording.app, start, self._apps_of(recording.model))
                log.info("recorded what an app opens", app=key[0], model=key[1], files=len(start.files))
        except Exception as error:
            lack = error if isinstance(error, MountdError) else of_the_machine(error)
            if lack is None:
                raise
            log.warning("cannot record what an app opens", app=key[0], model=key[1], cause=lack.text, hint=lack.hint)
        finally:
            recording.decided.set()
            if self._running.get(key) is recording:
                del self._running[key]
            if recording.opens is not None and recording.opens.pid is not None:
                self._stuck[recording.model] = recording.opens

    def _apps_of(self, model: str) -> set[str]:
        return {name for name, app in self._board.snapshot.apps.items() if model in app.needs}

    # -- for a recording ------------------------------------------------------------------------------------------

    def report(self, model: str, path: str) -> None:
        for listener in [*self._listeners.get(model, ())]:
            listener(path)

    def show_soon(self, recording: Recording) -> None:
        """How far its app is, SHOW_S from now."""
        if recording.app not in self._to_show:
            self._to_show.add(recording.app)
            asyncio.get_running_loop().call_later(SHOW_S, self._show, recording.app, recording.show)

    def _show(self, app: str, show: ShowLoad) -> None:
        self._to_show.discard(app)
        status = self._board.snapshot.apps.get(app)
        if status is None or status.state is not State.STARTING:
            return
        load = access.app_load([each.so_far() for (name, _), each in self._running.items() if name == app])
        if load is not None:
            show(load)

    async def is_loaded(self, app: str) -> bool:
        """Waits until LAZY_S after it is ready, or until it runs no longer; whether it was ready."""

        def state(now: Snapshot) -> State | None:
            return None if now.stopping or app not in now.apps else now.apps[app].state

        if state(await self._board.wait_until(lambda now: state(now) is not State.STARTING)) is not State.RUNNING:
            return False
        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(lambda now: state(now) is not State.RUNNING, LAZY_S)
        return True


class Recording:
    """One start of one app, and what it opens of one model."""

    def __init__(
        self, recorder: AccessRecorder, app: str, model: str, content: Content, root: str, *, show: ShowLoad
    ) -> None:
        """`root`: the directory of the version, as the link points to it."""
        self.app = app
        self.model = model
        self.show = show
        self.task: asyncio.Task[None] | None = None
        self.decided = asyncio.Event()
        """it watches, or never will"""
        self.opens: Opens | None = None
        self.start: AppStart | None = None
        """once that is over: what is to be kept"""
        self._recorder = recorder
        self._content = content
        self._root = root
        self._sizes = Sizes()
        """of the files of the version, while it runs"""
        self._last: Mapping[str, int] = {}
        """sizes of those that the app opened at its last start"""
        self._began = time.monotonic()

    async def run(self, marks: Mapping[str, str]) -> None:
        """Until the app is loaded, or its start has failed. Raises DiskError."""
        self._sizes = await asyncio.to_thread(self._content.files.sizes)
        directories = await asyncio.to_thread(access.directories, self._sizes.items())
        opens = self.opens = Opens(self._root, directories, marks, on_open=self._report)
        try:
            await opens.start(WATCH_LIMIT_S)
            self.decided.set()
            recalling = asyncio.create_task(self._recall())  # at the same time: no state of the app may be missed
            try:
                if await self._recorder.is_loaded(self.app) and not opens.broken and (files := self.files()):
                    self.start = AppStart(self._content.version, now_text("seconds"), files, opens.partial)
            finally:
                recalling.cancel()
                await asyncio.gather(recalling, return_exceptions=True)
        finally:
            await opens.close()

    async def _recall(self) -> None:
        with contextlib.suppress(MountdError):  # which is logged when this start is to be kept
            profile = await self._recorder.profiles.read(self.model)
            if profile is not None and (last := profile.starts.get(self.app)) is not None:
                sizes = {file.path: self._sizes.get(file.path) for file in last.files}
                self._last = {path: size for path, size in sizes.items() if size is not None}
                self._recorder.show_soon(self)

    def so_far(self) -> OpenedOfModel:
        return OpenedOfModel(self.files(), self._last)

    def files(self) -> tuple[OpenedFile, ...]:
        """What others than mountd have opened until now, in order."""
        seen = self.opens.seen.items() if self.opens is not None else ()
        by_others = {path: opens for path, opens in seen if not _is_ours(path)}
        own = {path: self._own(path) for path in by_others}
        return access.opened_files(by_others, own, self._sizes.get, self._began)

    def _own(self, path: str) -> list[float]:
        return self._recorder.own.of(f"{self._root}/{path}", self._began)

    def _report(self, path: str) -> None:
        assert self.opens is not None
        if not _is_ours(path) and access.first_by_others(self.opens.seen[path], self._own(path)) is not None:
            self._recorder.report(self.model, path)
            self._recorder.show_soon(self)


def _is_ours(path: str) -> bool:
    """mountd reads it each time it looks at a version, and a warm needs no hint to load it."""
    return path == manifest.NAME
