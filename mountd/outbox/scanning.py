"""One look at everything in the directory of an outbox, page by page.

There may be any number of files there, most of them uploaded long ago. The process remembers some of them; what has
become of the others is in the daemon's journal, which is asked page by page. So memory stays bounded, and no file waits
because others fill it. Used in the worker's process: knows only the standard library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence

from mountd.outbox.settling import FileLook, Settling
from mountd.outbox.tree import Inotify, WatchedTree

Page = list[tuple[str, FileLook]]
MOST_AT_ONCE = 500
"""Files of a page."""
MOST_KNOWN = 10_000
"""Files after which a page ends that has less: between two pages other work is done."""


class Scan:
    def __init__(self, root: int, tree: WatchedTree, settling: Settling, inotify: Inotify | None) -> None:
        """`root`: the open directory, which `close` closes."""
        self.root, self._tree, self._settling, self._inotify = root, tree, settling, inotify
        self.began = time.monotonic()
        self.files = 0
        self.unseen = settling.paths()
        """files that were remembered before, and not met so far"""
        self._page: Page = []
        self._pages = self._look()
        settling.is_full = False
        tree.begin()

    def next(self, new: Sequence[int]) -> Page | None:
        """Files that are not remembered; None: that was all. `new`: which of the page before nobody knows as they are.

        Raises OSError.
        """
        now, unknown = time.monotonic(), set(new)
        for at, (path, look) in enumerate(self._page):
            if at in unknown:
                self._settling.look(path, look, now)
            else:
                self._settling.remember(path, look)
        page = next(self._pages, None)
        self._page = page or []
        return page

    def close(self) -> None:
        self._pages.close()
        os.close(self.root)

    def _look(self) -> Generator[Page]:
        page: Page = []
        for path, look in self._tree.files(self.root, self._inotify):
            self.files += 1
            self.unseen.discard(path)
            if path in self._settling:
                self._settling.look(path, look, time.monotonic())
            elif not self._settling.is_full:
                page.append((path, look))
            if len(page) == MOST_AT_ONCE or self.files % MOST_KNOWN == 0:
                yield page
                page = []
        if page:
            yield page
