"""A daemon whose cache has a small disk of its own, and files in the bucket that nobody has read."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.s3 import RcloneS3
from tests.support.wait import until

# The product tries a cache again that was well for 10 minutes.
QUICK_RETURN = """
import sys
from mountd.cache import bypass
from mountd.cli.main import main
bypass.HOLD_S = 10.0
sys.exit(main())
"""
SEEN_S = 45.0
"""The cache is looked at each 5 s, and on a busy machine a little later."""
FILES = 4
FILE_BYTES = 3_000_000


def remove_in_use(directory: Path) -> None:
    """A cache, although its rclone may write to it meanwhile."""

    def removed() -> bool:
        try:
            shutil.rmtree(directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            return False
        return True

    until(removed, SEEN_S, "the cache to be removed")


def make_unread(store: RcloneS3) -> Path:
    """0, 1, 2, …"""
    directory = store.directory / hub.BUCKET / "more"
    directory.mkdir()
    for number in range(FILES):
        (directory / str(number)).write_bytes(os.urandom(FILE_BYTES))
    return directory


def read(daemon: Daemon, number: int) -> bytes:
    return (daemon.mount / "more" / str(number)).read_bytes()


def refusal(daemon: Daemon, number: int) -> int:
    """The error that reading this file gives, 0 if none."""
    try:
        read(daemon, number)
    except OSError as error:
        return error.errno or -1
    return 0


def pids(status: dict[str, Any]) -> tuple[int, int]:
    return status["mounts"]["storage"]["pid"], status["apps"]["webui"]["pid"]


def assert_all_right(daemon: Daemon, unread: Path) -> None:
    for number in range(FILES):
        assert read(daemon, number) == (unread / str(number)).read_bytes()
