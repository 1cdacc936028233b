"""The version that each model should have: what is declared, what a person asked for, what is pending, retries.

Whatever names a version comes through here: the configuration file, a source outside (a file or a Git repository), and
the command line. `Committed.desired` is durable, and a pending switch follows from it at each start: so it is never
lost, and never written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from mountd.clock import now_text
from mountd.errors import Busy, MountdError, Refused
from mountd.gitops.source import Source
from mountd.journal.journal import Committed, Declared, Journal
from mountd.model.model import Model
from mountd.operation import window
from mountd.operation.follow import Follower
from mountd.operation.results import logged, report_event
from mountd.operation.rules import DECLARED, FROM_FILE, is_too_deadly, killed
from mountd.operation.runner import OperationOutcome
from mountd.process.lifecycle import Backoff
from mountd.settings.sync import DesiredSettings
from mountd.status.board import Board
from mountd.status.snapshot import Health, Snapshot
from mountd.status.source import Unmet

log = structlog.get_logger()

BUSY_RETRY_S = 5.0
HISTORY = 1000
"""Operations that are looked at for those in which mountd died."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, and where the request came from (`cli`, `api`, `schedule`, `config`, `file`, `git`).

    `dry_run` checks what can be checked beforehand and changes nothing; `force` ignores a quarantine; `digests`
    compares every byte; `schedule` is the id of the schedule whose time has come, `revision` the commit that names it.
    """

    operator: str
    source: str
    reason: str = ""
    dry_run: bool = False
    force: bool = False
    digests: bool = False
    schedule: int | None = None
    revision: str | None = None

    @property
    def by_hand(self) -> bool:
        return self.source not in DECLARED


BY_FILE = Request("config", FROM_FILE, "version: in the configuration")


class TaskKeeper(Protocol):
    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]: ...


Switch = Callable[[str, str, Request], Awaitable[OperationOutcome | None]]
"""Of a model to a version; None: it was live already. Raises MountdError when it could not begin."""
MakeSource = Callable[[str, DesiredSettings], Source]


def declare(known: Committed, version: str) -> Committed:
    """A source says `version`: it is desired if it is new there or if nothing is live; else what was desired stays, as
    it does while somebody holds another version against the source."""
    is_new = (known.config_version != version and known.overridden is None) or known.current is None
    return replace(known, config_version=version, desired=version if is_new else known.desired)


def pending(known: Committed, *, outside: bool = False) -> str | None:
    """The declared version that a switch must make live. A first version needs no switch: its model starts up.

    An edited `version:` asks once, and what a person asks for later replaces it. A source outside asks until somebody
    holds another version against it; what a person asked for while nothing followed it is not held.
    """
    version = known.config_version
    is_asked = known.overridden is None if outside else version == known.desired
    return version if is_asked and known.current not in (None, version) else None


def request_of(said: Declared) -> Request:
    """A switch to what a source outside says: by who wrote the commit, with its message as the reason."""
    if said.source == "git":
        return Request(said.author or "git", said.source, said.message, revision=said.revision)
    return Request(said.source, said.source, "the wanted version in the file")


def override(model: Model, version: str, request: Request) -> str | None:
    """Who holds `version` against the source of the model's wanted version; None: it is as the source says, or nothing
    would follow the source anyway."""
    settings = model.settings
    if settings.desired is None or not settings.sync.automatic or not request.by_hand:
        return None
    if version == model.committed.config_version:
        return None
    why = f": {request.reason}" if request.reason else ""
    return f"{request.operator} switched to {version} by hand{why}"


async def ask(model: Model, version: str, request: Request) -> None:
    """A person asked for `version`, which is live: so nothing else is desired any more. Raises MountdError."""
    held = override(model, version, request)
    if model.committed.desired != version or held is not None:
        await model.state.save(lambda now: replace(now, desired=version, overridden=held or now.overridden))


def wanted_again(known: Committed, version: str) -> Committed:
    """What a source outside says is desired, unless somebody holds another version against it."""
    return known if known.overridden is not None else replace(known, desired=version)


def may_begin(now: Snapshot, model: str) -> bool:
    """A switch of the model can begin, and nobody has paused it."""
    return _is_idle(now, model) and now.models[model].follows


def is_due(now: Snapshot, model: str, version: str) -> bool:
    """The pending switch can begin and nobody has paused it; or another version is desired."""
    found = now.models[model]
    return _is_idle(now, model) and (found.follows or found.desired != version)


def _is_idle(now: Snapshot, model: str) -> bool:
    busy = any(each.model == model and not each.only_loads for each in now.operations)
    return now.models[model].linked and not busy


def is_away(now: Snapshot, model: str) -> bool:
    """Whether the bucket behind the model is known not to answer as it should."""
    mount = now.mounts.get(now.models[model].mount)
    return mount is not None and mount.backend.health is Health.DEGRADED


class DesiredVersions:
    """Takes what is declared and carries it out: at most one pending switch a model, a newer one replaces it."""

    def __init__(
        self,
        models: Mapping[str, Model],
        switch: Switch,
        board: Board,
        *,
        journal: Journal | None = None,
        make_source: MakeSource | None = None,
    ) -> None:
        """`journal` and `make_source`: for models whose wanted version a source outside says."""
        self._models = models
        self._switch = switch
        self._board = board
        self._journal = journal
        self._make_source = make_source
        self._group: TaskKeeper | None = None
        self._early: dict[str, list[Callable[[TaskKeeper], None]]] = {}
        """what `begin` starts"""
        self._switches: dict[str, asyncio.Task[None]] = {}
        self._followers: dict[str, tuple[Follower, asyncio.Task[None]]] = {}

    def begin(self, group: TaskKeeper) -> None:
        """Starts what is pending, and follows each source, as tasks of `group`."""
        self._group = group
        for starts in self._early.values():
            for start in starts:
                start(group)

    async def load(self, name: str) -> None:
        """For a start of mountd, or a model that a reload adds. Raises MountdError: the journal cannot be read."""
        await self._models[name].load()
        await self.declare(name)

    async def declare(self, name: str) -> None:
        """The model's `version:` may be new, or its `desired:`. A journal that cannot be written stops no switch."""
        model = self._models[name]
        self.drop(name)
        settings, version = model.settings, model.settings.version
        if version is not None:
            model.publish(replace(model.status, source=None))
            if model.committed.config_version != version:
                self._show(name, version, None)
                await self._note_edit(name, version)
            # Nobody holds a version against a source that is no longer there: an edit asks once.
            await model.state.update(lambda now: declare(replace(now, overridden=None), version))
            self._start_pending(name, BY_FILE)
            return
        assert settings.desired is not None
        assert self._make_source is not None
        assert self._journal is not None
        source = self._make_source(name, settings.desired)
        said = await self._journal.declared(name)
        if said is not None and said.source == FROM_FILE:  # the former `version:`, which this source never said
            said = None
        follower = Follower(model, source, said, lambda said: self._take(name, said), self._journal)
        # What it said to a previous run may be pending still, and the source be away.
        if said is not None and said.version == model.committed.config_version:
            self._start_pending(name, request_of(said), outside=True)
        self._start(name, lambda group: self._follow(name, follower, group))

    async def _note_edit(self, name: str, version: str) -> None:
        """`version:` is edited now: what came of that version before counts no longer."""
        if self._journal is not None:
            with logged("journal an edit of the version", model=name, version=version):
                await self._journal.declare(Declared(name, version, FROM_FILE, None, "", "", now_text()))

    async def resumed(self, name: str) -> None:
        """After `mountd resume`: what the source says is desired again."""
        if name in self._followers and (name not in self._switches or self._switches[name].done()):
            said = self._followers[name][0].said
            if said is not None:
                self._start_pending(name, request_of(said), outside=True)

    def poke(self, name: str) -> bool:
        """Reads the model's source at once; False: it has none that is followed."""
        found = self._followers.get(name)
        if found is not None:
            found[0].poke()
        return found is not None

    def drop(self, name: str) -> None:
        """Cancels the model's pending switch, and follows its source no longer; an operation that has begun goes on."""
        self._cancel(name)
        self._early.pop(name, None)
        if name in self._followers:
            self._followers.pop(name)[1].cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        return [*self._switches.values(), *(task for _, task in self._followers.values())]

    async def _take(self, name: str, said: Declared) -> None:
        """What the source says now; what it said before, or failed under that name, is not begun again in this run."""
        model = self._models[name]
        is_new = model.committed.config_version != said.version
        if is_new:
            self._show(name, said.version, None)
        await model.state.update(lambda now: declare(now, said.version))
        is_unmet = name not in self._switches and pending(model.committed, outside=True) is not None
        # What is new also when it is live now: an operation that runs may be about to commit another one.
        if is_new or is_unmet:
            self._cancel(name)
            self._start(name, lambda group: self._begin_switch(name, said.version, request_of(said), group))

    # -- tasks ----------------------------------------------------------------------------------------------------

    def _start(self, name: str, start: Callable[[TaskKeeper], None]) -> None:
        """Now, or in `begin`."""
        if self._group is None:
            self._early.setdefault(name, []).append(start)
        else:
            start(self._group)

    def _follow(self, name: str, follower: Follower, group: TaskKeeper) -> None:
        self._followers[name] = follower, group.keep(follower.run, f"wanted version of {name}")

    def _start_pending(self, name: str, request: Request, *, outside: bool = False) -> None:
        version = pending(self._models[name].committed, outside=outside)
        if version is not None:
            self._start(name, lambda group: self._begin_switch(name, version, request, group))

    def _begin_switch(self, name: str, version: str, request: Request, group: TaskKeeper) -> None:
        task = group.keep(lambda: self._carry_out(name, version, request), f"switch of {name}")
        self._switches[name] = task

    def _cancel(self, name: str) -> None:
        if name in self._switches:
            self._switches.pop(name).cancel()

    async def _carry_out(self, name: str, version: str, request: Request) -> None:
        """Shows that the switch is pending, until it is done, given up or replaced by another one."""
        model = self._models[name]
        model.publish(replace(model.status, pending=version))
        try:
            await self._switch_when_due(name, version, request)
        finally:
            if self._switches.get(name) in (asyncio.current_task(), None):
                model.publish(replace(model.status, pending=None))

    async def _switch_when_due(self, name: str, version: str, request: Request) -> None:
        """Switches once the former version is linked, so that there is a way back; again after what can pass.

        A switch that could not even begin, such as with a full disk, has disturbed nobody and counts as no try. Neither
        does one that failed in an outage of the bucket, whose end is waited for.
        """
        failures = put_off = 0
        while True:
            if not await self._is_due(name, version, outside=request.source != FROM_FILE):
                log.info("another version was asked for since", model=name, version=version)
                return
            if window.look(self._models[name]):  # one that came with the version, and was not looked at yet
                continue
            retry = self._models[name].settings.sync.retry
            if await self._is_given_up(name, version, retry.limit):
                return
            pauses = Backoff(retry.initial, retry.factor, retry.max)
            try:
                outcome = await self._switch(name, version, request)
            except Busy:
                await self._board.changed(BUSY_RETRY_S)
                continue
            except MountdError as error:
                report = log.debug if put_off else log.error
                report("cannot switch to the version in the file", model=name, version=version, cause=error.text)
                self._show(name, version, error)
                if not error.retryable:
                    return
                put_off += 1
                await asyncio.sleep(pauses.delay_s(put_off))
                continue
            self._show(name, version, outcome.failure if outcome else None)
            if outcome is None or not outcome.retryable:
                return
            put_off = 0
            if is_away(self._board.snapshot, name):
                log.info("switch waits for the bucket", model=name, version=version)
                await self._board.wait_until(lambda now: not is_away(now, name))
                continue
            failures += 1
            if failures > retry.limit:
                log.error("gave up the version in the file", model=name, version=version, tries=failures)
                return
            delay_s = pauses.delay_s(failures)
            log.info("switch is tried again", model=name, version=version, tries=failures, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    async def _is_due(self, name: str, version: str, *, outside: bool) -> bool:
        """Waits until the switch may begin; False: a later request has replaced it.

        What a source outside says is replaced only by what it says later, which cancels this. An operation that ran
        when it was said has left its own version as the desired one.
        """
        if not outside:
            await self._board.wait_until(lambda now: is_due(now, name, version))
            return self._board.snapshot.models[name].desired == version
        await self._board.wait_until(lambda now: may_begin(now, name))
        await self._models[name].state.update(lambda now: wanted_again(now, version))
        return True

    async def _is_given_up(self, name: str, version: str, retries: int) -> bool:
        """Whether mountd has died in too many switches to it. It says so in status and as an event.

        Nothing else ends such a loop: each start would begin the switch again, and retries count within one run.
        """
        if self._journal is None:
            return False
        deaths = 0
        with logged("see how often mountd died in a switch", model=name, version=version):
            said = await self._journal.declared(name)
            since = said.seen if said is not None and said.version == version else ""
            deaths = killed(await self._journal.history(name, limit=HISTORY), version, since)
        if not is_too_deadly(deaths, retries):
            return False
        text = f"cannot switch to {version}: mountd died in {deaths} switches to it, and begins no more by itself"
        error = Refused(text, hint=f"`mountd switch {version} --model {name}` tries it once more")
        self._show(name, version, error)
        log.error("gave up a version in whose switches mountd died", model=name, version=version, times=deaths)
        await report_event(self._journal, "switch-given-up", name, f"{error.text}; {error.hint}")
        return True

    def _show(self, name: str, version: str, failure: MountdError | None) -> None:
        """Status says why the declared version is not live, until it is or another one is declared."""
        model = self._models[name]
        unmet = Unmet(version, failure.text, failure.hint) if failure else None
        model.publish(replace(model.status, unmet=unmet))
