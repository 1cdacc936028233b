"""When a mount goes on without its disk cache, and when it tries the cache again: decided from looks at the directory.

rclone opens what it has cached for writing, also to read it, and records that it did: on a disk that is read-only or
full it soon opens nothing any more, cached or not, however well the bucket is. An rclone without a cache reads the same
from the bucket, each time again. Measured with rclone 1.75.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mountd.settings import profiles
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import Reason

CACHE_INTERVAL_S = 5.0
AGAIN_S = 2.0
"""To the next look, when reads fail."""
LOOKS = 2
"""In a row, before an app loses its files over it."""
LOOKS_FULL = 3
"""rclone makes room by what it holds, which takes it some seconds."""
_UNUSABLE = ("cache-not-writable", "cache-taken")
"""Nothing can be opened, or another rclone writes into the same files."""
_FULL = "cache-full"
_NO_ROOM = "no space left on device"
_OF_A_READ = ("failed to open", "_ensure", "vfs reader")
"""In what rclone logs when a read fails because of its cache: it logs the same error when it cannot record a use."""
HOLD_S = 600.0
"""How long the directory must have been well before the cache is tried again: each try restarts the app, and a disk may
come and go."""


def may_bypass(mount: MountSettings) -> bool:
    """Whether this mount may go on without its cache at all.

    Not one that is written to: what waits for its upload lies there. Not with a mode that reads past its cache anyway.
    """
    keeps = mount.cache.on_failure == "keep"
    return keeps and profiles.cache_mode(mount).lower() == "full" and not profiles.writes_back(mount)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the looks at a cache directory have found, one after the other. Times are monotonic, in seconds."""

    failing: int = 0
    """so many in a row found that reads fail because of it"""
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


class CacheState(StrEnum):
    """How rclone is, or is next to be, started: with its cache, without it, or with it for the first time again."""

    WITH = "with"
    WITHOUT = "without"
    TRYING = "trying"


class Bypass:
    """Of one mount, from one rclone to the next. `active`: the present one was started without the cache.

    `found` is what is wrong with the directory, as the last look or start saw it. `is_strict`: at a start, what rclone
    could give up does not count as room, because reads failed for lack of room all the same.
    """

    def __init__(self, name: str) -> None:
        self.state = CacheState.WITH
        self.active = False
        self.found: Reason | None = None
        self.lacks_room = False
        self.is_strict = False
        self._name = name
        self._refused: Reason | None = None
        self._is_known = False

    def hear(self, line: str) -> None:
        """What rclone logs."""
        if _NO_ROOM in line and any(words in line for words in _OF_A_READ):
            self.lacks_room = True

    # -- what the next start does -----------------------------------------------------------------------------------

    def decide(self, looks: Looks) -> None:
        """`restart` said why: the next rclone does without the cache or, when this one did, tries it again."""
        if self.active:
            self.state = CacheState.TRYING
        else:
            self.leave(for_room=looks.full)

    def leave(self, *, for_room: bool) -> None:
        self.state, self.is_strict = CacheState.WITHOUT, for_room

    def refuse(self, reason: Reason) -> None:
        """The directory looks well, and rclone could not use it."""
        self.state, self._refused = CacheState.WITHOUT, reason

    def ask(self) -> None:
        """A person asks for a restart: the cache is tried again, and what rclone could give up is room."""
        if self.active:
            self.state, self.is_strict = CacheState.TRYING, False

    def forbid(self) -> None:
        """The configuration says that the mount must not do without its cache."""
        self.state = CacheState.TRYING if self.active else CacheState.WITH
        self.active = self.is_strict = False
        self._refused = None

    # -- a start ------------------------------------------------------------------------------------------------------

    def is_open_to(self, mount: MountSettings, *, was_used: bool = False) -> bool:
        """Whether a start may do without. A directory that never worked is a mistake, and reported as one.

        `was_used`: by a mountd before this one.
        """
        return may_bypass(mount) and (was_used or self._is_known)

    def begin(self, found: Reason | None) -> None:
        """A start, with `found` being wrong with the directory: then without it, and else as decided."""
        if found is not None:
            self.state = CacheState.WITHOUT
        self.active, self.found = self.state is CacheState.WITHOUT, found
        self.is_strict = self.active and (self.is_strict or (found is not None and found.code == _FULL))
        self._is_known = self._is_known or self.active
        self.lacks_room = False

    def works(self) -> bool:
        """rclone uses its cache; whether that was a try after a time without."""
        was_try = self.state is CacheState.TRYING
        self.state, self._is_known, self._refused = CacheState.WITH, True, None
        return was_try

    # -- while it runs ------------------------------------------------------------------------------------------------

    def look(self, looks: Looks, now: float, found: Reason | None) -> Looks:
        """After one more look at the directory."""
        self.found = found
        if found is None:
            self.lacks_room = False
        return looks.after(now, found.code if found else "", lacks_room=self.lacks_room)

    @property
    def reason(self) -> Reason | None:
        """What the status says of it."""
        if not self.active or self.found:
            return self.found
        if self._refused:
            return replace(self._refused, hint=f"{self._refused.hint}; it is tried again every {HOLD_S:g} s")
        text = f"mount {self._name} reads everything from the bucket, without its cache, which can be used again"
        hint = f"mountd tries the cache again when it has been well for {HOLD_S:g} s"
        return Reason(
            "cache-bypassed", text, "rclone", self._name, f"{hint}; `mountd restart {self._name}` does it now"
        )

    def restart(self, looks: Looks, now: float, mount: MountSettings) -> str:
        """Why rclone is to be restarted, with the cache or without; empty while it is not."""
        if self.active:
            # When the policy has changed to `stop`, its app waits for the cache.
            hold_s = HOLD_S if may_bypass(mount) else 0.0
            is_well = looks.well_since is not None and now - looks.well_since >= hold_s
            return "its cache can be used again" if is_well else ""
        return "its cache cannot be used: going on without" if looks.give_up and self.is_open_to(mount) else ""
