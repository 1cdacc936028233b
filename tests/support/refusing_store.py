"""A small object store that refuses what a test asks it to, in the words of real ones; also the proxy before itself.

A client that uses it as its HTTP proxy reaches it under any host name, so that it can be asked for a bucket
in the host name, as rclone does for most stores. It checks no signature.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Style = Literal["path", "host"]
STATUS = {"NoSuchBucket": 404, "NoSuchKey": 404}
"""Of error codes; all others are 403."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as a store sees it."""

    method: str
    host: str
    style: Style
    key: str
    query: dict[str, str]
    authorization: str

    @property
    def is_list(self) -> bool:
        return not self.key

    @property
    def list_version(self) -> int:
        return 2 if self.query.get("list-type") == "2" else 1

    @property
    def signing_region(self) -> str:
        """Of signature version 4: `Credential=ID/DATE/REGION/s3/aws4_request`."""
        return self.authorization.partition("Credential=")[2].split("/")[2]


@dataclass
class RefusingStore:
    """One bucket. `refuse`: the error code of each listing, of each look at an object or read of one.

    `takes`: the styles of requests in which the bucket is there; in the host style `host` comes after its name. `skew`:
    how far its clock is ahead.
    """

    bucket: str = "data"
    objects: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[Literal["list", "get"], str] = field(default_factory=dict)
    takes: tuple[Style, ...] = ("path", "host")
    wrong_style: str = "SecondLevelDomainForbidden"
    skew: timedelta = timedelta()
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.store = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.append(asked)
        if asked.style not in self.takes:
            return _error(self.wrong_style)
        if code := self.refuse.get("list" if asked.is_list else "get"):
            return _error(code)
        if asked.is_list:
            return 200, self._listing(asked)
        data = self.objects.get(asked.key)
        return _error("NoSuchKey") if data is None else (200, data)

    def _listing(self, asked: Asked) -> bytes:
        prefix, delimiter = asked.query.get("prefix", ""), asked.query.get("delimiter", "")
        keys: list[str] = []
        directories: dict[str, None] = {}
        for key in sorted(self.objects):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                directories[prefix + rest.partition(delimiter)[0] + delimiter] = None
            else:
                keys.append(key)
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys
        )
        found += "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in directories)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _error(code: str) -> tuple[int, bytes]:
    text = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    return STATUS.get(code, 403), f'<?xml version="1.0"?>{text}'.encode()


class _Server(ThreadingHTTPServer):
    store: RefusingStore
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        host = parts.hostname or self.headers.get("Host", "").partition(":")[0]
        path, bucket = unquote(parts.path).lstrip("/"), self.server.store.bucket
        in_host = host.startswith(f"{bucket}.")
        first, _, rest = path.partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asked = Asked(
            self.command,
            host,
            "host" if in_host else "path",
            path if in_host else rest,
            query,
            self.headers.get("Authorization", ""),
        )
        if not in_host and first not in ("", bucket):
            status, body = _error("NoSuchBucket")
        else:
            status, body = self.server.store.answer(asked)
        if status == 200 and not asked.is_list and (wanted := self.headers.get("Range")):
            first_byte, _, last_byte = wanted.removeprefix("bytes=").partition("-")
            end = int(last_byte) + 1 if last_byte else len(body)
            total, body = len(body), body[int(first_byte) : end]
            self._send(206, body, {"Content-Range": f"bytes {first_byte}-{int(first_byte) + len(body) - 1}/{total}"})
        else:
            self._send(status, body, {})

    do_HEAD = do_GET

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("Date", format_datetime(datetime.now(UTC) + self.server.store.skew, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not to stderr."""
