"""The monitor of a mount: each probe observes at its own pace and reports facts; what to do is decided here, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Unpack

from mountd.errors import Exhausted
from mountd.mount.health import FactChanges, Facts, Replace, Report, RestartRclone, decide, explain
from mountd.process.steady import keep
from mountd.status.board import PublishMount
from mountd.status.snapshot import Health, Reason, State


class Probe(Protocol):
    """Observes one thing and reports facts about it; decides nothing."""

    async def run(self, report: Report) -> None:
        """Until there is nothing more to see, else until cancelled."""


@dataclass(slots=True, eq=False)
class MountMonitor:
    """`probes` are the other ones. `failures`: missed liveness probes in a row that mean hung. `known`: what is wrong
    with the mount's cache or uploads."""

    name: str
    liveness: Probe
    probes: Sequence[Probe]
    failures: Callable[[], int]
    known: Callable[[], Reason | None]
    publish: PublishMount
    _facts: Facts = field(default_factory=Facts)
    _lacks: dict[Probe, Exhausted] = field(default_factory=dict)
    """what the machine lacks for a probe"""
    _shown: Reason | None = None
    _decision: Replace | RestartRclone | None = None
    _decided: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> Replace | RestartRclone:
        """Of a mount that runs: until there is something to do."""
        works = [self._keep(probe) for probe in (self.liveness, *self.probes)]
        await self._observe(works, self._decided.wait())
        assert self._decision is not None
        return self._decision

    async def guard(self, work: Coroutine[Any, Any, None]) -> Replace | None:
        """Of a mount that starts: cancels `work` when the mount hangs meanwhile, for that would wait for its own, much
        longer deadlines. None when it has finished. Raises what it raises."""
        await self._observe([self.liveness.run(self._report)], work)
        return self._decision if isinstance(self._decision, Replace) else None

    async def _observe(self, works: Sequence[Coroutine[Any, Any, None]], until: Coroutine[Any, Any, object]) -> None:
        """Until `until` has finished or a decision is made. Raises what one of them raises unless one is."""
        self._facts, self._lacks, self._decision = Facts(), {}, None
        self._decided.clear()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in (*works, until, self._decided.wait())]
                await asyncio.wait(tasks[-2:], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as failures:
            if self._decision is None:
                raise failures.exceptions[0] from None

    async def _keep(self, probe: Probe) -> None:
        """What the machine lacks for a probe says nothing of the mount: it is reported, and the probe starts again."""

        def note(lack: Exhausted | None) -> None:
            if lack is None:
                self._lacks.pop(probe, None)
            else:
                self._lacks[probe] = lack
            self._judge()

        await keep(lambda: probe.run(self._report), note)

    def _report(self, **changes: Unpack[FactChanges]) -> Facts:
        self._facts = replace(self._facts, **changes)
        self._judge()
        return self._facts

    def _judge(self) -> None:
        """The only place where a mount is given up. A mount to replace comes before one that is only to restart."""
        if not isinstance(self._decision, Replace):
            found = decide(self.name, self._facts, failures=self.failures(), now=time.monotonic())
            self._decision = found or self._decision
        if self._decision is not None:
            self._decided.set()
            return
        lack = next(iter(self._lacks.values()), None)
        reason = explain(self.name, self._facts, known=self.known(), lack=lack)
        if reason == self._shown:
            return
        self._shown = reason
        self.publish(lambda status: replace(status, health=_health(status.state, reason), reason=reason))


def _health(state: State, reason: Reason | None) -> Health:
    if reason is not None:
        return Health.DEGRADED
    return Health.HEALTHY if state is State.RUNNING else Health.PROGRESSING
