"""Keeps a link true while its model is live: looks when something was heard, and each few seconds as a net."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from mountd.model import drift, link
from mountd.model.drift import LinkKind, WantedLink
from mountd.model.link_watch import LinkWatch
from mountd.status.snapshot import DriftStatus, Health, Reason

log = structlog.get_logger()

TICK_S = 10.0
SETTLE_S = 0.02
"""Between two looks, so that somebody who changes the link all the time does not keep the daemon busy."""
HEAL_AFTER_S = 0.1
"""Who removes a link in order to put something else there is done by then: no race with a person's two commands."""
ASTRAY_SETTLE_S = 1.0
"""The same while it is left as it was found: no more news than this."""


class LinkGuard:
    """One look is made without a pause in it, so an operation that begins or a climb never comes in between."""

    def __init__(
        self,
        model: str,
        keeping: Callable[[], WantedLink | None],
        show: Callable[[DriftStatus], None],
        check_way: Callable[[Path], None],
    ) -> None:
        """`keeping`: None while the link is somebody else's business, such as an operation's. `check_way` raises
        LinkBlocked for a path where no link may be made."""
        self._check_way = check_way
        self._model = model
        self._keeping = keeping
        self._show = show
        self._heard = asyncio.Event()
        self._heals: tuple[float, ...] = ()
        self._status = DriftStatus()
        self._told = ""
        self._log = log.bind(model=model)

    def wake(self) -> None:
        """Look now."""
        self._heard.set()

    def placed(self, link: Path, target: str) -> None:
        """The model has just placed it, so whatever was wrong with it is over. Look now."""
        self._right(link, target)
        self.wake()

    async def run(self, path: Callable[[], Path]) -> None:
        """Until cancelled. `path` is where the link is now."""
        watch = LinkWatch(self.wake)
        try:
            while True:
                self._heard.clear()
                await watch.follow(path())  # first: what changes from here on is heard
                again_s = self.look()
                if again_s <= HEAL_AFTER_S:
                    await asyncio.sleep(again_s)
                    continue
                await asyncio.sleep(ASTRAY_SETTLE_S if self._status.reason else SETTLE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again_s):
                        await self._heard.wait()
        finally:
            watch.close()

    def look(self) -> float:
        """Seconds until the next look. What is to be healed is told first, and healed by the look that follows."""
        keeping = self._keeping()
        if keeping is None:
            return TICK_S
        now = time.monotonic()
        self._heals = drift.recently(self._heals, now)
        seen = link.look(keeping.link)
        found = drift.decide(keeping, seen, self._heals, now)
        reason = found.reason(self._model)
        if reason is None:
            self._right(keeping.link, keeping.target)
            return TICK_S
        if reason.text != self._told:
            self._told = reason.text
            self._log.warning("link was changed", code=reason.code, cause=reason.text, hint=reason.hint)
            self._tell(times=self._status.times + 1, last=reason.text)
        if found.heal and self._status.reason is not None:
            self._heal(keeping, now)
            return TICK_S
        # A link that comes back in a moment is not worth that an app waits for it.
        absent = seen.kind is not LinkKind.LINK and not found.heal
        target = seen.detail if seen.kind is LinkKind.LINK else None
        self._tell(reason=reason, health=found.health, absent=absent, target=target)
        return HEAL_AFTER_S if found.heal else min(found.again_s or TICK_S, TICK_S)

    def _right(self, link: Path, target: str) -> None:
        if self._status.reason is not None:
            self._log.info("link is right again", link=str(link), target=target)
        self._told = ""
        self._tell(reason=None, health=Health.HEALTHY, absent=False, target=None)

    def _heal(self, keeping: WantedLink, now: float) -> None:
        try:
            self._check_way(keeping.link)
            link.point(keeping.link, keeping.target)
        except link.LinkBlocked as error:
            if self._status.reason is None or self._status.reason.text != error.text:
                self._log.warning("cannot heal the link", cause=error.text, hint=error.hint)
            reason = Reason(drift.BLOCKED, error.text, "link", self._model, error.hint)
            self._tell(reason=reason, health=Health.DEGRADED, absent=link.read(keeping.link) is None)
            return
        self._heals = (*self._heals, now)
        self._told = ""
        self._log.info("link healed", link=str(keeping.link), target=keeping.target)
        self._tell(reason=None, health=Health.HEALTHY, heals=self._status.heals + 1, absent=False, target=None)

    def _tell(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._show(self._status)
