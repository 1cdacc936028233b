"""Clients of the TCP port that hold on, are slow or send without end: others are answered, memory stays bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from mountd.api.connections import MAX_CONNECTIONS
from tests.support.admitted import LINES, OPERATOR
from tests.support.asking import Asking
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = pytest.mark.fuse

CLIENTS = 1000
OTHER_DESCRIPTORS = 150
"""What the daemon has open beside connections to the port, at most."""
GROWTH_MIB = 120
ANSWER_S = 20.0
"""Within that a probe is answered, also on a busy machine."""
STREAM = b"GET /api/v1/events?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class Probed:
    """A daemon that a thread asks, on its socket and on its port."""

    daemon: Daemon = field(repr=False)
    pid: int
    before_mib: float
    slowest_s: float = 0.0
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    most_descriptors: int = 0
    most_mib: float = 0.0
    thread: threading.Thread = field(init=False, repr=False)
    over: threading.Event = field(default_factory=threading.Event, repr=False)

    def begin(self) -> None:
        """To ask all the time."""
        self.thread = threading.Thread(target=self._look_on, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.over.set()
        self.thread.join(2 * ANSWER_S)

    def _look_on(self) -> None:
        while not self.over.wait(0.05):
            self.look()

    def look(self) -> None:
        """Asks each once, as a probe, Prometheus and a command do."""
        asking = Asking(self.daemon)
        for way, path in (
            (asking.unix, "/api/v1/status"),
            (asking.tcp, "/healthz"),
            (asking.tcp, "/readyz"),
            (asking.tcp, "/metrics"),
        ):
            began = time.monotonic()
            try:
                status = way("GET", path).status
            except OSError as error:
                status = 0
                self.failures.append(f"{path}: {error!r}")
            if status not in (0, 200):
                self.failures.append(f"{path}: {status}")
            self.answered += status == 200
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.most_descriptors = max(self.most_descriptors, len(os.listdir(f"/proc/{self.pid}/fd")))
        self.most_mib = max(self.most_mib, mib(self.pid))

    def assert_unharmed(self) -> None:
        self.end()
        print(self)
        assert self.failures == []
        assert self.answered >= 8
        assert self.slowest_s < ANSWER_S
        assert self.most_descriptors < 2 * MAX_CONNECTIONS + OTHER_DESCRIPTORS
        assert self.most_mib - self.before_mib < GROWTH_MIB
        status = self.daemon.status()
        assert (status["ready"], status["pid"]) == (True, self.pid)
        assert "Traceback" not in self.daemon.own_log_text()
        assert len(self.daemon.own_log_text()) < 200_000


def mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


@pytest.fixture
def probed(make_daemon: Callable[..., Daemon]) -> Iterator[Probed]:
    """Asked until the test ends; this process may open many files meanwhile."""
    daemon = make_daemon()
    tokens = daemon.root / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(LINES)
    daemon.config["http"]["tokens"] = {"file": str(tokens)}
    pid = daemon.start_ready()["pid"]
    found = Probed(daemon, pid, 0.0)
    found.look()  # what is imported by the first answer is not the clients' doing
    found.before_mib = mib(pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    found.begin()
    try:
        yield found
    finally:
        found.end()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connect(probed: Probed) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(ANSWER_S):
        return await asyncio.open_connection("127.0.0.1", probed.daemon.http_port)


async def is_open(reader: asyncio.StreamReader) -> bool:
    """Whether a stream that nothing is written to has not ended."""
    try:
        async with asyncio.timeout(1.0):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


async def attack(count: int, client: Callable[[int], Awaitable[None]], seconds: float, *, pause_s: float = 0.05) -> int:
    """So many clients at once, each again after a pause whenever it ends, for so long → how many there were."""
    deadline, ended = time.monotonic() + seconds, 0

    async def repeatedly(number: int) -> None:
        nonlocal ended
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    await client(number)
            ended += 1
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(repeatedly(number) for number in range(count)))
    return ended


def test_a_thousand_open_event_streams(probed: Probed) -> None:
    """The oldest yield; the newest get each event."""

    async def hold() -> None:
        held = []
        for _ in range(CLIENTS):
            reader, writer = await connect(probed)
            writer.write(STREAM)
            held.append((reader, writer))
        until_looked(probed, 3)
        Asking(probed.daemon).post("/api/v1/pause", reason="to be seen by all")
        reader, _ = held[-1]
        async with asyncio.timeout(ANSWER_S):
            while b"to be seen by all" not in await reader.readline():
                assert not reader.at_eof(), "the newest stream was cut"
        Asking(probed.daemon).post("/api/v1/resume")
        open_ones = sum(await asyncio.gather(*(is_open(reader) for reader, _ in held)))
        assert 1 <= open_ones <= MAX_CONNECTIONS
        for _, writer in held:
            writer.transport.abort()

    asyncio.run(hold())
    until_looked(probed, 1)
    probed.assert_unharmed()
    fds = Path(f"/proc/{probed.pid}/fd")
    until(lambda: len(os.listdir(fds)) < OTHER_DESCRIPTORS, ANSWER_S, "the connections to be closed")
    assert probed.daemon.stop() == 0


def until_looked(probed: Probed, times: int) -> None:
    """The thread has asked all of them so often, begun after this."""
    wanted = probed.answered + 4 * (times + 1)
    until(lambda: probed.answered >= wanted or probed.failures, 60.0, "the daemon to be asked")


@pytest.mark.thorough
def test_a_thousand_event_streams_whose_clients_connect_again(probed: Probed) -> None:
    """After a second, as browsers do."""

    async def follow(_: int) -> None:
        reader, writer = await connect(probed)
        writer.write(STREAM)
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.transport.abort()

    print("connections:", asyncio.run(attack(CLIENTS, follow, 15.0, pause_s=1.0)))
    until_looked(probed, 1)
    probed.assert_unharmed()
    assert probed.daemon.stop() == 0


SLOW = (
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    b"POST /api/v1/switch HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
    + OPERATOR.encode()
    + b"\r\nContent-Length: 5000\r\n\r\n{",
    b"POST /api/v1/webhook/cache_hub HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Gitea-Signature: "
    + b"0" * 64
    + b"\r\nContent-Length: 5000\r\n\r\n{",
    b"",
)
"""Heads and bodies that come byte by byte."""


def test_clients_that_send_byte_by_byte(probed: Probed) -> None:
    """Slowloris."""

    async def drip(number: int) -> None:
        _, writer = await connect(probed)
        try:
            writer.write(SLOW[number % len(SLOW)])
            while True:
                await asyncio.sleep(0.5)
                writer.write(b"a")
                await writer.drain()
        finally:
            writer.transport.abort()

    print("connections:", asyncio.run(attack(600, drip, 4.0)))
    until_looked(probed, 1)
    probed.assert_unharmed()
    assert probed.daemon.status()["operation"] is None
    assert probed.daemon.stop() == 0


ENDLESS: Mapping[str, tuple[bytes, Callable[[int], bytes]]] = {
    "a head": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", lambda n: b"X-%d: " % n + b"a" * 8000 + b"\r\n"),
    "a line": (b"GET /", lambda _: b"a" * 65536),
    "a value": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", lambda _: b"a" * 65536),
    "a body": (
        b"POST /api/v1/switch HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
        + OPERATOR.encode()
        + b"\r\nContent-Length: 10000000000\r\n\r\n{",
        lambda _: b" " * 65536,
    ),
    "pieces": (
        b"POST /api/v1/switch HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
        + OPERATOR.encode()
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
        lambda _: b"8000\r\n" + b" " * 0x8000 + b"\r\n",
    ),
    "a body of a stranger": (
        b"POST /api/v1/switch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000000\r\n\r\n{",
        lambda _: b" " * 65536,
    ),
    "the body of a probe": (
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000000\r\n\r\n{",
        lambda _: b" " * 65536,
    ),
}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(tuple(ENDLESS), id="all"),
        pytest.param(("a line", "a value", "a head"), id="heads", marks=pytest.mark.thorough),
    ],
)
def test_clients_that_send_without_end(probed: Probed, names: Sequence[str]) -> None:
    """As fast as they are read; none gets more than a bounded part of it into memory."""
    ways = [ENDLESS[name] for name in names]
    sent = 0

    async def pour(number: int) -> None:
        nonlocal sent
        head, more = ways[number % len(ways)]
        _, writer = await connect(probed)
        try:
            writer.write(head)
            for piece in range(1_000_000):
                writer.write(more(piece))
                await writer.drain()
                sent += 65536
        finally:
            writer.transport.abort()

    print("connections:", asyncio.run(attack(60, pour, 4.0)), "MiB:", sent >> 20)
    until_looked(probed, 1)
    probed.assert_unharmed()
    assert probed.daemon.status()["operation"] is None
    assert probed.daemon.stop() == 0
