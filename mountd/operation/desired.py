"""The version that each model should have: what the file declares, what a person asked for, what is pending, retries.

Whatever names a version comes through here, today the configuration file and the command line. `Committed.desired` is
durable, and a pending switch follows from it at each start: so it is never lost, and never written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from mountd.errors import Busy, MountdError
from mountd.journal.journal import Committed
from mountd.model.model import Model
from mountd.operation.runner import OperationOutcome
from mountd.process.lifecycle import Backoff
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, Unmet

log = structlog.get_logger()

BUSY_RETRY_S = 5.0
FROM_FILE = "config"
"""The source of what stands in the configuration."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, and where the request came from (`cli`, `api`, `config`, `schedule`).

    `dry_run` checks what can be checked beforehand and changes nothing; `force` ignores a quarantine; `digests`
    compares every byte; `schedule` is the id of the schedule whose time has come.
    """

    operator: str
    source: str
    reason: str = ""
    dry_run: bool = False
    force: bool = False
    digests: bool = False
    schedule: int | None = None


BY_FILE = Request("config", FROM_FILE, "version: in the configuration")


class TaskKeeper(Protocol):
    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]: ...


Switch = Callable[[str, str, Request], Awaitable[OperationOutcome | None]]
"""Of a model to a version; None: it was live already. Raises MountdError when it could not begin."""


def declare(known: Committed, version: str) -> Committed:
    """The file says `version`: it is desired if it is new there or if nothing is live; else what was desired stays."""
    is_new = known.config_version != version or known.current is None
    return replace(known, config_version=version, desired=version if is_new else known.desired)


def pending(known: Committed) -> str | None:
    """The version of the file that a switch must make live. A first version needs no switch: its model starts up."""
    version = known.config_version
    return version if version == known.desired and known.current not in (None, version) else None


async def ask(model: Model, version: str) -> None:
    """A person asked for `version`, which is live: so nothing else is desired any more. Raises MountdError."""
    if model.committed.desired != version:
        await model.state.save(replace(model.committed, desired=version))


def is_due(now: Snapshot, model: str, version: str) -> bool:
    """The pending switch can begin and nobody has paused it; or another version is desired."""
    found = now.models[model]
    busy = any(each.model == model and not each.only_loads for each in now.operations)
    return found.linked and not busy and (found.follows or found.desired != version)


class DesiredVersions:
    """Reads what the file declares and carries it out: at most one pending switch a model, a newer one replaces it."""

    def __init__(self, models: Mapping[str, Model], switch: Switch, board: Board) -> None:
        self._models = models
        self._switch = switch
        self._board = board
        self._group: TaskKeeper | None = None
        self._early: dict[str, str] = {}
        """pending before `begin`"""
        self._switches: dict[str, asyncio.Task[None]] = {}

    def begin(self, group: TaskKeeper) -> None:
        """Starts what is pending, as tasks of `group`."""
        self._group = group
        for name, version in self._early.items():
            self._start(name, version)

    async def load(self, name: str) -> None:
        """For a start of mountd, or a model that a reload adds. Raises MountdError: the journal cannot be read."""
        await self._models[name].load()
        await self.declare(name)

    async def declare(self, name: str) -> None:
        """The model's `version:` may be new. A journal that cannot be written does not stop a switch to it."""
        model = self._models[name]
        await model.state.update(declare(model.committed, model.settings.version))
        self.drop(name)
        version = pending(model.committed)
        if version is not None:
            self._start(name, version)

    def drop(self, name: str) -> None:
        """Cancels the model's pending switch; an operation that has begun goes on."""
        self._early.pop(name, None)
        if name in self._switches:
            self._switches.pop(name).cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._switches.values())

    def _start(self, name: str, version: str) -> None:
        if self._group is None:
            self._early[name] = version
        else:
            self._switches[name] = self._group.keep(lambda: self._carry_out(name, version), f"switch of {name}")

    async def _carry_out(self, name: str, version: str) -> None:
        """Switches once the former version is linked, so that there is a way back; again after what can pass.

        A switch that could not even begin, such as with a full disk, has disturbed nobody and counts as no try.
        """
        failures = put_off = 0
        while True:
            await self._board.wait_until(lambda now: is_due(now, name, version))
            if self._board.snapshot.models[name].desired != version:
                log.info("another version was asked for since", model=name, version=version)
                return
            retry = self._models[name].settings.sync.retry
            pauses = Backoff(retry.initial, retry.factor, retry.max)
            try:
                outcome = await self._switch(name, version, BY_FILE)
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
            failures, put_off = failures + 1, 0
            if failures > retry.limit:
                log.error("gave up the version in the file", model=name, version=version, tries=failures)
                return
            delay_s = pauses.delay_s(failures)
            log.info("switch is tried again", model=name, version=version, tries=failures, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    def _show(self, name: str, version: str, failure: MountdError | None) -> None:
        """Status says why the file's version is not live, until it is or another one is asked for."""
        model = self._models[name]
        unmet = Unmet(version, failure.text, failure.hint) if failure else None
        model.publish(replace(model.status, unmet=unmet))
