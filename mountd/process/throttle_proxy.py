"""A forward proxy on loopback that makes one rclone's way to its bucket slow, or cuts it; nobody else's.

A process of its own. It reads commands as JSON lines from the socket that is its stdin, and answers each there:
`{"password"}`, once and first, `{"fault", "delay_s"}`, and `{"client"}`, the process that uses it. When its owner goes
away, the fault ends at once, and it passes everything on until its client has ended: no fault outlives who made it.

A request that is "slow" is held back before it is sent on. Of requests in a tunnel it sees no more than that the
client speaks again after the server has spoken; the first words, which greet for TLS, pass at once, for they have a
deadline of their own. "Offline" is what a dead server looks like: every connection cut, new ones refused.
"""

import asyncio
import base64
import contextlib
import json
import os
import socket
from urllib.parse import urlsplit

HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
HEAD_LIMIT_S = 30.0
CONNECT_LIMIT_S = 30.0
HOP_BY_HOP = ("proxy-authorization", "proxy-connection", "connection", "keep-alive")


class ThrottleProxy:
    def __init__(self, password: str) -> None:
        self.requests = 0
        self._wanted = "Basic " + base64.b64encode(f"mountd:{password}".encode()).decode()
        self._delay_s = 0.0
        self._changed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        # Never listening: it keeps the port ours while the server is away, and connections are refused.
        self._held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]

    async def set(self, fault: str, delay_s: float = 0.0) -> None:
        """`none`, `slow` (each request `delay_s` later) or `offline`, from now on."""
        self._delay_s = delay_s if fault == "slow" else 0.0
        self._changed.set()  # who waits because of the former fault goes on
        self._changed = asyncio.Event()
        if fault == "offline":
            await self._down()
        elif self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, limit=HEAD_BYTES, reuse_address=True
            )

    async def _down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        cut = [*self._connections]
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:  # accepted in the moment of going down
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            # Streams of Python 3.11 report a cancelled handler with a traceback.
            with contextlib.suppress(asyncio.CancelledError, OSError, EOFError, ValueError, TimeoutError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_LIMIT_S):
            start, *lines = await _read_head(reader)
        method, target, version = start.split(" ", 2)
        given = [line.partition(":")[2].strip() for line in lines if _name(line) == "proxy-authorization"]
        if given != [self._wanted]:
            await _answer(writer, "407 Proxy Authentication Required")
            return
        tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if tunnel else target)
        self.requests += 1
        if not tunnel:
            await self._wait()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                server = await asyncio.open_connection(url.hostname, url.port or 80, limit=CHUNK_BYTES)
        except (OSError, TimeoutError):
            await _answer(writer, "502 Bad Gateway")
            return
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target.partition("//")[2].partition("/")[2]
                server[1].write(_last_head(f"{method} /{path} {version}", lines))
            await self._pump(reader, writer, *server, tunnel=tunnel)
        finally:
            server[1].transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        *,
        tunnel: bool,
    ) -> None:
        """Both ways, until the server's side has ended."""
        answered = False

        async def upward() -> None:
            nonlocal answered
            while data := await reader.read(CHUNK_BYTES):
                if tunnel and answered:
                    answered = False
                    self.requests += 1
                    await self._wait()
                server_writer.write(data)
                await server_writer.drain()
            if tunnel:
                server_writer.write_eof()

        sending = asyncio.create_task(upward())
        try:
            if not tunnel:
                await _answer_head(server_reader, writer)
            while data := await server_reader.read(CHUNK_BYTES):
                answered = True
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            await sending  # until the client has taken it all and goes: an abort would cut it short
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _wait(self) -> None:
        """As long as a request is slow now; a change of the fault ends it."""
        if self._delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._delay_s):
                    await self._changed.wait()


async def _read_head(reader: asyncio.StreamReader) -> list[str]:
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    return raw.removesuffix("\r\n\r\n").split("\r\n")


def _name(line: str) -> str:
    return line.partition(":")[0].strip().lower()


def _last_head(start: str, lines: list[str]) -> bytes:
    """One request a connection, on both sides, so that nothing needs to be understood of bodies."""
    kept = [line for line in lines if _name(line) not in HOP_BY_HOP]
    return "\r\n".join([start, *kept, "Connection: close", "", ""]).encode("latin-1")


async def _answer_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    start, *lines = await _read_head(reader)
    while start.split(" ", 2)[1].startswith("1"):  # interim answers, such as "100 Continue"
        writer.write("\r\n".join([start, *lines, "", ""]).encode("latin-1"))
        start, *lines = await _read_head(reader)
    writer.write(_last_head(start, lines))


async def _answer(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()


async def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    reader, writer = await asyncio.open_unix_connection(sock=control)
    throttle = ThrottleProxy(json.loads(await reader.readline())["password"])
    await throttle.set("none")
    client: int | None = None
    answer: dict[str, object] = {"port": throttle.port}
    while True:
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        line = b""
        with contextlib.suppress(OSError):
            line = await reader.readline()
        if not line:
            break
        asked = json.loads(line)
        if "client" in asked:
            with contextlib.suppress(OSError):
                client = os.pidfd_open(asked["client"])
        if "fault" in asked:
            await throttle.set(asked["fault"], asked.get("delay_s", 0.0))
        answer = {"requests": throttle.requests}
    await throttle.set("none")
    if client is not None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(client, ended.set)
        await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
