"""Children of a test: what they say, and an end that leaves none."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mountd.process.child import Child, Exit, spawn
from tests.support.wait import until_async

SOON_S = 30.0
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


class Spawner:
    """Spawns children that end with the test."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.children: list[Child] = []

    def __call__(self, *argv: str, on_line: Callable[[str], None] | None = None, **more: Any) -> Child:
        child = spawn(argv, more.pop("environment", ENVIRONMENT), on_line or self.lines.append, **more)
        self.children.append(child)
        return child

    def sh(self, script: str, *words: str, **more: Any) -> Child:
        return self("/bin/sh", "-c", script, "sh", *words, **more)

    async def says(self, line: str) -> None:
        await until(lambda: line in self.lines, f"the line {line!r} in {self.lines[:20]}")


@asynccontextmanager
async def spawning() -> AsyncIterator[Spawner]:
    spawner = Spawner()
    yield spawner
    for child in spawner.children:
        child.signal(signal.SIGKILL)
        async with asyncio.timeout(SOON_S):
            await child.wait()
        child.release()


async def until(condition: Callable[[], object], what: str) -> None:
    await until_async(condition, SOON_S, what)


async def ended(child: Child) -> Exit:
    async with asyncio.timeout(SOON_S):
        return await child.wait()


def ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(mask >> (number - 1) & 1)
