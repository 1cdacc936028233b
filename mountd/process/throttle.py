"""Starts and commands the throttling proxy; it exits with its owner, and its fault ends before that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mountd.errors import Unavailable, cause_of

PROXY = Path(__file__).with_name("throttle_proxy.py")
START_LIMIT_S = 10.0
ANSWER_LIMIT_S = 5.0
CLOSE_LIMIT_S = 1.0
Fault = Literal["none", "slow", "offline"]


class Throttle:
    """One proxy on loopback, made by `start`. Every call raises Unavailable when it does not answer."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._reader, self._writer = reader, writer
        self._lock = asyncio.Lock()
        self._password = secrets.token_urlsafe(24)
        self._port = 0

    @classmethod
    async def start(cls, marks: Mapping[str, str]) -> Throttle:
        """`marks` make its environment, by which it is found again."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                process = _spawn(theirs, marks)
            except OSError as error:
                writer.close()
                raise Unavailable(f"cannot start a proxy: {cause_of(error)}") from None
        throttle = cls(process, reader, writer)
        try:
            throttle._port = (await throttle._ask({"password": throttle._password}, START_LIMIT_S))["port"]
        except BaseException:
            await throttle.close()
            raise
        return throttle

    @property
    def url(self) -> str:
        """With the password that keeps others of this machine from using it."""
        return f"http://mountd:{self._password}@127.0.0.1:{self._port}"

    async def set(self, fault: Fault, *, delay_s: float = 0.0) -> None:
        """`slow`: each request begins `delay_s` later; `offline`: nothing passes; from now on."""
        await self._ask({"fault": fault, "delay_s": delay_s})

    async def used_by(self, pid: int) -> None:
        """Should its owner die, it goes on, without a fault, as long as this process lives."""
        await self._ask({"client": pid})

    async def requests(self) -> int:
        """How many it has been asked to pass on so far."""
        return int((await self._ask({}))["requests"])

    async def _ask(self, request: Mapping[str, object], limit_s: float = ANSWER_LIMIT_S) -> dict[str, Any]:
        try:
            async with asyncio.timeout(limit_s), self._lock:
                self._writer.write(json.dumps(request).encode() + b"\n")
                answer: dict[str, Any] = json.loads(await self._reader.readline() or b"null")
        except (TimeoutError, OSError, ValueError):
            answer = {}
        if not answer:
            raise Unavailable("cannot use the proxy of the drill: it does not answer")
        return answer

    async def close(self) -> None:
        """Its client should have exited: its connections break."""
        self._process.kill()
        self._writer.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, CLOSE_LIMIT_S)


def _spawn(control: socket.socket, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(PROXY)],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=dict(environment),
        start_new_session=True,
    )
