"""Shows whether the sync windows of each model are open now, and refuses a switch by hand that they do not allow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from mountd import clock
from mountd.errors import Refused
from mountd.gitops.windows import closed
from mountd.model.model import Model

TICK_S = 5.0
"""How late the begin or end of a window may be noticed; the clock may also be set meanwhile."""


class SyncWindows:
    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(TICK_S)

    def look(self) -> None:
        for model in self._models.values():
            look(model)


def look(model: Model) -> str:
    """Shows why no automatic switch of it may begin now, and returns that; empty: one may."""
    windows = model.settings.sync.windows
    why = closed(windows, clock.now()) if windows else ""
    if why != model.status.window:
        model.publish(replace(model.status, window=why))
    return why


def check_by_hand(model: Model, wanted: str) -> None:
    """Raises Refused while a window does not let a person switch, either."""
    windows = model.settings.sync.windows
    if windows and (why := closed(windows, clock.now(), manual=True)):
        hint = f"wait, or write `manual: true` for it in models.{model.name}.sync.windows"
        raise Refused(f"cannot {wanted}: {why}", hint=hint)
