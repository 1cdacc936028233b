"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`initial_s`, then `factor` times as long after each further failure, never above `max_s`."""

    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row; none after none."""
        if failures <= 0:
            return 0.0
        # The exponent is bounded because a float overflows long before a person stops waiting.
        return min(self.max_s, self.initial_s * self.factor ** min(failures - 1, 64))
