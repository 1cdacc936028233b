"""Samples of who loads how fast → marks that must be reached, and tables; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contestant did in one round; `broken` is the promise that was not kept, in words."""

    who: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What must be reached: of `who` the figure `of`, or what it is beside the best of `over` in the same round.

    `least`: the best of `over` must be at least `limit` times as much; else `who` at most `limit` (times as much). The
    median of the rounds counts where two are compared, the worst round where not.
    """

    text: str
    who: str
    limit: float
    of: str = "seconds"
    over: tuple[str, ...] = ()
    least: bool = False

    def value(self, samples: Sequence[Sample]) -> float | None:
        """None when it was not measured."""
        found = []
        for number in sorted({each.round for each in samples}):
            own = _values(samples, number, (self.who,), self.of)
            others = _values(samples, number, self.over, self.of)
            if own and not self.over:
                found += own
            elif own and others:
                pair = (min(others), max(own)) if self.least else (max(own), min(others))
                found.append(pair[0] / pair[1] if pair[1] else float("inf"))
        if not found:
            return None
        return statistics.median(found) if self.over else max(found)

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


def _values(samples: Sequence[Sample], number: int, names: Sequence[str], of: str) -> list[float]:
    return [each.figures[of] for each in samples if each.round == number and each.who in names and of in each.figures]


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one case. `absent`: why a contestant, by its name, did not run."""

    case: str
    title: str
    bucket: str
    samples: tuple[Sample, ...]
    marks: tuple[Mark, ...]
    absent: dict[str, str] = field(default_factory=dict)
    date: str = ""
    load: float = 0.0
    """the machine's load average over the last minute when it ended"""
    proxy_cpu: float = 0.0
    """of one core, at the most in a run"""
    quick: bool = False
    """a look, not a measurement"""

    @property
    def contestants(self) -> list[str]:
        return [*dict.fromkeys(each.who for each in self.samples)]

    @property
    def missed(self) -> list[str]:
        """Marks that were not reached and promises that were not kept; those not measured are none of them."""
        found = [
            f"{mark.text}: {shown(mark, value)}"
            for mark in self.marks
            if (value := mark.value(self.samples)) is not None and not mark.reached(value)
        ]
        return [*found, *dict.fromkeys(f"{each.who}: {each.broken}" for each in self.samples if each.broken)]

    def values(self, who: str, of: str) -> list[float]:
        return [each.figures[of] for each in self.samples if each.who == who and of in each.figures]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Result:
        samples = tuple(Sample(**each) for each in document["samples"])
        marks = tuple(Mark(**{**each, "over": tuple(each["over"])}) for each in document["marks"])
        return cls(**{**document, "samples": samples, "marks": marks})


def shown(mark: Mark, value: float | None) -> str:
    """`12.3 ×`, `0.99 s`; a dash where nothing was measured."""
    if value is None:
        return "–"
    return f"{_number(value)} ×" if mark.over else figure(mark.of, value)


def figure(name: str, value: float) -> str:
    """By the unit that the figure's name ends with."""
    if name.endswith("_bytes") or name == "bytes":
        return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value:,.0f} B"
    if name.endswith(("_share", "share")):
        return f"{value:.2%}"
    if name.endswith(("seconds", "_s")):
        return f"{_number(value)} s" if value >= 0.1 or not value else f"{_number(value * 1000)} ms"
    return f"{value:,.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head."""
    rows = [lines[0], ["-" * max(3, len(cell)) for cell in lines[0]], *lines[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def marks_table(results: Sequence[Result]) -> str:
    """What was asked for and what was measured, a mark a line."""
    lines = [["measure", "mark", "measured", "reached"]]
    for result in results:
        for mark in result.marks:
            value = mark.value(result.samples)
            limit = f"{'≥' if mark.least else '≤'} {shown(mark, mark.limit)}"
            reached = "not measured" if value is None else "yes" if mark.reached(value) else "**no**"
            lines.append([f"{result.title}: {mark.text}", limit, shown(mark, value), reached])
    return grid(lines)


def case_table(result: Result) -> str:
    """Everybody's figures: the median, and in brackets the worst where rounds differ."""
    names = [*dict.fromkeys(name for each in result.samples for name in each.figures)]
    lines = [["", "runs", *(name.removesuffix("_s").replace("_", " ") for name in names)]]
    for who in result.contestants:
        runs = sum(each.who == who for each in result.samples)
        lines.append([who, str(runs), *(_cell(name, result.values(who, name)) for name in names)])
    lines += [[who, "0", why, *[""] * (len(names) - 1)] for who, why in result.absent.items() if names]
    if not names:
        return "\n".join(f"{who}: {why}" for who, why in result.absent.items())
    return grid(lines)


def _cell(name: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    median, worst = figure(name, statistics.median(values)), figure(name, max(values))
    return median if median == worst else f"{median} ({worst})"


def summary(result: Result) -> str:
    """A case as text: its title with the bucket, everybody's figures, then its marks."""
    lines = [f"### {result.title}", "", f"{result.bucket}.", "", case_table(result), ""]
    for mark in result.marks:
        value = mark.value(result.samples)
        reached = "not measured" if value is None else "reached" if mark.reached(value) else "**not reached**"
        limit = f"{'≥' if mark.least else '≤'} {shown(mark, mark.limit)}"
        lines.append(f"- {mark.text}: {shown(mark, value)}, mark {limit}: {reached}")
    lines += [f"- **{each.who}: {each.broken}**" for each in result.samples if each.broken]
    look = " A short form, not a measurement." if result.quick else ""
    machine = f"load average {result.load:.1f} at the end, the proxy at most {result.proxy_cpu:.0%} of a core"
    lines.append(f"- {result.date}, {machine}.{look}")
    return "\n".join(lines)
