"""Alarms that a previous run of mountd reported: which of them are open, and which are over now.

What this run sees begin and end is in `events.between`. What was healed by the restart itself, or while mountd was
down, never changes in this run: it ends once its object is seen to be well. Alarms of outboxes and of targets of
notifications are not among them: these recall theirs themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mountd import codes
from mountd.codes import CODES, OF
from mountd.status import readiness
from mountd.status.events import Happening
from mountd.status.snapshot import Health, Snapshot, State

Alarm = tuple[str, str]
"""Its code, and its object."""
RECOVERED = "recovered"


def open_after(events: Iterable[Happening]) -> frozenset[Alarm]:
    """`events`: what the journal has of alarms and their ends, oldest first."""
    found: set[Alarm] = set()
    for event in events:
        found = {alarm for alarm in found if not _ends(event, alarm)}
        if CODES[event.code].healed_by:
            found.add((event.code, event.object))
    return frozenset(found)


def without(alarms: frozenset[Alarm], news: Iterable[Happening]) -> frozenset[Alarm]:
    """Those that the news of this run neither end nor report again."""
    for event in news:
        alarms = frozenset(each for each in alarms if each != (event.code, event.object) and not _ends(event, each))
    return alarms


def healed(alarms: frozenset[Alarm], now: Snapshot) -> list[Happening]:
    """The ends of those whose object is seen to be well; one event may end several."""
    found: list[Happening] = []
    for code, object_ in sorted(alarms):
        if any(_ends(event, (code, object_)) for event in found):
            continue
        for end in CODES[code].healed_by:
            if end in _IS_WELL and _IS_WELL[end](object_, now):
                text = f"{code} of {object_} is over: mountd was restarted meanwhile"
                found.append(Happening(end, object_, text, {OF: code} if end == RECOVERED else None))
                break
    return found


def _ends(event: Happening, alarm: Alarm) -> bool:
    code, object_ = alarm
    return event.object == object_ and codes.ends(event.code, (event.data or {}).get(OF), code)


def _is_ready(_: str, now: Snapshot) -> bool:
    return readiness.is_ready(now)


def _is_valid(source: str, now: Snapshot) -> bool:
    config = now.config
    return config.source == source and bool(config.loaded) and not config.problems and not config.incomplete


def _answers(remote: str, now: Snapshot) -> bool:
    """For each mount on it: any of their buckets may have been the one."""
    seen = [each.backend.health for each in now.mounts.values() if each.remote.partition(":")[0] == remote]
    return bool(seen) and all(health is Health.HEALTHY for health in seen)


def _mount_runs(name: str, now: Snapshot) -> bool:
    return name in now.mounts and now.mounts[name].state is State.RUNNING


def _app_runs(name: str, now: Snapshot) -> bool:
    return name in now.apps and now.apps[name].state is State.RUNNING


def _link_is_right(name: str, now: Snapshot) -> bool:
    return name in now.models and now.models[name].linked and now.models[name].drift.reason is None


def _content_is_right(name: str, now: Snapshot) -> bool:
    """It is compared before it is linked. A pinned version may go live before its bucket was looked at."""
    model = now.models.get(name)
    return model is not None and model.linked and not model.pinned and model.changed is None


def _is_read(name: str, now: Snapshot) -> bool:
    source = now.models[name].source if name in now.models else None
    return source is not None and source.is_known


def _lacks_nothing(object_: str, now: Snapshot) -> bool:
    """What is still missing is reported again while the mounts and models start."""
    return object_ == "mountd" and not now.lacks and readiness.is_serving_disk(now)


_IS_WELL: Mapping[str, Callable[[str, Snapshot], bool]] = {
    "ready": _is_ready,
    "config-reloaded": _is_valid,
    "bucket-answers": _answers,
    "mount-running": _mount_runs,
    "app-running": _app_runs,
    "link-healed": _link_is_right,
    "content-restored": _content_is_right,
    "desired-read": _is_read,
    RECOVERED: _lacks_nothing,
}
"""By the code that ends an alarm: whether its object is seen to be well."""
