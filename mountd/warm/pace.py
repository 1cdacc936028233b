"""How many readers at once: found by measuring, as one number that goes up while the throughput does.

Neither the store's limit for one connection nor that of the line is known beforehand, nor how many requests it bears.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FIRST = 8
"""At 20 MB/s a connection, what a large store gives, 8 fill a line of 1 Gbit/s."""
LEAST, MOST = 1, 32
LOOK_S = 0.5
GAIN = 1.10
"""More readers have to bring that much more: what throughput varies by itself is less."""
RESTING_LOOKS = 20
"""After more readers brought nothing. A line that others use as well changes in 10 s, not in one."""
RECOVERY_LOOKS = 4
"""After errors, when it is back near where they began: a store that asks for fewer requests is given 2 s."""
SPEED_OVER_S = 5.0


@dataclass(slots=True)
class Pace:
    """`readers` of now. It grows by half while that brings more, and goes back when it does not.

    On errors it halves; when bytes come again it doubles up to three quarters of where they began: after an outage that
    is a second or two, and a store that asks for fewer requests gets fewer each time it does.
    """

    readers: int = FIRST
    _former: int = FIRST
    """readers before it grew"""
    _former_bytes_per_s: float = 0.0
    """what they brought"""
    _is_new: bool = False
    """it has just grown: the first look still has the first requests of the new readers in it"""
    _resting: int = 0
    """looks until it grows again"""
    _recover_to: int = 0
    """after errors"""
    _is_failing: bool = False

    def look(self, bytes_per_s: float, *, errors: int, is_busy: bool) -> int:
        """To be called each LOOK_S seconds with what came in these; `is_busy`: every reader had something to do."""
        if errors:
            if not self._is_failing:
                self._recover_to = max(LEAST, self.readers - max(1, self.readers // 4))
            self.readers, self._is_failing = max(LEAST, self.readers // 2), True
        elif not is_busy or not bytes_per_s:
            pass  # what came says nothing of what could
        elif self._is_failing or self.readers < self._recover_to:
            self._recover()
        elif self._is_new:
            self._is_new = False
        elif self._resting > 1:
            self._resting -= 1
        elif self._resting == 1 or bytes_per_s > self._former_bytes_per_s * GAIN:
            self._grow(bytes_per_s)
        else:
            self.readers, self._resting = self._former, RESTING_LOOKS
        return self.readers

    def _recover(self) -> None:
        self.readers = max(self.readers, min(self._recover_to, self.readers * 2))
        self._is_failing, self._is_new, self._resting = False, False, RECOVERY_LOOKS

    def _grow(self, bytes_per_s: float) -> None:
        self._former, self._former_bytes_per_s = self.readers, bytes_per_s
        self.readers = min(MOST, self.readers + max(1, self.readers // 2))
        self._is_new = self.readers > self._former
        self._resting = 0 if self._is_new else RESTING_LOOKS


class Speed:
    """Bytes a second over the last SPEED_OVER_S seconds, from how many there were at each time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, total_bytes: int) -> None:
        """`total_bytes` so far; fewer than before count as none."""
        if self._seen and total_bytes < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total_bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] >= SPEED_OVER_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin) if end > begin else 0.0

    def eta_s(self, left_bytes: int) -> float | None:
        """Seconds until so many more are there; None while nothing comes."""
        speed = self.bytes_per_s
        return left_bytes / speed if speed > 0 else None
