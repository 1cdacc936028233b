"""Which paths may lie in which: a link and everything that mountd writes on local disk, one thing at one path; what is
adopted lies apart from both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePath

from mountd.settings.schema import Settings
from mountd.settings.source import Place, dotted
from mountd.settings.words import Finding


@dataclass(frozen=True, slots=True)
class _Spot:
    place: Place
    path: PurePath

    @property
    def name(self) -> str:
        return dotted(self.place)

    def is_in(self, other: _Spot) -> bool:
        """Equal counts."""
        return self.path.parts[: len(other.path.parts)] == other.path.parts


def check_paths(settings: Settings) -> Iterator[Finding]:
    """Pure: compares paths as they are written, follows no symlink."""
    mounts = [_Spot(("mounts", name, "path"), mount.path) for name, mount in settings.mounts.items()]
    caches = [_Spot(("mounts", name, "cache", "dir"), mount.cache.dir) for name, mount in settings.mounts.items()]
    links = [_Spot(("models", name, "link"), model.link) for name, model in settings.models.items()]
    own = [
        _Spot(("state",), settings.state),
        _Spot(("runtime",), settings.runtime),
        _Spot(("control", "socket"), settings.control.socket),
    ]
    for spot in [*mounts, *links]:
        if spot.path == Path("/"):
            yield Finding(spot.place, "must not be /")
    mounts = [spot for spot in mounts if spot.path != Path("/")]
    links = [spot for spot in links if spot.path != Path("/")]
    yield from _apart(mounts)
    yield from _apart(caches)
    yield from _apart(links)
    local = [*links, *caches, *own, *_files(settings)]
    for mount in mounts:
        for spot in local:
            if spot.is_in(mount):
                yield Finding(spot.place, f"must be on local disk, but lies in {mount.name} ({mount.path})")
        for spot in [*links, *caches]:
            if mount.is_in(spot) and mount.path != spot.path:
                yield Finding(mount.place, f"must not lie in {spot.name} ({spot.path})")
    for link in links:
        for spot in [*caches, *own]:
            if spot.is_in(link):
                yield Finding(link.place, f"is replaced at every switch, but {spot.name} ({spot.path}) lies there")
    for name, model in settings.models.items():
        for index, path in enumerate(model.warm.adopt):
            adopted = _Spot(("models", name, "warm", "adopt", index), path)
            yield from _adopted(adopted, [*mounts, *caches, own[0]], links)
    yield from _outboxes(settings, [*mounts, *caches, *own], links)


def _outboxes(settings: Settings, others: list[_Spot], links: list[_Spot]) -> Iterator[Finding]:
    outboxes = [_Spot(("outbox", name, "directory"), each.directory) for name, each in settings.outbox.items()]
    for outbox in outboxes:
        if outbox.path == Path("/"):
            yield Finding(outbox.place, "must not be /")
        else:
            yield from _adopted(outbox, others, links)
    yield from _apart([each for each in outboxes if each.path != Path("/")])


def _adopted(adopted: _Spot, others: list[_Spot], links: list[_Spot]) -> Iterator[Finding]:
    """mountd reads such a directory, or that of an outbox, from end to end: no mount may lie in it, which can hang, and
    nothing that rclone or mountd writes itself, its pinned versions among them."""
    for spot in others:
        if adopted.is_in(spot):
            yield Finding(adopted.place, f"must not lie in {spot.name} ({spot.path})")
        elif spot.is_in(adopted):
            yield Finding(
                adopted.place, f"must not hold {spot.name} ({spot.path}): name the directories of the files alone"
            )
    for link in links:
        if adopted.is_in(link):
            yield Finding(adopted.place, f"must not lie in {link.name} ({link.path}), which leads to the live version")


def _apart(spots: list[_Spot]) -> Iterator[Finding]:
    for first, second in combinations(spots, 2):
        if first.path == second.path:
            yield Finding(second.place, f"is the same path as {first.name} ({first.path})")
        elif second.is_in(first):
            yield Finding(second.place, f"must not lie in {first.name} ({first.path})")
        elif first.is_in(second):
            yield Finding(first.place, f"must not lie in {second.name} ({second.path})")


def _files(settings: Settings) -> Iterator[_Spot]:
    """Files that the daemon itself reads: a hung mount must never hang the daemon."""
    for place, reference in settings.secrets():
        if reference.file is not None:
            yield _Spot((*place, "file"), reference.file)
    if settings.rclone.binary is not None:
        yield _Spot(("rclone", "binary"), settings.rclone.binary)
