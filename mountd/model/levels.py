"""How much of a model's versions is on this machine, and the loading of what is asked for beyond their names."""

from __future__ import annotations

from collections.abc import Callable

from mountd.errors import Refused
from mountd.model.content import Content
from mountd.model.loading import Loader
from mountd.model.loads import Loads
from mountd.settings.schema import LEVELS, Level, ModelSettings
from mountd.status.load import LoadHistory, LoadStatus
from mountd.warm.results import WarmProgress

Progress = Callable[[WarmProgress], None]


class Levels:
    def __init__(
        self,
        loader: Loader,
        settings: Callable[[], ModelSettings],
        show: Callable[[LoadStatus | None, LoadHistory], None],
    ) -> None:
        self.loader = loader
        self._settings = settings
        self.loads = Loads(show)
        self._read: dict[str, str] = {}
        """version → its digest as its data were read and checked; what was read stays in the cache over a remount"""
        self.first: Callable[[], Level] = lambda: settings().warm.level
        """the level that an app waits for"""

    def of(self, content: Content) -> Level:
        """What has been reached."""
        pinned = self.loader.versions.pinned(content.version)
        if pinned is not None and pinned.digest == content.digest:
            return "pin"
        return "data" if self._read.get(content.version) == content.digest else "metadata"

    def shown(self, content: Content) -> Level | None:
        """As `of`, also of a copy that differs from what the bucket holds; None while not even its names are loaded."""
        level, versions = self.of(content), self.loader.versions
        if versions.pinned(content.version) is not None:
            return "pin"
        has_names = versions.warmed_on(content.version) == versions.mount.restarts
        return level if level != "metadata" or has_names else None

    def has(self, content: Content, level: Level) -> bool:
        return LEVELS.index(self.of(content)) >= LEVELS.index(level)

    async def reach(
        self, content: Content, level: Level, progress: Progress | None = None, *, check: bool = False
    ) -> None:
        """Loads what is lacking; its names are loaded. `progress` is that of an operation, and hears of bytes of the
        whole version.

        `check`: what is here already is read and hashed once more, and what is damaged is fetched again. Raises Refused
        for bytes that differ from the manifest in the bucket too and for lack of room, Unavailable.
        """
        if level == "metadata" or (self.has(content, level) and not check):
            return
        is_pinned = self.of(content) == "pin"
        level = "pin" if is_pinned else level

        with self.loads.follow(content.version, level, by_operation=progress is not None) as show:

            def report(found: WarmProgress) -> None:
                show(found)
                if progress is not None:
                    progress(found)

            if is_pinned and await self._is_whole(content, report):
                return
            if level == "pin":
                await self.loader.pin(content, self._settings(), report)
            else:
                await self.loader.read_ahead(content, self._settings(), report)
                self._read[content.version] = content.digest

    async def _is_whole(self, content: Content, report: Progress) -> bool:
        """Hashes its pinned copy. Raises Refused when it is damaged, and the bucket cannot be asked for it."""
        try:
            await self.loader.check_pinned(content, report)
        except Refused:
            if self.loader.versions.is_pinned_copy(content):
                raise
            return False
        return True
