"""Runs mountd with a witness of every path that its own process touches: `witness.py LOG DIRECTORY WORDS…`.

Whatever the process (any of its threads) opens, lists, stats or changes below DIRECTORY is written to LOG with the
place in the code. Children are other processes: what they touch is their business.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

LOG, WATCHED = sys.argv[1], os.path.abspath(sys.argv[2])
STATS = ("stat", "lstat", "access", "statvfs", "readlink", "chmod", "getxattr", "utime")
log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def note(what: str, path: Any) -> None:
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and (path == WATCHED or path.startswith(f"{WATCHED}/")):
        place = "".join(traceback.format_stack(limit=6)[:-2])
        os.write(log, f"{what} {path}\n{place}\n".encode())


def audited(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" or event.startswith(("os.", "shutil.", "glob.")):
        # What a link points to is text; only the link itself is touched.
        for argument in arguments[1:2] if event == "os.symlink" else arguments[:2]:
            note(event, argument)


def witnessed(name: str) -> None:
    """No audit event reports these."""
    original = getattr(os, name)

    def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
        note(name, path)
        return original(path, *arguments, **keywords)

    setattr(os, name, call)


for each in STATS:
    witnessed(each)
sys.addaudithook(audited)
sys.argv = ["mountd", *sys.argv[3:]]

from mountd.cli.main import main  # noqa: E402

main()
