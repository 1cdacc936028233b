"""The link of one model: placed where the configuration has it, moved with that, taken away, put back after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import structlog

from mountd.model import link
from mountd.model.drift import LinkKind

log = structlog.get_logger()


class KeptLink:
    """Knows what mountd itself has placed, so that nothing of somebody else is taken for it."""

    def __init__(self, model: str, path: Path, check_way: Callable[[Path], None]) -> None:
        """`check_way` raises LinkBlocked for a path where no link may be made."""
        self._check_way = check_way
        self.path = path
        """where the configuration has it"""
        self.target: str | None = None
        """where mountd has pointed it"""
        self._former: list[Path] = []
        self._placed: Path | None = None
        """where it was placed in this life, so that it can be kept true"""
        self._log = log.bind(model=model)

    @property
    def is_placed(self) -> bool:
        """Placed in this life, and where the configuration has it now."""
        return self._placed == self.path

    def move(self, path: Path) -> None:
        """The configuration has it elsewhere; the former one goes once the new one is placed."""
        self._former.append(self.path)
        self.path = path

    def place(self, target: str) -> None:
        """Then the links of a former configuration go, as far as they are still ours. Raises LinkBlocked."""
        ours = {target, self.target}
        self._check_way(self.path)
        link.point(self.path, target)
        self._placed, self.target = self.path, target
        while self._former:
            former = self._former.pop()
            if former != self.path and link.read(former) in ours:
                with contextlib.suppress(link.LinkBlocked):
                    link.remove(former)
                    self._log.info("former link removed", link=str(former))

    def leave(self, target: str) -> None:
        """It is to point at `target`, and is left as somebody has made it."""
        self._placed, self.target = self.path, target

    def take_away(self) -> None:
        """What is no link is not ours, and stays. Raises LinkBlocked."""
        link.remove(self.path)
        self.target = None

    def is_changed(self, target: str) -> bool:
        """Somebody has removed what was placed, or pointed it to neither `target` nor where it was placed at."""
        seen = link.look(self.path)
        if seen.kind is LinkKind.NOTHING:
            return self.is_placed
        return seen.kind is LinkKind.LINK and seen.detail not in (target, self.target)

    def restore(self, failed: str, live: str | None) -> bool:
        """At a start: a link at the target `failed` goes back to the target `live`; whether it had to.

        None: nothing was live, so no link stays. Raises LinkBlocked.
        """
        if live == failed or link.read(self.path) != failed:
            return False
        if live is None:
            self.take_away()
        else:
            self._check_way(self.path)
            link.point(self.path, live)
        return True
