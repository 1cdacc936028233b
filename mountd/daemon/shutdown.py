"""The stop, in one place: what stops in which order, how long each may take, and the sum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mountd.app.app import KILL_WAIT_S
from mountd.cache.index import LAST_STAMP_LIMIT_S
from mountd.cache.uploads import SCAN_LIMIT_S
from mountd.journal.database import LOCKED_S
from mountd.mount.mount import CLEAR_TIMEOUT_S, STOP_GRACE_S
from mountd.mount.traffic import LAST_LOOK_S
from mountd.settings.profiles import writes_back
from mountd.settings.schema import MountSettings, Settings

OPERATION_S = 5.0
API_S = 3.0
WORKERS_S = 2.0
JOURNAL_S = 5.0
"""For the last events; then the journal is closed, which waits for a write in progress."""


@dataclass(frozen=True, slots=True)
class StopTimes:
    """In seconds; the order of stopping is: operation → apps → mounts (together) → journal → workers → API.

    The sum must stay below systemd's TimeoutStopSec and the grace period of a container.
    """

    apps_s: float
    mounts_s: float

    @property
    def total_s(self) -> float:
        return OPERATION_S + self.apps_s + self.mounts_s + JOURNAL_S + LOCKED_S + WORKERS_S + API_S


def mount_stop_s(mount: MountSettings) -> float:
    """How long a mount with these settings takes to stop at most, unless something is stuck in the kernel."""
    uploads_s = mount.drain + SCAN_LIMIT_S + LAST_LOOK_S if writes_back(mount) else 0.0
    return uploads_s + STOP_GRACE_S + KILL_WAIT_S + LAST_STAMP_LIMIT_S + CLEAR_TIMEOUT_S


def stop_times(settings: Settings, leaving: Iterable[MountSettings] = ()) -> StopTimes:
    """`leaving`: mounts that are being removed, and are no longer in the settings."""
    apps_s = max((app.stop.grace + KILL_WAIT_S for app in settings.apps.values()), default=0.0)
    mounts_s = max(map(mount_stop_s, (*settings.mounts.values(), *leaving)))
    return StopTimes(apps_s, mounts_s)
