"""Wanted against live, for one model: its version, its link, the flags of rclone, and its processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mountd.status.snapshot import ModelStatus, Snapshot, State


@dataclass(frozen=True, slots=True)
class FlagDifference:
    """One flag of an rclone that runs; None: it has none of that name."""

    flag: str
    wanted: str | None
    live: str | None


@dataclass(frozen=True, slots=True)
class Compared:
    """`kind`: version, link, flags or process; `object`: the model, mount or app."""

    kind: str
    object: str
    wanted: str
    live: str

    @property
    def differs(self) -> bool:
        return self.wanted != self.live


def flag_differences(wanted: Sequence[str], live: Sequence[str]) -> tuple[FlagDifference, ...]:
    """Of two command lines of `rclone mount`, by the names of flags; what stands before them counts as `arguments`."""
    before, after = _flags(live), _flags(wanted)
    names = dict.fromkeys([*after, *before])
    return tuple(
        FlagDifference(name, after.get(name), before.get(name)) for name in names if after.get(name) != before.get(name)
    )


def _flags(argv: Sequence[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for word in argv:
        name, _, value = word.partition("=") if word.startswith("--") else ("arguments", "", word)
        found.setdefault(name, []).append(value)
    return {name: " ".join(values) for name, values in found.items()}


def compare(snapshot: Snapshot, name: str, flags: Mapping[str, Sequence[FlagDifference]]) -> list[Compared]:
    """`flags`: by mount, what differs there."""
    model = snapshot.models[name]
    wanted = model.source.version if model.source else model.desired
    live = model.current if model.linked else None
    found = [Compared("version", name, wanted or "unknown", live or "none"), _link(name, model)]
    different = flags.get(model.mount, ())
    found += [
        Compared("flags", model.mount, _flag(each.flag, each.wanted), _flag(each.flag, each.live)) for each in different
    ]
    if not different:
        found.append(Compared("flags", model.mount, "as configured", "as configured"))
    return [*found, *_processes(snapshot, name, model)]


def _flag(name: str, value: str | None) -> str:
    return "not set" if value is None else f"{name}={value}" if value else name


def _link(name: str, model: ModelStatus) -> Compared:
    wanted = model.target or "none"
    drifted = model.drift.reason is not None
    live = (model.drift.target or model.drift.reason.code) if drifted and model.drift.reason else wanted
    return Compared("link", name, f"{model.link} → {wanted}", f"{model.link} → {live}")


def _processes(snapshot: Snapshot, name: str, model: ModelStatus) -> Iterator[Compared]:
    if not model.pinned:
        yield Compared("process", model.mount, State.RUNNING, snapshot.mounts[model.mount].state)
    for app, status in snapshot.apps.items():
        if name in status.needs:
            wanted, has = model.current, status.versions.get(name)
            with_it = f" with {has}" if status.state is State.RUNNING and has else ""
            yield Compared("process", app, f"{State.RUNNING} with {wanted}", f"{status.state}{with_it}")
