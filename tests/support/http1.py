"""As much of HTTP/1.1 as a proxy needs: reads a head, and a body piece by piece, without changing a byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024
HEAD_BYTES = 64 * 1024  # give it to the reader as its limit: it bounds a head, and what is buffered


@dataclass(frozen=True, slots=True)
class Head:
    """Start line and headers, `raw` as received with the empty line; header names are lower-case."""

    raw: bytes
    start: list[str]
    headers: dict[str, str]

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        value = self.headers.get("content-length")
        return None if value is None else int(value)

    def keeps_alive(self, version: str) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection


async def read_head(reader: asyncio.StreamReader) -> Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, first.split(" ", 2), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def read_body(
    reader: asyncio.StreamReader, length: int | None, chunked: bool
) -> AsyncIterator[tuple[bytes, int]]:
    """The bytes to forward, each with how many of them are payload. Neither length nor chunked: until the end."""
    if chunked:
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line, 0
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                break
            async for piece in read_body(reader, size, chunked=False):
                yield piece
            yield await reader.readexactly(2), 0
        while line != b"\r\n":  # trailers, and the empty line after them
            line = await reader.readuntil(b"\r\n")
            yield line, 0
        return
    left = length
    while left is None or left > 0:
        data = await reader.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
        if not data:
            if left is None:
                return
            raise asyncio.IncompleteReadError(b"", left)
        left = None if left is None else left - len(data)
        yield data, len(data)
