"""How far something is, on stderr: on a terminal one line with a bar that is written over, elsewhere now and then a
line; and how an operation is named."""

from __future__ import annotations

import sys

from mountd.cli.labels import joined, word
from mountd.cli.terminal import can_move, say, write_over
from mountd.client.api import Document
from mountd.i18n import _

CHANGES = ("switch", "rollback")
SCHEDULE = "schedule"
SHORT_S = 2.0
"""A step that takes no longer needs no explanation."""
LONG_POLL_S = 20.0
BAR_COLUMNS = 20


def named(operation: Document) -> str:
    """`operation 7 (switch cache_hub v22 → v23)`."""
    return _("operation {id} ({what})").format(id=operation["id"], what=what(operation))


def pick_up(operation: Document) -> str:
    """How to wait for it again, and how to undo it."""
    wait = _("`mountd wait --for operation={id}` waits until it has finished").format(id=operation["id"])
    return joined([wait, _("`mountd cancel` undoes it")]) if operation.get("kind") in CHANGES else wait


def what(operation: Document) -> str:
    """`switch cache_hub v22 → v23`, `warm cache_hub v23`, `drill kill of storage`."""
    kind, model, to = operation.get("kind"), operation.get("model"), operation.get("to")
    if kind == "drill":
        return _("drill {fault} of {mount}").format(fault=to, mount=model)
    if kind == "warm":
        return f"{word('warm')} {model} {to}"
    if kind == SCHEDULE:
        return _("switch {model} to {version} at {time}").format(model=model, version=to, time=operation.get("due"))
    return f"{word(kind)} {model} {operation.get('from') or word('nothing')} → {to}"


class ProgressLine:
    """On a terminal one line that is written over, elsewhere a line for each step and each 20 s of one; on stderr."""

    def __init__(self) -> None:
        self.live = can_move(sys.stderr)
        self.interval_s = 1.0 if self.live else LONG_POLL_S
        self._last = ""
        self._shown: set[str] = set()

    def show(self, operation: Document) -> None:
        for sentence in operation.get("killed") or ():
            if sentence not in self._shown:
                self._shown.add(sentence)
                self.end()
                say(sentence, err=True)
        step = str(operation.get("step") or "")
        percent, eta_s = operation.get("percent"), operation.get("eta_s")
        shown, full = word(step), ""
        if percent is not None and self.live:
            full, rest = bar(percent)
            shown += f"  {full}{rest} {percent} %"
        elif percent:
            shown += f" {percent} %"
        line = f"{what(operation)}: {shown}"
        if rate := operation.get("bytes_per_s"):
            line += f"  {rate / 1e6:.0f} MB/s"
        if eta_s is not None:
            left = _("about {count} s left").format(count=f"{eta_s:.0f}")
            line += f"  {left}" if self.live else _(", ") + left
        line += _waiting(operation)
        if self.live:
            write_over(line, mark=full, colour="green")
        elif step and line != self._last:
            say(line, err=True)
        self._last = line

    def end(self) -> None:
        """Free the line for what comes next."""
        if self.live and self._last:
            write_over("")


def _waiting(operation: Document) -> str:
    """For which app the step waits, since when, how long at most, and what that said last."""
    app, step_s, limit_s = operation.get("waits_for"), operation.get("step_s"), operation.get("limit_s")
    if not app or step_s is None or step_s < SHORT_S:
        return ""
    since = f"{step_s:.0f}"
    time = _("{count} of at most {limit} s") if limit_s else _("{count} s")
    time = time.format(count=since, limit=f"{limit_s or 0:.0f}")
    said = f": {operation['said']}" if operation.get("said") else ""
    return f"  {joined([app, time])}{said}"


def bar(percent: float, width: int = BAR_COLUMNS) -> tuple[str, str]:
    """The part that is done, and the rest, `width` columns together."""
    full = round(min(max(percent, 0), 100) * width / 100)
    return "━" * full, "╌" * (width - full)
