"""The kernel's side of a mount: how many questions it has put to rclone that are not answered yet."""

from __future__ import annotations

import contextlib
import os

from mountd.errors import MountdError
from mountd.fuse.unmount import FUSE_CONNECTIONS
from mountd.process import tool


async def unanswered(minor: int | None, timeout_s: float) -> int | None:
    """For the mount with this device number; None where fusectl is not mounted, as in containers."""
    path = f"{FUSE_CONNECTIONS}/{minor}/waiting"
    if minor is None or not os.access(path, os.R_OK):
        return None
    # In a child: the kernel takes a lock that is also held while a FUSE file system is being mounted.
    with contextlib.suppress(MountdError, ValueError):
        return int((await tool.run(["cat", path], timeout_s=timeout_s)).output)
    return None
