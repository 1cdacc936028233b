"""What `status --watch` shows on a terminal of any size: the state, what moves, and what happened last.

A screen is a list of lines, none wider than the terminal and no more of them than it has. Where it is small, what
matters least goes: events first, then traffic, then layers that are well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from mountd.cli.labels import STEPS, UNDO, duration, joined, word
from mountd.cli.progress import CHANGES, bar, what
from mountd.cli.terminal import size
from mountd.cli.times import time_of
from mountd.cli.view import COLOURS, text
from mountd.cli.view_status import headline, lines, of_layer, pace, scheduled_line
from mountd.i18n import _

Document = dict[str, Any]
DAY_S = 86400.0
ROOMY = 20
"""Lines from which on there are empty ones between the parts."""
NARROW = 60
LEAST_EVENTS = 3
SPARKS = "▁▂▃▄▅▆▇█"
WELL = ("Healthy", "Suspended")
STALE_S = 5.0
"""An answer that is older is not what is so now."""


@dataclass(frozen=True, slots=True)
class ScreenData:
    """What the daemon said last, each part as soon as it said it; `failure` and `hint`: why it says nothing now.

    `answered`, `now`: seconds since 1970.
    """

    status: Document | None = None
    traffic: Document | None = None
    events: Sequence[Document] = field(default_factory=tuple)
    steps: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """by operation: those that it has begun"""
    failure: str = ""
    hint: str = ""
    answered: float = 0.0
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class ScreenPart:
    """Some lines of the screen; `least` of them are worth showing alone. Where not all fit, the first ones of `short`
    are shown instead, which has the most important ones first.

    `rank`: what is lower is kept longer where there is little room.
    """

    lines: Sequence[Text]
    rank: int
    least: int = 1
    short: Sequence[Text] = ()


def screen(seen: ScreenData, width: int, height: int) -> list[Text]:
    """The lines from top to bottom."""
    foot = [text(_("q: quit"), "dim")]
    head = [*_failure(seen)]
    if seen.status is None:
        head = head or [text(_("waiting for the daemon"), "dim")]
        return [_cut(line, width) for line in [*head, *foot][: max(1, height)]]
    head = [headline(seen.status), *head]
    parts = [
        ScreenPart(head, 0, len(head)),
        _layers(seen),
        ScreenPart([*_operations(seen, seen.status, width)], 2),
        ScreenPart([*_loads(seen.status, width)], 3),
        ScreenPart([*_traffic(seen, width)], 4),
        ScreenPart([*_events(seen)], 5, LEAST_EVENTS),
        ScreenPart(foot, 6),
    ]
    gap = 1 if height >= ROOMY else 0
    shown = _fitted([part for part in parts if part.lines], height, gap)
    return [_cut(line, width) for line in shown]


def _fitted(parts: Sequence[ScreenPart], height: int, gap: int) -> list[Text]:
    """As much of each part as there is room for, with `gap` empty lines between; the last part is at the bottom."""
    given: dict[int, int] = {}
    left = height
    for part in sorted(parts, key=lambda each: each.rank):
        needs = min(part.least, len(part.lines)) + (gap if given else 0)
        if needs > left:
            if not given:  # not even its first lines: some are better than none
                given[part.rank] = left
                left = 0
            continue
        given[part.rank] = needs - (gap if given else 0)
        left -= needs
    for part in sorted(parts, key=lambda each: each.rank):
        if part.rank in given:
            more = min(left, len(part.lines) - given[part.rank])
            given[part.rank] += more
            left -= more
    shown: list[Text] = []
    last = parts[-1].rank
    for part in parts:
        if not given.get(part.rank):
            continue
        if part.rank == last and len(given) > 1:
            shown += [Text()] * left
        if shown and gap:
            shown.append(Text())
        count = given[part.rank]
        shown += (part.lines if count == len(part.lines) else part.short or part.lines)[:count]
    return shown[:height]


def _failure(seen: ScreenData) -> Iterable[Text]:
    if not seen.failure:
        return
    away = _("no daemon answers, trying again")
    if seen.answered:
        away += " " + _("(the last answer is {time} old)").format(time=duration(max(0.0, seen.now - seen.answered)))
    yield text(away, "bold red")
    yield text(f"  {seen.failure}", "red")
    if seen.hint:
        yield text(f"  → {seen.hint}", "cyan")


# -- layers ------------------------------------------------------------------------------------------------------------


def _layers(seen: ScreenData) -> ScreenPart:
    """From the bucket to the app, each with its reasons below it."""
    assert seen.status is not None
    rows = [*lines(seen.status, seen.now)]
    reasons = list(seen.status.get("reasons") or [])
    columns = [_widest(word(row[at]) for row in rows) for at in range(3)]
    found: list[tuple[bool, list[Text]]] = []
    for layer, name, health, state in rows:
        mine, reasons = of_layer(reasons, layer, name)
        about = [_reason(each) for each in mine]
        about += [text(f"    → {each['hint']}", "cyan") for each in mine[:1] if each.get("hint")]
        line = Text()
        line.append("  " if health in WELL else "! ", style=COLOURS.get(health, ""))
        cells = ((word(layer), ""), (name, "bold"), (word(health), COLOURS.get(health, "")))
        for (cell, style), column in zip(cells, columns, strict=True):
            line.append_text(_padded(text(cell, style or "default"), column)).append("  ")
        found.append((health in WELL and not mine, [line.append_text(text(state, "default")), *about]))
    rest = [_reason(each) for each in reasons]
    in_order = [each for _well, several in found for each in several]
    bad = sum(len(several) for well, several in found if not well)
    urgent = [each for wanted in (False, True) for well, several in found if well is wanted for each in several]
    return ScreenPart([*in_order, *rest], 1, short=[*urgent[:bad], *rest, *urgent[bad:]])


def _reason(reason: Document) -> Text:
    line = text(f"    {reason.get('code')}: " if reason.get("code") else "    ", "bold yellow")
    return line.append_text(text(str(reason.get("text", "")).replace("\n", " "), "yellow"))


# -- what is being done ------------------------------------------------------------------------------------------------


def _operations(seen: ScreenData, status: Document, width: int) -> Iterable[Text]:
    for operation in status.get("operations") or ():
        who = _("by {who}").format(who=operation.get("operator"))
        name = _("operation {id}: {what}").format(id=operation.get("id"), what=what(operation))
        yield text(joined([name, who]), "bold cyan")
        yield _steps(operation, seen.steps.get(operation["id"], ()), width)
        if operation.get("percent") is not None:
            yield _bar_line(operation["percent"], joined(pace(operation)), width)
    yield from (text(scheduled_line(each), "cyan") for each in status.get("scheduled") or ())


def _steps(operation: Document, begun: Sequence[str], width: int) -> Text:
    """Those that are done, the present one, and those that may follow; where they do not fit, marks of what is done."""
    step = str(operation.get("step") or "")
    line = Text("  ")
    if operation.get("kind") not in CHANGES or (step not in STEPS and step not in UNDO):
        return line.append(f"▶ {word(step)}", style="bold")
    names: Sequence[str] = STEPS
    if step in UNDO:
        line.append(_("undoing: "), style="yellow")
        names = UNDO
    at = names.index(step)
    done = [name for name in names[:at] if name in begun or not begun]
    now_and_next = Text(f"▶ {word(step)}", style="bold")
    for name in names[at + 1 :]:
        now_and_next.append(f"  {word(name)}", style="not bold dim")
    marks = Text("".join(f"✓ {word(name)}  " for name in done), style="green")
    if line.cell_len + marks.cell_len + now_and_next.cell_len > width:
        marks = Text("✓" * len(done) + " " * bool(done), style="green")
    return line.append_text(marks).append_text(now_and_next)


def _loads(status: Document, width: int) -> Iterable[Text]:
    """What comes to this machine ahead of need, and what apps read at their start."""
    for name, model in (status.get("models") or {}).items():
        if loading := model.get("loading"):
            waits_for = loading.get("waits_for")
            facts = [
                f"{name} {loading['version']} ({word(loading['level'])})",
                *pace(loading)[1:],
                _("waits: {cause}").format(cause=waits_for) if waits_for else "",
            ]
            yield _bar_line(loading["percent"], _of(loading["percent"], loading["bytes_total"], facts), width)
        elif model.get("current") and (model.get("warmed_percent") or 0) < 100:
            percent = model.get("warmed_percent") or 0
            version = _("{model} {version}: warmed").format(model=name, version=model["current"])
            yield _bar_line(percent, f"{percent} %  {version}", width)
    for name, app in (status.get("apps") or {}).items():
        if (load := app.get("load")) and load.get("percent") is not None:
            facts = [_("{name} is loading").format(name=name), *pace(load)[1:]]
            yield _bar_line(load["percent"], _of(load["percent"], load["bytes_total"], facts), width)


def _of(percent: int, total: int, facts: Iterable[str]) -> str:
    whole = _("of {size}").format(size=size(total))
    return f"{percent} % {whole}  {joined(facts)}"


def _bar_line(percent: float, said: str, width: int) -> Text:
    full, rest = bar(percent, 20 if width < NARROW else 30)
    return Text("  ").append(full, style="green").append(rest, style="dim").append(f"  {said}")


# -- traffic -----------------------------------------------------------------------------------------------------------


def _traffic(seen: ScreenData, width: int) -> Iterable[Text]:
    mounts = (seen.traffic or {}).get("mounts") or {}
    names = _widest(mounts)
    sparks = max(0, min(30, (width - names - 60) // 2))
    for name, mount in mounts.items():
        line = _padded(text(name, "bold"), names)
        for sign, key, colour in (("↓", "fetched_bytes_per_s", "green"), ("↑", "uploaded_bytes_per_s", "magenta")):
            rates = mount.get(key) or [0.0]
            line.append(f"  {sign} {size(rates[-1])}/s".ljust(15))
            line.append(spark(rates[-sparks:] if sparks else ()), style=colour)
        used, most = (mount.get("cache_bytes") or [0])[-1], mount.get("cache_limit_bytes")
        line.append("  " + _("cache {size}").format(size=size(used)))
        if most:
            line.append(" " + _("of {size}").format(size=size(most)))
        yield line


def spark(values: Sequence[float]) -> str:
    """`▁▃█`: each of the values as a part of the largest."""
    most = max(values, default=0.0)
    if most <= 0:
        return SPARKS[0] * len(values)
    top = len(SPARKS) - 1
    return "".join(SPARKS[min(top, round(max(value, 0.0) / most * top))] for value in values)


# -- events ------------------------------------------------------------------------------------------------------------


def _events(seen: ScreenData) -> Iterable[Text]:
    """The newest first, since where there is little room the first ones stay."""
    if seen.events:
        yield text(_("Last events"), "dim")
    for event in reversed(seen.events):
        said = str(event["text"]).replace("\n", " ")
        shown = said if str(event["object"]) in said else f"{event['object']}: {said}"
        line = text(f"  {_clock(str(event['time']), seen.now)} ", "dim")
        yield line.append_text(text(f"{event['code']}: ", "bold")).append_text(text(shown, "default"))


def _clock(time: str, now: float) -> str:
    """Of a time of mountd the clock's part, before today's last 24 hours with the day; in UTC, as it is."""
    day, _sep, clock = time.partition("T")
    clock = clock.partition(".")[0].rstrip("Z") + "Z"
    return clock if 0 <= now - time_of(time) < DAY_S else f"{day[5:]} {clock}"


# -- cells -------------------------------------------------------------------------------------------------------------


def _widest(cells: Iterable[str]) -> int:
    return max((Text(cell).cell_len for cell in cells), default=0)


def _padded(cell: Text, width: int) -> Text:
    cell.append(" " * max(0, width - cell.cell_len))
    return cell


def _cut(line: Text, width: int) -> Text:
    made = line.copy()
    made.truncate(width, overflow="ellipsis")
    return made
