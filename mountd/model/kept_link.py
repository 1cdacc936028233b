"""The link of one model: placed where the configuration has it, moved with that, removed, put back after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import structlog

from mountd.model import drift, link
from mountd.model.drift import LinkBlocked, LinkKind, WantedLink
from mountd.model.link_guard import LinkGuard
from mountd.status.snapshot import DriftStatus

log = structlog.get_logger()


class KeptLink:
    """Knows what mountd itself has placed, so that it never takes the link of somebody else for its own."""

    def __init__(
        self,
        model: str,
        path: Path,
        check_path: Callable[[Path], None],
        policy: Callable[[], tuple[bool, bool]],
        show: Callable[[DriftStatus], None],
    ) -> None:
        """`check_path` raises LinkBlocked for a path where no link may be made. `policy`: whether automatic changes are
        suspended, and whether a changed link is healed."""
        self.path = path
        """where the configuration has it"""
        self.target: str | None = None
        """where mountd has pointed it"""
        self.guard = LinkGuard(model, self.wanted, show, check_path)
        self._model = model
        self._check_path = check_path
        self._policy = policy
        self._former: list[Path] = []
        self._placed: Path | None = None
        """where this run of mountd placed it, so that the guard can keep it"""
        self._moving = False
        self._log = log.bind(model=model)

    async def run(self) -> None:
        """Keeps it, until cancelled."""
        await self.guard.run(lambda: self.path)

    @property
    def is_placed(self) -> bool:
        """This run of mountd placed it, and where the configuration has it now."""
        return self._placed == self.path

    def wanted(self) -> WantedLink | None:
        """What the guard keeps; None while an operation has the link, or nothing is live."""
        if self._moving or self.target is None or not self.is_placed:
            return None
        return WantedLink(self.path, self.target, *self._left_alone(self.target))

    def _left_alone(self, target: str) -> tuple[str, str]:
        return drift.left_alone(self._model, self.path, target, *self._policy())

    def is_to_be_left(self, target: str) -> bool:
        """Somebody has changed the link, and it is not healed: a start-up does not do it either."""
        return bool(self._left_alone(target)[0]) and self.is_changed(target)

    def is_changed(self, target: str) -> bool:
        """Somebody has removed what was placed, or pointed it to neither `target` nor where it was placed at."""
        found = link.look(self.path)
        if found.kind is LinkKind.NOTHING:
            return self.is_placed
        return found.kind is LinkKind.LINK and found.detail not in (target, self.target)

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """For an operation, from its first step that changes something: the guard leaves the link alone."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False
            self.guard.wake()

    def move(self, path: Path) -> None:
        """The configuration has it elsewhere; the former link goes once the new one is placed."""
        self._former.append(self.path)
        self.path = path

    def place(self, target: str) -> None:
        """Removes then the links of a former configuration that mountd placed. Raises LinkBlocked."""
        ours = {target, self.target}
        self._check_path(self.path)
        link.point(self.path, target)
        self._placed, self.target = self.path, target
        while self._former:
            former = self._former.pop()
            if former != self.path and link.read(former) in ours:
                with contextlib.suppress(LinkBlocked):
                    link.remove(former)
                    self._log.info("former link removed", link=str(former))
        self.guard.placed(self.path, target)

    def leave(self, target: str) -> None:
        """It should point at `target`, and stays as somebody has made it."""
        self._placed, self.target = self.path, target

    def take_away(self) -> None:
        """Leaves what is no link: that is not ours. Raises LinkBlocked."""
        link.remove(self.path)
        self.target = None

    def restore(self, failed: Collection[str], live: str | None) -> bool:
        """At a start: points a link at one of the targets `failed` back to the target `live`; False: it did not point
        there.

        None: nothing was live, so no link stays. Raises LinkBlocked.
        """
        if live in failed or link.read(self.path) not in failed:
            return False
        if live is None:
            self.take_away()
        else:
            self._check_path(self.path)
            link.point(self.path, live)
        return True
