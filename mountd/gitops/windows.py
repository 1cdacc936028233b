"""Sync windows: whether an automatic switch, or one by hand, may begin now. The rules are those of Argo CD.

No switch may begin within a deny window. If there are allow windows, switches may begin only within one of them.
Without windows they may always begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from mountd.settings.sync import WindowSettings, zone
from mountd.settings.units import format_duration


def is_active(window: WindowSettings, now: datetime) -> bool:
    """Whether `now`, with its timezone, lies in the window; its first moment does, its end does not."""
    # In UTC an hour is an hour, also in the night of the change to summer time.
    began_after = now.astimezone(UTC) - timedelta(seconds=window.duration)
    starts = (each.timestamp() for each in CronSim(window.schedule, began_after.astimezone(zone(window.timezone))))
    # In the hour that comes twice, cronsim gives a time of the first one also to who begins in the second.
    start = next((each for each in starts if each > began_after.timestamp()), None)
    return start is not None and start <= now.timestamp()


def closed(windows: Sequence[WindowSettings], now: datetime, *, manual: bool = False) -> str:
    """Why no switch may begin now; empty when one may. `manual`: a person asks for it."""
    active = [window for window in windows if is_active(window, now)]
    if denying := [window for window in active if window.kind == "deny"]:
        return "" if manual and all(window.manual for window in denying) else f"{_words(denying[0])} denies it"
    allowing = [window for window in windows if window.kind == "allow"]
    if not allowing or any(window.kind == "allow" for window in active):
        return ""
    if manual and all(window.manual for window in allowing):
        return ""
    return f"no window allows it now: {'; '.join(map(_words, allowing[:3]))}"


def _words(window: WindowSettings) -> str:
    return f"the window {window.schedule} ({window.timezone}) for {format_duration(window.duration)}"
