"""Keeps a link true while its model is live: looks when its directory changes, and every few seconds besides."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from mountd.model import drift, link
from mountd.model.drift import LinkBlocked, LinkKind, WantedLink
from mountd.model.link_watch import LinkWatch
from mountd.status.snapshot import DriftStatus, Health, Reason

log = structlog.get_logger()

TICK_S = 10.0
SETTLE_S = 0.02
"""Between two looks, so that somebody who changes the link all the time does not keep the daemon busy."""
HEAL_AFTER_S = 0.1
"""Somebody who removes a link in order to put another there is done by then: no race with a person's two commands."""
DRIFT_SETTLE_S = 1.0
"""Between two looks while the link stays as it was found."""


class LinkGuard:
    """One look has no await in it, so an operation or a start-up never comes in between."""

    def __init__(
        self,
        model: str,
        wanted: Callable[[], WantedLink | None],
        show: Callable[[DriftStatus], None],
        check_path: Callable[[Path], None],
    ) -> None:
        """`wanted`: None while something else has the link, such as an operation. `check_path` raises LinkBlocked for a
        path where no link may be made."""
        self._check_path = check_path
        self._model = model
        self._wanted = wanted
        self._show = show
        self._changed = asyncio.Event()
        self._heals: tuple[float, ...] = ()
        self._status = DriftStatus()
        self._reported = ""
        self._log = log.bind(model=model)

    def wake(self) -> None:
        """Look now."""
        self._changed.set()

    def placed(self, link: Path, target: str) -> None:
        """The model has just placed it, so whatever was wrong with it is over. Look now."""
        self._set_right(link, target)
        self.wake()

    async def run(self, path: Callable[[], Path]) -> None:
        """Until cancelled. `path` is where the link is now."""
        watch = LinkWatch(self.wake)
        try:
            while True:
                self._changed.clear()
                await watch.follow(path())  # first: it notices what changes from here on
                again_s = self.look()
                if again_s <= HEAL_AFTER_S:
                    await asyncio.sleep(again_s)
                    continue
                await asyncio.sleep(DRIFT_SETTLE_S if self._status.reason else SETTLE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(again_s):
                        await self._changed.wait()
        finally:
            watch.close()

    def look(self) -> float:
        """Seconds until the next look. Drift that can be healed is reported first; the look that follows heals it."""
        wanted = self._wanted()
        if wanted is None:
            return TICK_S
        now = time.monotonic()
        self._heals = drift.recently(self._heals, now)
        found = link.look(wanted.link)
        decision = drift.decide(wanted, found, self._heals, now)
        reason = decision.reason(self._model)
        if reason is None:
            self._set_right(wanted.link, wanted.target)
            return TICK_S
        if reason.text != self._reported:
            self._reported = reason.text
            self._log.warning("link was changed", code=reason.code, cause=reason.text, hint=reason.hint)
            self._publish(replace(self._status, times=self._status.times + 1, last=reason.text))
        if decision.heal and self._status.reason is not None:
            self._heal(wanted, now)
            return TICK_S
        # A link that comes back in a moment is not worth that an app waits for it.
        absent = found.kind is not LinkKind.LINK and not decision.heal
        target = found.detail if found.kind is LinkKind.LINK else None
        self._publish(replace(self._status, reason=reason, health=decision.health, absent=absent, target=target))
        return HEAL_AFTER_S if decision.heal else min(decision.again_s or TICK_S, TICK_S)

    def _set_right(self, link: Path, target: str, *, heals: int = 0) -> None:
        if self._status.reason is not None and not heals:
            self._log.info("link is right again", link=str(link), target=target)
        self._reported = ""
        right = replace(self._status, reason=None, health=Health.HEALTHY, absent=False, target=None)
        self._publish(replace(right, heals=right.heals + heals))

    def _heal(self, wanted: WantedLink, now: float) -> None:
        try:
            self._check_path(wanted.link)
            link.point(wanted.link, wanted.target)
        except LinkBlocked as error:
            if self._status.reason is None or self._status.reason.text != error.text:
                self._log.warning("cannot heal the link", cause=error.text, hint=error.hint)
            reason = Reason(drift.BLOCKED, error.text, "link", self._model, error.hint)
            absent = link.read(wanted.link) is None
            self._publish(replace(self._status, reason=reason, health=Health.DEGRADED, absent=absent))
            return
        self._heals = (*self._heals, now)
        self._log.info("link healed", link=str(wanted.link), target=wanted.target)
        self._set_right(wanted.link, wanted.target, heals=1)

    def _publish(self, status: DriftStatus) -> None:
        self._status = status
        self._show(status)
