"""Samples → figures, the marks they must reach, and a table; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds until it was noticed and until all served again; None where the fault has no such moment.

    `broken` is the promise that was not kept, in words. `errors` are reads that failed on the way, `struck` the answers
    of the store that were refused or broken, where that is the fault.
    """

    detected_s: float | None = None
    serving_s: float | None = None
    app_restarted: bool = False
    bytes_lost: int = 0
    errors: int = 0
    struck: int = 0
    broken: str = ""


class AppAfter(StrEnum):
    """What must become of the app in a fault."""

    STAYS = "stays"
    RESTARTED = "restarted"


def judged(sample: Sample, app: AppAfter | None) -> Sample:
    """With what became of the app as a promise; None where the fault says nothing about it."""
    if sample.broken or app is None or sample.app_restarted == (app is AppAfter.RESTARTED):
        return sample
    return replace(sample, broken=f"the app {'was' if sample.app_restarted else 'was not'} restarted")


@dataclass(frozen=True, slots=True)
class Mark:
    """`share` of the runs must need `limit_s` seconds at most."""

    of: Literal["detected_s", "serving_s"]
    limit_s: float
    share: float = 1.0

    def __str__(self) -> str:
        name = self.of.removesuffix("_s")
        return f"{name} ≤ {self.limit_s:g} s" + (f" in {self.share:.0%} of the runs" if self.share < 1 else "")

    def missed(self, samples: Sequence[Sample]) -> bool:
        values = _values(samples, self.of)
        kept = sum(value <= self.limit_s for value in values)
        return not values or kept < math.floor(self.share * len(values))


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one fault."""

    fault: str
    samples: tuple[Sample, ...]
    marks: tuple[Mark, ...]
    load: float
    """the machine's load average over the last minute when it ended"""

    @property
    def missed(self) -> tuple[str, ...]:
        """Every promise that was not kept; empty when all is as it must be."""
        found = [str(mark) for mark in self.marks if mark.missed(self.samples)]
        if lost := sum(sample.bytes_lost for sample in self.samples):
            found.append(f"{lost} bytes lost")
        return (*found, *dict.fromkeys(sample.broken for sample in self.samples if sample.broken))

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault,
            "runs": len(self.samples),
            "detected_s": _figures(self.samples, "detected_s"),
            "serving_s": _figures(self.samples, "serving_s"),
            "app_restarts": sum(sample.app_restarted for sample in self.samples),
            "bytes_lost": sum(sample.bytes_lost for sample in self.samples),
            "errors": sum(sample.errors for sample in self.samples),
            "struck": sum(sample.struck for sample in self.samples),
            "load": round(self.load, 1),
            "marks": [asdict(mark) for mark in self.marks],
            "missed": list(self.missed),
            "samples": [asdict(sample) for sample in self.samples],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Row:
        samples = tuple(Sample(**sample) for sample in document["samples"])
        return cls(document["fault"], samples, tuple(Mark(**mark) for mark in document["marks"]), document["load"])


def _values(samples: Sequence[Sample], of: str) -> list[float]:
    return [value for sample in samples if (value := getattr(sample, of)) is not None]


def _figures(samples: Sequence[Sample], of: str) -> dict[str, float] | None:
    values = _values(samples, of)
    if not values:
        return None
    return {"median": round(statistics.median(values), 2), "worst": round(max(values), 2)}


HEAD = ("fault", "runs", "detected: median", "worst", "serving again: median", "worst", "app restarted", "bytes lost")


def table(rows: Sequence[Row]) -> str:
    """For people and for Markdown; seconds."""
    lines = [HEAD, tuple("-" * len(name) for name in HEAD), *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    document = row.as_json()
    seconds = []
    for name in ("detected_s", "serving_s"):
        figures = document[name]
        seconds += [f"{figures[key]:.2f} s" if figures else "" for key in ("median", "worst")]
    restarts = document["app_restarts"]
    restarted = {0: "no", document["runs"]: "yes"}.get(restarts, f"in {restarts} of {document['runs']}")
    return (row.fault, str(document["runs"]), *seconds, restarted, str(document["bytes_lost"]))
