"""When a mount goes on without its disk cache, and when it goes back to it: decided from what was seen of the cache.

rclone opens for writing what it has cached, also to read it, and writes down that it did [T]: on a disk that is
read-only or full it soon opens nothing any more, cached or not, however well the bucket is. An rclone without a cache
reads the same from the bucket, each time anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mountd.process.backoff import Backoff
from mountd.settings import profiles
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import Reason

CACHE_INTERVAL_S = 5.0
AGAIN_S = 2.0
"""To the next look, when reads fail."""
LOOKS = 2
"""In a row, before an app loses its files over it."""
LOOKS_FULL = 3
"""rclone makes room by what it holds, which takes it some seconds [T]."""
_UNUSABLE = ("cache-not-writable", "cache-taken")
"""Nothing can be opened, or another rclone writes into the same files."""
_FULL = "cache-full"
_NO_ROOM = "no space left on device"
_OF_A_READ = ("failed to open", "_ensure", "vfs reader")
"""In what rclone says when a read fails for its cache: it says so, too, when it cannot note when a file was used."""
HOLD = Backoff(initial_s=10.0, factor=2.0, max_s=3600.0)
"""How long the directory must have been well: each return restarts the app, and a disk may come and go."""
STEADY_S = 3600.0
"""A cache that was used for so long without trouble begins anew with the shortest of these times."""


def may_bypass(mount: MountSettings) -> bool:
    """Whether this mount may go on without its cache at all.

    Not one that writes: what waits for its upload lies there. Not with a mode that reads past its cache anyway.
    """
    keeps = mount.cache.on_failure == "keep"
    return keeps and profiles.cache_mode(mount).lower() == "full" and not profiles.writes_back(mount)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the looks at a cache directory have found, one after the other. Times are monotonic, in seconds."""

    failing: int = 0
    """so many in a row found that reads fail for its sake"""
    full: bool = False
    """the last of them for lack of room"""
    well_since: float | None = None

    def after(self, now: float, code: str, *, lacks_room: bool) -> Looks:
        """With one look more: `code` is what is wrong, if anything; `lacks_room`: reads have failed for it."""
        if not code:
            return Looks(well_since=now if self.well_since is None else self.well_since)
        fails = code in _UNUSABLE or (code == _FULL and lacks_room)
        return Looks(self.failing + 1, full=code == _FULL) if fails else Looks()

    @property
    def pause_s(self) -> float:
        """To the next look."""
        return AGAIN_S if self.failing else CACHE_INTERVAL_S

    @property
    def give_up(self) -> bool:
        return self.failing >= (LOOKS_FULL if self.full else LOOKS)

    def well_for_s(self, now: float) -> float:
        return 0.0 if self.well_since is None else now - self.well_since


class Bypass:
    """Of one mount, from one rclone to the next. `active`: the present one was started without the cache.

    `found` is what is wrong with the directory, as the last look or start saw it.
    """

    def __init__(self, name: str) -> None:
        self.active = False
        self.found: Reason | None = None
        self.lacks_room = False
        self._name = name
        self._refused: Reason | None = None
        self._leaves = self._returns = self._is_away = False
        self._for_room = False
        self._is_known = False
        self._times = 0
        self._back_at = float("-inf")

    def hear(self, line: str) -> None:
        """What rclone logs."""
        if _NO_ROOM in line and any(words in line for words in _OF_A_READ):
            self.lacks_room = True

    # -- what the next start is to be -------------------------------------------------------------------------------

    def decide(self, looks: Looks) -> None:
        """It is for the cache's sake."""
        if self.active:
            self._returns = True
        else:
            self.leave(for_room=looks.full)

    def leave(self, *, for_room: bool) -> None:
        self._leaves, self._for_room = True, for_room

    def refuse(self, reason: Reason) -> None:
        """Without, although the directory looks well: rclone could not use it."""
        self._leaves, self._refused = True, reason

    def ask(self) -> None:
        """A person asks for it: it is tried with the cache, and what rclone could give up is room."""
        if self.active:
            self._returns, self._for_room = True, False

    def forbid(self) -> None:
        """It must not do without (any more)."""
        self.active = self._leaves = self._returns = self._for_room = False
        self._refused = None

    # -- a start ----------------------------------------------------------------------------------------------------

    @property
    def is_strict(self) -> bool:
        """Whether what rclone could give up is no room: reads failed for lack of room all the same."""
        return self._for_room

    def is_open_to(self, mount: MountSettings, *, was_used: bool = False) -> bool:
        """Whether a start may do without. A directory that never worked is a mistake, and told as one.

        `was_used`: by a mountd before this one.
        """
        return may_bypass(mount) and (was_used or self._is_known)

    def begin(self, now: float, found: Reason | None) -> None:
        """A start, with `found` being wrong with the directory. Without the cache for that, when it was decided so, and
        as long as nobody decided to return.

        Each time that it is given up, or cannot be returned to, it is trusted less.
        """
        active = found is not None or self._leaves or (self.active and not self._returns)
        if active and (not self.active or self._returns):
            was_steady = not self.active and now - self._back_at >= STEADY_S
            self._times = 1 if was_steady else self._times + 1
        elif self.active and not active:
            self._back_at = now
        self._for_room = active and (self._for_room or (found is not None and found.code == _FULL))
        self._is_away, self._is_known = self._is_away or active, self._is_known or active
        self.active, self.found = active, found
        self._leaves = self._returns = self.lacks_room = False

    def works(self) -> bool:
        """rclone uses its cache; whether it did without before."""
        was_away, self._is_away, self._is_known, self._refused = self._is_away, False, True, None
        return was_away

    # -- while it runs ----------------------------------------------------------------------------------------------

    def look(self, looks: Looks, now: float, found: Reason | None) -> Looks:
        """After one more look at the directory."""
        self.found = found
        if found is None:
            self.lacks_room = False
        return looks.after(now, found.code if found else "", lacks_room=self.lacks_room)

    @property
    def reason(self) -> Reason | None:
        """What is to be told of it."""
        if not self.active or self.found:
            return self.found
        if self._refused:
            hint = f"{self._refused.hint}; it is tried again each {self.hold_s:g} s"
            return replace(self._refused, hint=hint)
        text = f"mount {self._name} reads everything from the bucket, without its cache, which can be used again"
        hint = f"it is mounted with its cache again when that has been well for {self.hold_s:g} s"
        return Reason(
            "cache-bypassed", text, "rclone", self._name, f"{hint}; `mountd restart {self._name}` does it now"
        )

    @property
    def hold_s(self) -> float:
        return HOLD.delay_s(self._times)

    def restart(self, looks: Looks, now: float, mount: MountSettings) -> str:
        """Why rclone is to begin anew, with the cache or without; empty while it is not."""
        if self.active:
            # Where the policy has become another one, its app waits for the cache.
            hold_s = self.hold_s if may_bypass(mount) else 0.0
            well = looks.well_since is not None and looks.well_for_s(now) >= hold_s
            return "its cache can be used again" if well else ""
        return "its cache cannot be used: going on without" if looks.give_up and self.is_open_to(mount) else ""
