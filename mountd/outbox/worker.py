"""Touches the directory of an outbox for the daemon, in a process that may be killed: JSON lines in and out.

Run as `python -I -S -X utf8 worker.py` with one stream as stdin and stdout; ends with that stream. The first line says
what is to be watched:

    {"directory": "/srv/outputs", "settle_s": 5, "include": ["*"], "exclude": [".*"]}

Then each line asks for something, and is answered with its id: {"id": 7, "error": {"errno": 13, "text": "…"}} where it
fails, else

    {"id": 1, "do": "scan"}       → {"id": 1, "seen": [[path, look], …], "root": "2"}     files that it does not know
    {"id": 1, "do": "scan on", "new": [0, 7]}   the first and the eighth of them are new, of the others all is known
                                  → the next page, and at last {"id": 1, "root": "2", "files": 9, "free": 1, "total": 2,
                                     "full": false, "unread": ["d"], "skipped": 0, "first_skipped": ""}
    {"id": 7, "do": "room"}       → {"id": 7, "free": 1, "total": 2}
    {"id": 2, "do": "hash", "path": "a.wav", "look": [size, mtime_ns, inode, ctime_ns]}
                                  → {"id": 2, "sha256": …, "md5": …, "fd": 5}   the file stays open until it is released
                                    {"id": 2, "is": "gone" | "changed"}
    {"id": 3, "do": "check", "of": 2}     → {"id": 3, "look": [size, …]}        what was hashed was in the file then
                                            {"id": 3, "look": null}             it holds something else, or is not open
    {"id": 4, "do": "release", "of": 2}   → {"id": 4}
    {"id": 5, "do": "remove", "path": …, "look": …}   → {"id": 5, "is": "removed" | "gone" | "changed"}
    {"id": 6, "do": "missing", "paths": […]}          → {"id": 6, "paths": […]} those that are not there

Without being asked it sends {"found": [[path, look], …], "root": "2"} with files that are finished, {"gone": [path, …]}
with files that had been found and are there no more, {"unfinished": 3} when that changes, {"stirred": true} when a scan
is due because directories were moved or removed, and {"alive": …} while it reads much. `root` is the directory's inode.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

if __name__ == "__main__":
    sys.path.insert(0, __file__.removesuffix("/mountd/outbox/worker.py"))

from mountd.outbox import removal, tree
from mountd.outbox.hashing import FileReading, Message, failed
from mountd.outbox.scanning import MOST_AT_ONCE, Scan
from mountd.outbox.settling import FileLook, Settling

MOST_FILES = 100_000
"""Files that are not finished, and finished ones, that are kept in memory; see `scanning`."""
ALIVE_S = 2.0
SETTLING_STEP_S = 0.05
SOON_S = 1.0
"""After a directory was moved or removed: one scan for all that happens then."""
SCANS_TAKE = 0.1
"""The largest share of the time for these scans: an app may move directories as often as it likes."""
MOST_OF_A_NEW_ONE = 10_000
"""Entries of a directory that appears: what is more waits for such a scan."""
WRITERS_S = 1.0
MOST_SHOWN = 200
"""Characters of a path that is only shown."""

_output = threading.Lock()


def emit(message: Message) -> None:
    line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
    try:
        with _output:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except OSError:
        os._exit(0)  # nobody is left to hear it


class OutboxWorker:
    def __init__(self, directory: str, settle_s: float, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._directory = directory
        self._settle_s = settle_s
        self._settling = Settling(settle_s, MOST_FILES)
        self._unfinished = 0
        self._alive_at = 0.0
        self._tree = tree.WatchedTree(include, exclude, self._goes_on)
        self._scan: Scan | None = None
        self._scan_s = 0.0
        self._root_inode = 0
        self._device = 0
        self._writers, self._writers_at = tree.Writers(0), -WRITERS_S
        self._rescan_at: float | None = None
        self._hashing = FileReading(self._known_root, emit)
        try:
            self._inotify: tree.Inotify | None = tree.Inotify()
        except OSError:  # the user's limit is reached: only the scan of each minute finds files
            self._inotify = None

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self, rest: bytes) -> None:
        """Until the end of stdin, of which `rest` was read already."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify.descriptor, select.POLLIN)
        data, alive_at, last = b"", 0.0, -1
        while True:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._asked(json.loads(line))
            now = time.monotonic()
            if self._rescan_at is not None and self._rescan_at <= now and self._scan is None:
                self._rescan_at = None
                emit({"stirred": True})
            self._settle(time.monotonic())
            if self._hashing.under_way and now >= alive_at and self._hashing.bytes_read != last:
                alive_at, last = now + ALIVE_S, self._hashing.bytes_read
                emit({"alive": last})
            ready = {number for number, _ in poll.poll(self._pause_ms())}
            if self._inotify is not None and self._inotify.descriptor in ready:
                self._happened(self._inotify.read())
            data = os.read(0, tree.BUFFER_BYTES) if 0 in ready else b""
            if 0 in ready and not data:
                return

    def _pause_ms(self) -> float | None:
        """Until there is something to do; None: only when something happens."""
        rescan_at = self._rescan_at if self._scan is None else None
        due = [at for at in (self._settling.next_due(), rescan_at) if at is not None]
        if self._hashing.under_way:
            due.append(time.monotonic() + ALIVE_S)
        return None if not due else 1000 * max(SETTLING_STEP_S, min(due) - time.monotonic())

    def _asked(self, message: Message) -> None:
        if not self._hashing.takes(message):
            self._answer(message)

    def _answer(self, message: Message) -> None:
        try:
            answer = self._do(message)
        except OSError as error:
            answer = failed(error)
        if "id" in message:
            emit({"id": message["id"], **answer})

    def _do(self, message: Message) -> Message:
        match message["do"]:
            case "scan":
                self._begin_scan()
                return self._scan_on([])
            case "scan on":
                return self._scan_on(message["new"])
            case "room":
                with self._known_root() as root:
                    return _room(root)
            case "check":
                return {"look": self._hashing.look(message["of"])}
            case "release":
                self._hashing.release(message["of"])
                return {}
            case "remove":
                with self._known_root() as root:
                    return {
                        "is": removal.remove(root, message["path"], FileLook(*message["look"]), self._seen_writers())
                    }
            case "missing":
                with self._known_root() as root:
                    return {"paths": [path for path in message["paths"] if tree.look_at(root, path) is None]}
        raise ValueError(f"unknown: {message['do']!r}")

    @contextlib.contextmanager
    def _opened_root(self) -> Iterator[int]:
        """Not kept open, so that its disk can be unmounted. Raises OSError."""
        root = tree.open_root(self._directory)
        try:
            yield root
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _known_root(self) -> Iterator[int]:
        """Of the last scan: what is not in another directory at its place is not gone. Raises OSError."""
        with self._opened_root() as root:
            if os.fstat(root).st_ino != self._root_inode:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            yield root

    def _seen_writers(self) -> tree.Writers:
        """Where only /proc shows them, it is not read for each file."""
        if (now := time.monotonic()) - self._writers_at > WRITERS_S:
            self._writers, self._writers_at = tree.Writers(self._device), now
        return self._writers

    # -- finding --------------------------------------------------------------------------------------------------

    def _goes_on(self) -> None:
        """Says so while much is looked at, whether or not it belongs to the outbox."""
        if (now := time.monotonic()) >= self._alive_at:
            self._alive_at = now + ALIVE_S
            emit({"alive": 0})

    def _begin_scan(self) -> None:
        """Raises OSError when the directory cannot be read: then nothing counts as gone."""
        self._end_scan()
        self._alive_at = time.monotonic() + ALIVE_S
        root = tree.open_root(self._directory)
        about = os.fstat(root)
        if about.st_ino != self._root_inode:
            # Another directory, or another disk, lies at its place: what was in the former one is not lost.
            self._settling = Settling(self._settle_s, MOST_FILES)
        self._root_inode, self._device = about.st_ino, about.st_dev
        self._scan = Scan(root, self._tree, self._settling, self._inotify)

    def _scan_on(self, new: Sequence[int]) -> Message:
        """The next page, or what came of all of them. Raises OSError."""
        if (scan := self._scan) is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        try:
            page = scan.next(new)
            if page is not None:
                return {"seen": page, "root": str(self._root_inode)}
            gone = {path for path in scan.unseen if self._is_gone(scan.root, path)}
            room = _room(scan.root)
        except OSError:
            self._end_scan()
            raise
        self._end_scan()
        self._tree.unwatch_unseen(self._inotify)
        self._forget(gone)
        self._scan_s = time.monotonic() - scan.began
        return {
            "root": str(self._root_inode),
            "files": scan.files,
            **room,
            "full": self._settling.is_full,
            "unread": [_shown(directory) for directory in self._tree.unread],
            "skipped": self._tree.skipped,
            "first_skipped": _shown(self._tree.first_skipped),
        }

    def _end_scan(self) -> None:
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.close()

    def _happened(self, events: Sequence[tuple[int, int, str]]) -> None:
        for number, mask, name in events:
            directory = self._tree.watched.get(number)
            if mask & tree.IN_Q_OVERFLOW or (
                directory is not None and mask & (tree.IN_DELETE_SELF | tree.IN_MOVE_SELF | tree.IN_UNMOUNT)
            ):
                self._rescan_soon()
            elif mask & tree.IN_IGNORED:
                self._tree.watched.pop(number, None)
            elif directory is not None and name:
                self._entry(f"{directory}/{name}" if directory else name, mask)

    def _entry(self, path: str, mask: int) -> None:
        """Something has happened to it."""
        try:
            if not mask & tree.IN_ISDIR:
                if self._tree.belongs(path) and self._tree.fits(path):
                    with self._opened_root() as root:
                        self._look(root, path)
            elif mask & (tree.IN_MOVED_FROM | tree.IN_DELETE):
                self._rescan_soon()  # what lay below may lie elsewhere now
            elif self._tree.enters(path) and self._tree.fits(path):
                self._tree.is_full = False
                with self._opened_root() as root:
                    for below, look in self._tree.files(root, self._inotify, path, MOST_OF_A_NEW_ONE):
                        self._see(below, look)
                if self._tree.is_full:
                    self._rescan_soon()
        except OSError:
            self._rescan_soon()

    def _rescan_soon(self) -> None:
        if self._rescan_at is None:
            self._rescan_at = time.monotonic() + max(SOON_S, self._scan_s / SCANS_TAKE)

    def _look(self, root: int, path: str) -> FileLook | None:
        """At one file that may have changed. Raises OSError."""
        look = tree.look_at(root, path)
        if look is None:
            # What is gone because another directory lies at the place of ours is for the scan to judge.
            if os.fstat(root).st_ino == self._root_inode:
                self._forget({path})
            else:
                self._settling.forget(path)
        else:
            self._see(path, look)
        return look

    def _see(self, path: str, look: FileLook) -> None:
        self._settling.look(path, look, time.monotonic())

    def _is_gone(self, root: int, path: str) -> bool:
        self._goes_on()
        try:
            return tree.look_at(root, path) is None
        except OSError:
            return False

    def _forget(self, paths: set[str]) -> None:
        gone = sorted(path for path in paths if self._settling.forget(path))
        for at in range(0, len(gone), MOST_AT_ONCE):
            emit({"gone": gone[at : at + MOST_AT_ONCE]})

    def _settle(self, now: float) -> None:
        if due := self._settling.due(now, MOST_AT_ONCE):
            found: list[tuple[str, FileLook]] = []
            writers = tree.Writers(self._device)
            try:
                with self._known_root() as root:
                    for path, known in due:
                        if self._is_finished(root, path, known, writers, now):
                            self._settling.finish(path)
                            found.append((path, known))
            except OSError:  # the directory has gone away, or is another one: the next scan says so
                for path, _ in due:
                    self._settling.busy(path, now)
            if found:
                emit({"found": found, "root": str(self._root_inode)})
        if self._settling.unfinished != self._unfinished:
            self._unfinished = self._settling.unfinished
            emit({"unfinished": self._unfinished})

    def _is_finished(self, root: int, path: str, known: FileLook, writers: tree.Writers, now: float) -> bool:
        try:
            if self._look(root, path) != known:
                return False  # it has changed, or is gone
            file = tree.open_file(root, path)
            try:
                if not writers.have(file):
                    return True
            finally:
                os.close(file)
        except PermissionError:
            return True  # that it cannot be read is said when it is hashed
        except OSError:
            pass
        self._settling.busy(path, now)  # tried again after the same time
        return False


def _room(root: int) -> Message:
    found = os.fstatvfs(root)
    return {"free": found.f_bavail * found.f_frsize, "total": found.f_blocks * found.f_frsize}


def _shown(path: str) -> str:
    return path if len(path) <= MOST_SHOWN else f"{path[:MOST_SHOWN]}…"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when a program opens a file on which we hold a lease
    try:
        request = b""
        while b"\n" not in request and (data := os.read(0, tree.BUFFER_BYTES)):
            request += data
        first, _, rest = request.partition(b"\n")
        given = json.loads(first)
        OutboxWorker(given["directory"], given["settle_s"], given["include"], given["exclude"]).run(rest)
    except (ConnectionError, ValueError, KeyError):
        pass  # nobody is left to report to


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing to tidy up
