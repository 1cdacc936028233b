"""A program that lives behind the link: `link_reader.py PLAN SLOT`, opens and reads through it until SIGTERM.

PLAN is a JSON file: `roots` (path → the one version it may hold, null: any), `digests` (file → sha256 → version),
`pause_s`, `counters` (a file of 8 bytes a reader, where it keeps the number of its rounds). A round opens a directory
handle at a root, pauses, so that the link may move meanwhile, reads every file below that handle, and then one of them
by its whole path. At the end it says as JSON what it did and what was wrong. Standard library only.
"""

import errno
import hashlib
import itertools
import json
import mmap
import os
import random
import signal
import sys
import time
from typing import Any

REPORTED = 20
BLOCK = 1 << 18


def digest(path: str, handle: int | None = None) -> str:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=handle)
    try:
        found = hashlib.sha256()
        while block := os.read(file, BLOCK):
            found.update(block)
        return found.hexdigest()
    finally:
        os.close(file)


class Reader:
    def __init__(self, plan: dict[str, Any], dice: random.Random) -> None:
        self.digests: dict[str, dict[str, str]] = plan["digests"]
        self.pause_s: float = plan["pause_s"]
        self.dice = dice
        self.said: dict[str, Any] = {"rounds": 0, "files": 0, "moved": 0, "versions": {}, "wrong": 0, "reported": []}

    def wrong(self, text: str) -> None:
        self.said["wrong"] += 1
        if len(self.said["reported"]) < REPORTED:
            self.said["reported"].append(text)

    def version(self, name: str, path: str, handle: int | None = None) -> str:
        """Of the bytes that a file holds; "" when no version has such bytes."""
        found = self.digests[name].get(digest(path, handle), "")
        self.said["files"] += 1
        if not found:
            self.wrong(f"{path}: bytes of no version")
        return found

    def round(self, root: str, only: str | None) -> None:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            before = os.readlink(root) if only is None else ""
            names = iter(self.digests)
            found = {self.version(name, name, handle) for name in itertools.islice(names, 1)}
            time.sleep(self.dice.uniform(0.0, 2 * self.pause_s))
            found |= {self.version(name, name, handle) for name in names}
            if only is None and os.readlink(root) != before:
                self.said["moved"] += 1
        finally:
            os.close(handle)
        if len(found) != 1:
            self.wrong(f"{root}: a mix of {sorted(found)} in one directory handle")
        one = self.dice.choice([*self.digests])
        found.add(self.version(one, os.path.join(root, one)))
        for version in found:
            self.said["versions"][version] = self.said["versions"].get(version, 0) + 1
            if only not in (None, version):
                self.wrong(f"{root}: holds files of {version or 'no version'}")


def main() -> None:
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    slot, dice = int(sys.argv[2]), random.Random(int(sys.argv[2]))
    with open(plan["counters"], "r+b") as file:
        counters = mmap.mmap(file.fileno(), 0)
    over: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    reader = Reader(plan, dice)
    for root, only in itertools.cycle(plan["roots"].items()):
        if over:
            break
        try:
            reader.round(root, only)
        except OSError as error:
            reader.wrong(f"{errno.errorcode.get(error.errno or 0, '?')} {root}: {error}")
        reader.said["rounds"] += 1
        counters[8 * slot : 8 * slot + 8] = reader.said["rounds"].to_bytes(8, "little")
    json.dump(reader.said, sys.stdout)


if __name__ == "__main__":
    main()
