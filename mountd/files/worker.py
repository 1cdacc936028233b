"""Touches files on behalf of the daemon, in a process that may be killed: JSON lines in, JSON lines out.

Run as `python -I -S -X utf8 worker.py` with one stream as stdin and stdout; ends with that stream. One request at a
time: `{"id": 1, "op": "statfs", "path": "/mnt/x"}` is answered by `{"id": 1, "ok": …}` or, with the kernel's errno (0
when the failure was not the kernel's), by `{"id": 1, "errno": 2, "error": "No such file or directory"}`.

It knows only the standard library and nothing of mountd, because its imports are its whole start time. A death signal
for the parent's end is not asked for: that needs ctypes, which costs more than everything else here, and the end of
stdin says the same to a worker that can still run. One that is stuck in the kernel is found by its environment.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
import signal
import stat as modes
import sys
from collections import deque
from collections.abc import Generator

TYPE_CHECKING = False  # importing typing costs more than all else here
if TYPE_CHECKING:
    from concurrent.futures import Future

READ_LIMIT = 16 * 1024 * 1024
ANSWER_LIMIT = 32 * 1024 * 1024  # the client refuses a longer line, and then would have to replace the worker
HASH_BLOCK = 1024 * 1024
HASHES = 4
WALKS = 16
"""Digests and walks under way at once; one that was left is given up for a new one."""

STATS_AT_ONCE = 4
"""Of a walk: a mount of 5,000 files takes 0.43 s with one thread, 0.19 s with 4, no less with 8."""
STATS_TOGETHER = 16
STATS_AHEAD = 64
"""So many parts of so many files are asked about before the next directory is read."""

Request = dict[str, object]


def whole(request: Request, name: str) -> int:
    """The whole, non-negative number that a request carries under `name`."""
    value = request[name]
    if not isinstance(value, int) or value < 0:
        raise OSError(errno.EINVAL, f"{name} is not a whole number")
    return value


def statfs(path: str, request: Request) -> object:
    os.statvfs(path)
    return None


def list_directory(path: str, request: Request) -> object:
    limit = whole(request, "limit")
    entries: list[dict[str, str]] = []
    truncated = False
    with os.scandir(path) as found:
        for entry in found:
            if len(entries) == limit:
                truncated = True
                break
            kind = type_of(entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False))
            entries.append({"name": entry.name, "type": kind})
    entries.sort(key=lambda item: item["name"])
    return {"entries": entries, "truncated": truncated}


def type_of(is_file: bool, is_directory: bool) -> str:
    if is_file:
        return "file"
    return "directory" if is_directory else "other"


def stat_all(path: str, request: Request) -> object:
    """One answer for each of `paths`, in order; a path that fails does not spoil the others."""
    paths = request["paths"]
    if not isinstance(paths, list):
        raise OSError(errno.EINVAL, "paths is not a list")
    return [stat_one(str(one)) for one in paths]


def stat_one(path: str) -> dict[str, object]:
    try:
        it = os.stat(path)
    except (OSError, ValueError) as error:
        return failure(error)
    return {"size": it.st_size, "type": type_of(modes.S_ISREG(it.st_mode), modes.S_ISDIR(it.st_mode))}


def real_path(path: str, request: Request) -> object:
    return os.path.realpath(path)


def read(path: str, request: Request) -> object:
    offset, length = whole(request, "offset"), whole(request, "length")
    if length > READ_LIMIT:
        raise OSError(errno.EINVAL, f"more than {READ_LIMIT} bytes asked for")
    data = bytearray()
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(data) < length:
            piece = os.pread(handle, length - len(data), offset + len(data))
            if not piece:
                break
            data += piece
    finally:
        os.close(handle)
    return {"data": binascii.b2a_base64(data, newline=False).decode("ascii"), "bytes": len(data)}


class Hashing:
    """A file that is being read for its digest, a piece at a time: it stays open, so that reading ahead goes on."""

    def __init__(self, path: str) -> None:
        import hashlib  # 2 ms that most workers never need

        self.sha256 = hashlib.sha256()
        self.stream = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the last piece)
        self.bytes = 0

    def advance(self, length: int) -> bool:
        """Whether that was the end of the file."""
        view = memoryview(bytearray(HASH_BLOCK))
        goal = self.bytes + length
        while self.bytes < goal:
            count = self.stream.readinto(view[: goal - self.bytes])
            if not count:
                self.stream.close()
                return True
            self.sha256.update(view[:count])
            self.bytes += count
        return False


_hashing: dict[int, Hashing] = {}


def digest(path: str, request: Request) -> object:
    """The next `length` bytes of the digest `key`, `from` the byte where its last piece ended."""
    key, begin = whole(request, "key"), whole(request, "from")
    if begin == 0:
        while len(_hashing) >= HASHES:
            _hashing.pop(next(iter(_hashing))).stream.close()
        _hashing[key] = Hashing(path)
    it = _hashing.get(key)
    if it is None or it.bytes != begin:  # it was begun in a worker that is no more, or was given up
        raise OSError(errno.ESTALE, "the digest has to be begun again")
    try:
        done = it.advance(whole(request, "length"))
    except OSError:
        _hashing.pop(key).stream.close()
        raise
    if done:
        del _hashing[key]
    return {"sha256": it.sha256.hexdigest() if done else None, "bytes": it.bytes}


class Walking:
    """A directory that is being walked, a piece at a time; what is found is written to a local file, a line each."""

    def __init__(self, root: str, to: str) -> None:
        self.files = 0
        self.found = found_below(root)
        self.out = open(to, "w", encoding="ascii")  # noqa: SIM115 (closed with the last piece)

    def advance(self, count: int) -> bool:
        """Whether that was all."""
        for _ in range(count):
            line = next(self.found, None)
            if line is None:
                self.out.close()
                return True
            self.files += 1
            self.out.write(line)
        return False

    def close(self) -> None:
        self.found.close()
        self.out.close()


def found_below(root: str) -> Generator[str, None, None]:
    """A line `["path", bytes]` for each file, links followed; not for what cannot be opened by its name."""
    from concurrent.futures import Future, ThreadPoolExecutor  # no other request needs it

    def ask(part: list[str]) -> Future[list[str]]:
        try:
            return pool.submit(lines_of, root, part)
        except RuntimeError:  # no thread is to be had
            done = Future[list[str]]()
            done.set_result(lines_of(root, part))
            return done

    pool = ThreadPoolExecutor(STATS_AT_ONCE)
    pending, asked = [""], deque["Future[list[str]]"]()
    try:
        while pending or asked:
            while pending and len(asked) < STATS_AHEAD:
                above = pending.pop()
                names: list[str] = []
                with os.scandir(f"{root}/{above}") as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{above}{entry.name}/")
                        else:
                            names.append(above + entry.name)
                parts = (names[at : at + STATS_TOGETHER] for at in range(0, len(names), STATS_TOGETHER))
                asked.extend(map(ask, parts))
            if asked:
                yield from asked.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def lines_of(root: str, paths: list[str]) -> list[str]:
    """See found_below."""
    lines = []
    for path in paths:
        try:
            it = os.stat(f"{root}/{path}")
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP):
                continue
            raise
        if modes.S_ISREG(it.st_mode):
            lines.append(f"{json.dumps([path, it.st_size])}\n")
    return lines


_walking: dict[int, Walking] = {}


def walk(path: str, request: Request) -> object:
    """The next `count` files of the walk `key` into the file `to`, `from` the number where its last piece ended."""
    key, begin = whole(request, "key"), whole(request, "from")
    if begin == 0:
        while len(_walking) >= WALKS:
            _walking.pop(next(iter(_walking))).close()
        _walking[key] = Walking(path, str(request["to"]))
    it = _walking.get(key)
    if it is None or it.files != begin:  # it was begun in a worker that is no more, or was given up
        raise OSError(errno.ESTALE, "the walk has to be begun again")
    try:
        done = it.advance(whole(request, "count"))
    except Exception:
        _walking.pop(key).close()
        raise
    if done:
        del _walking[key]
    return {"files": it.files, "done": done}


OPERATIONS = {
    "statfs": statfs,
    "list": list_directory,
    "stat": stat_all,
    "real_path": real_path,
    "read": read,
    "hash": digest,
    "walk": walk,
}


def failure(error: Exception) -> dict[str, object]:
    if isinstance(error, OSError):
        return {"errno": error.errno or 0, "error": error.strerror or str(error)}
    if isinstance(error, ValueError):  # a path with a NUL in it, which the kernel never sees
        return {"errno": errno.EINVAL, "error": str(error)}
    return {"errno": 0, "error": f"{type(error).__name__}: {error}"}


def answer(line: bytes) -> bytes:
    request: Request = json.loads(line)
    number = request["id"]
    try:
        operation = OPERATIONS[str(request["op"])]
        reply: dict[str, object] = {"ok": operation(str(request.get("path", "")), request)}
    except Exception as error:  # whatever it was, the asker gets an answer and the worker stays
        reply = failure(error)
    text = json.dumps({"id": number, **reply}, separators=(",", ":"))
    if len(text) >= ANSWER_LIMIT:
        text = json.dumps({"id": number, "errno": errno.EMSGSIZE, "error": "answer too long: ask for less"})
    return text.encode("ascii") + b"\n"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        while line := requests.readline():
            answers.write(answer(line))
            answers.flush()
    except ConnectionError:
        pass  # nobody is left to answer
    os._exit(0)  # nothing to tidy up, so no time to spend on it


if __name__ == "__main__":
    main()
