"""What `doctor` tries: an empty store in memory, mounted by rclone and FUSE as the daemon uses them, and unmounted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Collection

from mountd.cli.examine import Check, is_for_others
from mountd.errors import MountdError
from mountd.fuse import rights, table, unmount
from mountd.fuse.watch import read_table
from mountd.i18n import M_
from mountd.process.child import Child, spawn
from mountd.process.tool import MINIMAL_PATH
from mountd.rclone.binary import Binary
from mountd.rclone.exits import LastOutput, explain, refusal
from mountd.rclone.log import parse
from mountd.settings.schema import Settings

WHERE = M_("mounting")
LIMIT_S = 10.0
UNMOUNT_S = 5.0
KILL_S = 2.0
LOOK_S = 0.02
TEMPORARY = os.path.realpath(tempfile.gettempdir())
"""The kernel's table of mounts names real paths."""


async def checks(binary: Binary | None, before: Collection[Check], settings: Settings) -> list[Check]:
    """None where a check `before` shows already that it must fail."""
    if binary is None or any(check.result == "fail" for check in before):
        return []
    return [await try_mount(binary, allow_other=is_for_others(settings))]


async def try_mount(binary: Binary, *, allow_other: bool) -> Check:
    """In a directory of its own, which is removed; nothing on it is touched."""
    directory = tempfile.mkdtemp(prefix="mountd-doctor-", dir=TEMPORARY)
    try:
        return await _try(binary, directory, allow_other=allow_other)
    except (OSError, MountdError) as error:
        text = M_("cannot try a mount: {cause}", cause=str(error))
        return Check(WHERE, "fail", text, M_("look at the machine's limits, and at rclone itself"))
    finally:
        with contextlib.suppress(OSError):  # still mounted: an empty directory is left behind
            os.rmdir(directory)


async def _try(binary: Binary, directory: str, *, allow_other: bool) -> Check:
    said = LastOutput()

    def hear(line: str) -> None:
        said.add(parse(line), time.monotonic(), logged=line.startswith("{"))

    words = ["mount", ":memory:", directory, "--config=", "--use-json-log", "--devname=mountd-doctor", "--read-only"]
    argv = [str(binary.path), *words, *(["--allow-other"] if allow_other else [])]
    environment = {"PATH": os.environ.get("PATH", MINIMAL_PATH), "HOME": directory, "LANG": "C.UTF-8"}
    child = spawn(argv, environment, hear)
    try:
        if await _is_mounted(child, directory):
            well = M_("rclone can mount with FUSE")
            return Check(
                WHERE, "ok", M_("rclone can mount with FUSE, for other users as well") if allow_other else well
            )
        exited = child.exit
    finally:
        if table.at(read_table(), directory) is not None:
            await unmount.unmount(directory, timeout_s=UNMOUNT_S)
        child.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):  # one stuck in the kernel is left behind
            async with asyncio.timeout(KILL_S):
                await child.wait()
        child.release()
    if exited is None:
        late = M_("rclone does not mount within {limit:g} s", limit=LIMIT_S)
        return Check(WHERE, "fail", late, M_("`dmesg` may show an error of FUSE in the kernel"))
    text = said.text(time.monotonic())
    if helper := refusal(text):
        found = rights.explain_refusal(helper, rights.look())
    else:
        found = explain(exited.code, str(exited), text, "NAME", obstacle=exited.obstacle)
    return Check(WHERE, "fail", found.text, found.hint)


async def _is_mounted(child: Child, directory: str) -> bool:
    """Also False when it has exited, or the time is over."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and child.exit is None:
        if table.at(read_table(), directory) is not None:
            return True
        await asyncio.sleep(LOOK_S)
    return False
