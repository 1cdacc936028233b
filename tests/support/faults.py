"""What the S3 proxy makes go wrong: slow, refused, cut, reset or swallowed exchanges, by kind of request.

proxy.faults.fail = {"LIST": SLOW_DOWN, "HEAD": Failure(403, "AccessDenied", rate=0.1)}
proxy.faults.reset = {ANY: Break(rate=0.01)}
proxy.faults.black_hole = True
proxy.faults.clear()
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import unquote
from xml.sax.saxutils import escape

ANY = "ANY"
KINDS = frozenset({ANY, "LIST", "HEAD", "GET", "PUT", "POST", "DELETE"})
SLICE_S = 0.05  # a capped body goes out in pieces of this long, so that a changed cap is soon felt
LOOK_S = 0.02  # how often a hung exchange looks whether the black hole is gone
LARGEST_PIECE = 64 * 1024
MESSAGES = {
    "AccessDenied": "Access Denied",
    "ExpiredToken": "The provided token has expired.",
    "InternalError": "We encountered an internal error. Please try again.",
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchKey": "The specified key does not exist.",
    "RequestTimeTooSkewed": "The difference between the request time and the current time is too large.",
    "SlowDown": "Please reduce your request rate.",
}


class Reset(Exception):
    """Raised by a fault: reset the client's connection here and now."""


class Closed(Exception):
    """Raised by a fault: end the client's connection in good order, whatever was promised."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that the proxy gives itself instead of asking the server."""

    status: int
    body: bytes = b""
    reason: str = "Fault"
    headers: Mapping[str, str] = field(default_factory=dict)


class Pace:
    """Lets bytes through at a rate: each piece waits until it would have gone out on a line of that speed."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = 0.0

    async def wait(self, size: int, bytes_per_s: float) -> None:
        now = time.monotonic()
        # A line that was idle owes one slice at most: this makes up for sleeps that end late.
        self._free_at = max(self._free_at, now - SLICE_S) + size / bytes_per_s
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


@dataclass(frozen=True, slots=True)
class Line:
    """One connection, or all of them: full duplex, so each direction has its own pace."""

    up: Pace = field(default_factory=Pace)
    down: Pace = field(default_factory=Pace)


@dataclass(slots=True)
class Exchange:
    """One request as it went: `status` is 0 until the answer began, `body_bytes` is what the client was sent of it."""

    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    body_bytes: int = 0
    promised: int | None = None  # the answer's Content-Length
    at: float = field(default_factory=time.monotonic)  # when its head was read
    sent_bytes: int = 0  # of the request's body, as forwarded
    line: Line = field(default_factory=Line, repr=False)  # that of its connection
    end: Callable[[], None] | None = field(default=None, repr=False)  # raises as soon as the body is to end
    end_at: int | None = None  # bytes of the body before that
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind = kind(self)

    @property
    def key(self) -> str:
        """The object's key, "" for a bucket or the list of buckets (path style, as all of our servers speak)."""
        return unquote(_split(self.target)[1])

    @property
    def access_key_id(self) -> str:
        """Who signed it, "" when nobody did."""
        found = re.search(r"Credential=([^/,]+)", self.headers.get("authorization", ""))
        return found[1] if found else ""


def kind(exchange: Exchange) -> str:
    """HEAD, GET and PUT of an object, LIST for each GET of a bucket or of the buckets; else the method itself."""
    return "LIST" if exchange.method == "GET" and not _split(exchange.target)[1] else exchange.method


def _split(target: str) -> tuple[str, str]:
    bucket, _, key = target.partition("?")[0].removeprefix("/").partition("/")
    return bucket, key


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer of S3's own error format, for each request (`rate` 1) or for some; `where` chooses further."""

    status: int
    code: str
    rate: float = 1.0
    where: Callable[[Exchange], bool] | None = None

    def reply(self, exchange: Exchange) -> Reply:
        message = MESSAGES.get(self.code, self.code)
        resource = escape(exchange.target.partition("?")[0])
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{message}</Message>"
            f"<Resource>{resource}</Resource><RequestId>FAULT</RequestId></Error>"
        )
        # The date is what the SDKs correct their clock by when the store says that it is wrong.
        headers = {"Content-Type": "application/xml", "Date": formatdate(usegmt=True)}
        return Reply(self.status, body.encode(), HTTPStatus(self.status).phrase, headers)


@dataclass(frozen=True, slots=True)
class Page:
    """What something else answers in the store's place."""

    body: bytes
    status: int = 200
    kind: str = "text/html"
    rate: float = 1.0
    where: Callable[[Exchange], bool] | None = None

    def reply(self, exchange: Exchange) -> Reply:
        return Reply(self.status, self.body, HTTPStatus(self.status).phrase, {"Content-Type": self.kind})


EXPIRED = Failure(403, "ExpiredToken")
SKEWED = Failure(403, "RequestTimeTooSkewed")
DENIED = Failure(403, "AccessDenied")
NO_KEY = Failure(404, "NoSuchKey")
NO_BUCKET = Failure(404, "NoSuchBucket")
SLOW_DOWN = Failure(503, "SlowDown")


@dataclass(frozen=True, slots=True)
class Break:
    """The end of an answer before its time: after that many bytes of the body, or somewhere in it.

    An empty answer breaks before its head, one of unknown length before its body; one that is not longer than `after`
    passes whole. Bodies under way when it is set go on.
    """

    after: int | None = None
    rate: float = 1.0
    where: Callable[[Exchange], bool] | None = None


Rule = TypeVar("Rule", "Failure | Page", Break)


@dataclass(slots=True)
class Faults:
    """What goes wrong now. Fields may be set from any thread; each request and piece of a body reads them again.

    `fail`, `cut` and `reset` are by kind; the kind's own entry goes before that of ANY. What has a rate is drawn from
    `seed` in the order of the requests, so that one client at a time meets the same faults in each run.
    """

    _random: random.Random = field(default_factory=random.Random, init=False, repr=False)
    latency_s: float = 0.0
    """before each answer"""
    bytes_per_s: float = 0.0
    """of bodies, for each connection and direction; 0 is no limit"""
    total_bytes_per_s: float = 0.0
    """the same over all connections together"""
    fail: Mapping[str, Failure | Page] = field(default_factory=dict)
    cut: Mapping[str, Break] = field(default_factory=dict)
    """the connection ends in good order although Content-Length promised more"""
    reset: Mapping[str, Break] = field(default_factory=dict)
    """the connection is reset; a request that fetches no body is so before it reaches the server"""
    black_hole: bool = False
    """nothing passes in either direction, new connections are accepted; what hung goes on when it ends"""
    seed: int = 0
    _total: Line = field(default_factory=Line, init=False, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"fail", "cut", "reset"}:
            if unknown := set(value) - KINDS:
                raise ValueError(f"{name}: no such kind of request: {', '.join(sorted(unknown))}")
            value = MappingProxyType(dict(value))  # one replacement, not changes that a request could see half of
        object.__setattr__(self, name, value)
        if name == "seed":
            object.__setattr__(self, "_random", random.Random(value))

    def clear(self) -> None:
        """Nothing goes wrong any more; the seed's sequence goes on."""
        healthy = Faults()
        for each in fields(Faults):
            if each.init and each.name != "seed":
                setattr(self, each.name, getattr(healthy, each.name))

    async def request(self, exchange: Exchange) -> Reply | None:
        """Before a request is forwarded: wait, raise Reset or Closed, or answer in the server's place."""
        if self.latency_s > 0:
            await asyncio.sleep(self.latency_s)
        await self.passable()
        if failure := self._drawn(self.fail, exchange):
            return failure.reply(exchange)
        for rules, end in ((self.reset, _reset), (self.cut, _close)):
            if broken := self._drawn(rules, exchange):
                if exchange.kind not in {"GET", "LIST"}:
                    end()
                exchange.end, exchange.end_at = end, broken.after
                break
        return None

    async def answer(self, exchange: Exchange) -> None:
        """Before the head of the server's answer goes to the client."""
        await self.passable()
        if exchange.end and exchange.promised == 0:
            exchange.end()
        if exchange.end and exchange.end_at is None:
            exchange.end_at = int(self._random.random() * (exchange.promised or 0))

    def piece(self, exchange: Exchange, size: int) -> int:
        """How many of the next `size` bytes of an answer's body go at once, at least 1; raises Reset or Closed."""
        if exchange.end and exchange.end_at is not None:
            size = min(size, exchange.end_at - exchange.body_bytes)
            if size <= 0:
                exchange.end()
        return self.slice(size)

    async def chunk(self, exchange: Exchange, size: int) -> None:
        """Before `size` bytes of an answer's body go to the client: wait, or raise Reset or Closed."""
        await self._pass(size, exchange.line.down, self._total.down)

    async def upload(self, exchange: Exchange, size: int) -> None:
        """Before `size` bytes of a request's body go to the server: wait, or raise Reset or Closed."""
        await self._pass(size, exchange.line.up, self._total.up)

    def slice(self, size: int) -> int:
        """How many of the next `size` bytes may go at once under the caps, at least 1."""
        rates = [rate for rate in (self.bytes_per_s, self.total_bytes_per_s) if rate > 0]
        return min([size, LARGEST_PIECE, *(max(1, int(rate * SLICE_S)) for rate in rates)])

    async def _pass(self, size: int, own: Pace, shared: Pace) -> None:
        await self.passable()
        if (rate := self.bytes_per_s) > 0:
            await own.wait(size, rate)
        if (rate := self.total_bytes_per_s) > 0:
            await shared.wait(size, rate)

    async def passable(self) -> None:
        """Hangs as long as the black hole lasts."""
        while self.black_hole:
            await asyncio.sleep(LOOK_S)

    def _drawn(self, rules: Mapping[str, Rule], exchange: Exchange) -> Rule | None:
        rule = rules.get(exchange.kind) or rules.get(ANY)
        if rule is None or (rule.where and not rule.where(exchange)):
            return None
        return rule if rule.rate >= 1 or self._random.random() < rule.rate else None


def _reset() -> None:
    raise Reset


def _close() -> None:
    raise Closed
