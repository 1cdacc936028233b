"""The running demos of a user, one small file each, so that `mountd status` finds a demo by itself.

The reader is `mountd.client.find`, which also says where the files are: it must start fast. Standard library only.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from mountd.client.find import demo_directories
from mountd.clock import now_text
from mountd.errors import CannotStart, cause_of


def register(directory: str | Path, socket: str | Path, pid: int | None = None) -> Path:
    """Enter the demo of process `pid` (default: this one) and return its file, which `unregister` takes back.

    Raises CannotStart where another user owns the place.
    """
    pid = os.getpid() if pid is None else pid
    registry = Path(demo_directories()[0])
    try:
        registry.mkdir(mode=0o700, exist_ok=True)
        info = registry.lstat()
    except OSError as error:
        raise CannotStart(f"cannot register the demo in {registry}: {cause_of(error)}") from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise CannotStart(f"cannot register the demo: {registry} belongs to another user", hint=f"remove {registry}")
    registry.chmod(0o700)
    entry = {
        "pid": pid,
        "socket": str(socket),
        "directory": str(directory),
        "started": now_text("seconds"),
    }
    path = registry / f"{pid}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(entry) + "\n", "utf-8")
    temporary.replace(path)
    return path


def unregister(entry: Path) -> None:
    """Take back what `register` returned; it may be gone already."""
    entry.unlink(missing_ok=True)
