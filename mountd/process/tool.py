"""A short command run to its end: with a deadline, in a session of its own, killed when it overstays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mountd.errors import CommandTimeout, Unavailable, cause_of
from mountd.process import orphans
from mountd.process import user as user_script
from mountd.process.child import FLOOD_LINES, READ_BYTES, Exit, User, spawn
from mountd.process.resources import lack

MAX_OUTPUT_BYTES = 1024 * 1024
ALL_LINES = READ_BYTES
"""More than one read can hold, so that none is left out."""
_PROCESS = re.compile(r"[1-9][0-9]* ")
"""Begins a line of orphans.py."""
MINIMAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Outcome(Exit):
    """`code` and `output` are the command's own only if it was started."""

    output: str = ""


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    directory: str = "/",
    user: User | None = None,
    flood_lines: int = FLOOD_LINES,
) -> Outcome:
    """Its exit code and its output, both streams in one, at most 1 MiB kept. Raises Unavailable when it cannot be
    started, CommandTimeout when it has not ended after `timeout_s`.

    `flood_lines`: as for `spawn`; ALL_LINES where each line counts.
    """
    lines: list[str] = []
    size = 0

    def keep(line: str) -> None:
        nonlocal size
        size += len(line)
        if size <= MAX_OUTPUT_BYTES:
            lines.append(line)

    given = {"PATH": os.environ.get("PATH", MINIMAL_PATH), "LANG": "C.UTF-8"} if environment is None else environment
    try:
        child = spawn(argv, given, keep, directory=directory, user=user, flood_lines=flood_lines)
    except OSError as error:
        if (found := lack(error)) is not None:
            raise found from None
        raise Unavailable(f"cannot run {argv[0]}: {cause_of(error)}") from None
    try:
        async with asyncio.timeout(timeout_s):
            ended = await child.wait()
    except TimeoutError:
        raise CommandTimeout(
            f"cannot finish {argv[0]}: no end after {timeout_s:g} s", output="\n".join(lines)
        ) from None
    finally:
        child.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # one stuck in the kernel is left to the reaper
                await child.wait()
        child.release()
    return Outcome(ended.code, ended.not_started, "\n".join(lines))


async def end_orphans(instance: str, name: str | None = None, known: Sequence[str] = ()) -> list[str]:
    """Ends every process marked with `instance` (and `name`); `PID COMMAND` of each, without line ends. Raises
    Unavailable.

    `known` are words of orphans.py: how else those of `name` are recognised.
    """
    marks = [instance, *([name, *known] if name is not None else [])]
    output = await _ask(orphans, marks, "look for processes", orphans.PATIENCE_S + 2.0)
    # The dynamic linker may have said something as well.
    return [line for line in output.splitlines() if _PROCESS.match(line)]


async def find_user(name: str, *, timeout_s: float) -> User | None:
    """The user of that name, None when there is none. Raises Unavailable, also when there is no answer in time."""
    found = await _look_up(f"user {name}", [name], timeout_s)
    return found and User(found["name"], found["uid"], found["gid"], tuple(found["groups"]), found["home"])


async def find_group(name: str, *, timeout_s: float) -> int | None:
    """The id of the group of that name. As `find_user`."""
    found: int | None = await _look_up(f"group {name}", ["--group", name], timeout_s)
    return found


async def _look_up(what: str, words: Sequence[str], timeout_s: float) -> Any:
    try:
        output = await _ask(user_script, words, f"look up {what}", timeout_s)
    except CommandTimeout:
        raise Unavailable(f"cannot look up {what}: no answer in {timeout_s:g} s") from None
    answer = f"\n{output}".rpartition(f"\n{user_script.BEGINS}\n")[2]
    try:
        return json.loads(answer)
    except ValueError:
        raise Unavailable(f"cannot look up {what}: the answer is no JSON: {answer[:200]!r}") from None


async def _ask(script: ModuleType, words: Sequence[str], what: str, timeout_s: float) -> str:
    """What this module says when it is run. Raises Unavailable, CommandTimeout."""
    argv = [sys.executable, "-I", "-S", str(script.__file__), *words]
    outcome = await run(argv, timeout_s=timeout_s, flood_lines=ALL_LINES)
    if outcome.code != 0:
        last = outcome.output.rpartition("\n")[2]
        raise Unavailable(f"cannot {what}: {last or outcome}")
    return outcome.output
