"""The process of a worker: spawned with one stream, killed at any time, and reaped when it is gone.

Nothing waits for its end longer than it wants to: a process that touches a mount may stay in the kernel after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MINIMAL_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
EXIT_GRACE_S = 0.1  # a killed worker that is not in the kernel is gone in a few ms: not worth calling it stuck


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One process; `gone` is set once it has been reaped, `killed_at` (monotonic) once it was killed."""

    process: subprocess.Popen[bytes]
    pidfd: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    when_gone: Callable[[WorkerProcess], None]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    killed_at: float | None = None
    before_reaped: Callable[[], Awaitable[None]] | None = None
    reaping: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        script: Path,
        environment: Mapping[str, str],
        *,
        longest_line: int,
        when_gone: Callable[[WorkerProcess], None] = lambda worker: None,
        packages: bool = False,
        before_reaped: Callable[[], Awaitable[None]] | None = None,
    ) -> WorkerProcess:
        """Runs `script` with `environment` and nothing else; `longest_line`: bytes of a line that it sends.

        `packages`: it may import what is installed, and starts more slowly for it. `when_gone` is called as soon as it
        is reaped. `before_reaped` is awaited when it has ended; until that is done its number is nobody else's.

        Raises OSError.
        """
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=longest_line)
                undo.callback(writer.close)
                process = _spawn(script, theirs.fileno(), environment, packages=packages)
            undo.callback(_drop, process)
            pidfd = os.pidfd_open(process.pid)
            undo.callback(os.close, pidfd)
            worker = cls(process, pidfd, reader, writer, when_gone, before_reaped=before_reaped)
            asyncio.get_running_loop().add_reader(pidfd, worker._has_ended)
            undo.pop_all()
        return worker

    def send(self, message: Mapping[str, object]) -> None:
        """As one line; `writer.drain` waits until it is taken."""
        self.writer.write(json.dumps(message).encode("ascii") + b"\n")

    def kill(self) -> None:
        """Tells the process to go, once; whether and when it does is seen by `gone`."""
        if self.killed_at is None and not self.gone.is_set():
            self.killed_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    async def is_gone(self, limit_s: float) -> bool:
        """Whether it was reaped within the limit."""
        try:
            async with asyncio.timeout(max(limit_s, 0)):
                await self.gone.wait()
        except TimeoutError:
            pass
        return self.gone.is_set()

    def _has_ended(self) -> None:
        if self.before_reaped is None:
            self._reap()
            return
        asyncio.get_running_loop().remove_reader(self.pidfd)
        self.reaping = asyncio.create_task(self._reap_after(self.before_reaped))

    async def _reap_after(self, before: Callable[[], Awaitable[None]]) -> None:
        try:
            await before()
        finally:
            self._reap()

    def _reap(self) -> None:
        if self.process.poll() is None:
            return
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.writer.close()
        self.gone.set()
        self.when_gone(self)


def _spawn(script: Path, stream: int, environment: Mapping[str, str], *, packages: bool) -> subprocess.Popen[bytes]:
    # Not asyncio's subprocess: its child watcher brings threads or waits of its own; a pidfd needs neither.
    return subprocess.Popen(
        [sys.executable, "-I", *([] if packages else ["-S"]), "-X", "utf8", str(script)],
        stdin=stream,
        stdout=stream,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=dict(environment),
        start_new_session=True,
    )


def _drop(process: subprocess.Popen[bytes]) -> None:
    """Ends one that nobody watches, and that has never been asked anything."""
    process.kill()
    asyncio.get_running_loop().call_later(EXIT_GRACE_S, process.poll)  # no zombie stays
