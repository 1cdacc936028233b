"""Three ways to a restarted app → seconds, what mountd adds to the app's own, and a table; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

LIMIT_S = 1.0
"""What a switch of a warm version may take longer than the app's own stop and start, in the median."""
HEAD = ("what", "runs", "median", "p90", "worst", "overhead: median", "p90", "worst")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of each, seconds. `alone_s`: the app without mountd, from its stop signal until it is ready again;
    `switch_s`, `rollback_s`: the same under mountd, from where it begins to stop the old app until the new one is
    ready; `…_command_s`: the whole command."""

    alone_s: float
    switch_s: float
    rollback_s: float
    switch_command_s: float
    rollback_command_s: float


def down_s(steps: Sequence[dict[str, Any]]) -> float:
    """Seconds of an operation from the beginning of its step `stop` to the end of `ready`, by its history.

    Raises ValueError when one of them is not there or has not ended.
    """
    by_name = {step["step"]: step for step in steps}
    try:
        began, ended = by_name["stop"]["began"], by_name["ready"]["ended"]
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except (KeyError, TypeError):
        raise ValueError(f"no stop and ready among the steps {', '.join(by_name) or '(none)'}") from None


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds."""

    median: float
    p90: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        return cls(round(statistics.median(values), 3), round(quantile(values, 0.9), 3), round(max(values), 3))

    @property
    def cells(self) -> tuple[str, str, str]:
        return f"{self.median:.2f} s", f"{self.p90:.2f} s", f"{self.worst:.2f} s"


@dataclass(frozen=True, slots=True)
class Row:
    """`over` is what each turn took longer than the app alone in the same turn; None where nothing is compared."""

    title: str
    taken: Figures
    over: Figures | None


def rows(turns: Sequence[Turn]) -> list[Row]:
    def row(title: str, name: str) -> Row:
        values = [getattr(turn, name) for turn in turns]
        return Row(title, Figures.of(values), Figures.of([getattr(turn, name) - turn.alone_s for turn in turns]))

    return [
        Row("the app alone, stop and start", Figures.of([turn.alone_s for turn in turns]), None),
        row("switch, stop until ready", "switch_s"),
        row("rollback, stop until ready", "rollback_s"),
        row("switch, the whole command", "switch_command_s"),
        row("rollback, the whole command", "rollback_command_s"),
    ]


def missed(turns: Sequence[Turn]) -> list[str]:
    """Which promises were not kept."""
    found = []
    for name in ("switch", "rollback"):
        over = statistics.median(getattr(turn, f"{name}_s") - turn.alone_s for turn in turns)
        if over > LIMIT_S:
            found.append(
                f"a {name} costs {over:.2f} s more than the app's own stop and start, {LIMIT_S:g} s are allowed"
            )
    return found


def table(found: Sequence[Row], runs: int) -> str:
    """For people and for Markdown; seconds."""
    lines = [HEAD, tuple("-" * len(name) for name in HEAD)]
    for row in found:
        lines.append((row.title, str(runs), *row.taken.cells, *(row.over.cells if row.over else ("", "", ""))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def as_json(turns: Sequence[Turn]) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in rows(turns)],
        "limit_s": LIMIT_S,
        "missed": missed(turns),
        "turns": [asdict(turn) for turn in turns],
    }
