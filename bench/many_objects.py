"""An S3 store of many small objects whose listings cost the same for each page, however many objects there are.

`rclone serve s3` makes the whole listing for each of its pages, so with it a version of 100,000 objects measures the
server. This one knows LIST (both kinds), HEAD and GET, checks no signature, and takes nothing in.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from mountd.demo import hub

PAGE = 1000
"""Objects and common prefixes in one answer, as S3 gives them."""
MANIFEST = "MANIFEST.json"
TIME = "2026-01-01T00:00:00.000Z"
HTTP_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "MOUNTDBENCHKEY0001", "mountd-bench-secret-0001"


class ManyObjects:
    """`versions`: how many objects each version of the demo's hub has, over `directories` below it, and its manifest
    besides. Each request is answered after `delay_s` seconds. Serves inside a `with`, or from `start` to `stop`.

    `counts` has the requests by kind: LIST, HEAD, GET; `reset` empties it.
    """

    access_key_id, secret_access_key = ACCESS_KEY_ID, SECRET_ACCESS_KEY

    def __init__(
        self,
        versions: Mapping[str, int],
        *,
        directories: int = 100,
        size: int = 1024,
        delay_s: float = 0.0,
        manifest: bool = True,
    ) -> None:
        self.delay_s = delay_s
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._size = size
        self._manifests: dict[str, bytes] = {}
        sizes: dict[str, int] = {}
        for version, count in versions.items():
            files = {_path(number, directories): size for number in range(count)}
            below = f"cache_hub_{version}/"
            sizes |= {below + path: size for path in files}
            if manifest:
                data = self._manifest(version, below, files)
                self._manifests[below + MANIFEST] = data
                sizes[below + MANIFEST] = len(data)
        self._keys = sorted(sizes)  # of ASCII only, so also in the order of their bytes
        self._sizes = sizes
        self._server: ThreadingHTTPServer | None = None

    def _manifest(self, version: str, below: str, files: Mapping[str, int]) -> bytes:
        entries = [
            {"path": path, "size": size, "sha256": hashlib.sha256(self.content(below + path)).hexdigest()}
            for path, size in sorted(files.items())
        ]
        document = {"schema": 1, "version": version, "created": TIME, "tool": "bench", "files": entries}
        return json.dumps(document, indent=1).encode()

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1

    def reset(self) -> Counter[str]:
        """What was counted until now."""
        with self._lock:
            counts, self.counts = self.counts, Counter()
        return counts

    # -- what it holds --------------------------------------------------------------------------------------------

    def content(self, key: str) -> bytes:
        """The bytes of an object, the same each time."""
        if key in self._manifests:
            return self._manifests[key]
        seed = hashlib.sha256(key.encode()).digest()
        return (seed * (self._size // len(seed) + 1))[: self._size]

    def size(self, key: str) -> int | None:
        return self._sizes.get(key)

    def page(self, prefix: str, delimiter: str, after: str) -> tuple[list[str], list[str], str]:
        """Keys, common prefixes, and after which of them the next page begins; "" there is none."""
        keys: list[str] = []
        prefixes: list[str] = []
        at = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        if after.endswith(delimiter) and delimiter:
            at = max(at, bisect_left(self._keys, after + "\x7f"))
        last = ""
        while at < len(self._keys) and self._keys[at].startswith(prefix):
            if len(keys) + len(prefixes) == PAGE:
                return keys, prefixes, last
            key = self._keys[at]
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                last = key[: end + 1]
                prefixes.append(last)
                at = bisect_left(self._keys, last + "\x7f", at)
            else:
                last = key
                keys.append(key)
                at += 1
        return keys, prefixes, ""


def _path(number: int, directories: int) -> str:
    return f"models/d{number % directories:05}/f{number:07}.bin" if directories else f"f{number:07}.bin"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Who asks may go away at any time."""


class _Handler(BaseHTTPRequestHandler):
    objects: ManyObjects
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        bucket, key, query = self._asked()
        if not key:
            self._list(bucket, query)
            return
        self._object("GET", key)

    def do_HEAD(self) -> None:
        _, key, _ = self._asked()
        self._object("HEAD", key)

    def do_PUT(self) -> None:
        self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")

    do_POST = do_DELETE = do_PUT

    def _asked(self) -> tuple[str, str, dict[str, str]]:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        return bucket, key, {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    def _wait(self, kind: str) -> None:
        self.objects.count(kind)
        time.sleep(self.objects.delay_s)

    def _list(self, bucket: str, query: Mapping[str, str]) -> None:
        self._wait("LIST")
        if bucket != hub.BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        second = query.get("list-type") == "2"
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token" if second else "marker", "") or query.get("start-after", "")
        encode = quote if query.get("encoding-type") == "url" else escape
        keys, prefixes, more = self.objects.page(prefix, delimiter, after)
        token = "NextContinuationToken" if second else "NextMarker"
        parts = [
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
            f"<Name>{bucket}</Name><Prefix>{encode(prefix)}</Prefix><MaxKeys>{PAGE}</MaxKeys>",
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>",
            f"<{token}>{encode(more)}</{token}>" if more else "",
            *(self._entry(encode(key), key) for key in keys),
            *(f"<CommonPrefixes><Prefix>{encode(each)}</Prefix></CommonPrefixes>" for each in prefixes),
            "</ListBucketResult>",
        ]
        self._answer(200, "".join(parts).encode())

    def _entry(self, shown: str, key: str) -> str:
        return (
            f"<Contents><Key>{shown}</Key><LastModified>{TIME}</LastModified><ETag>&quot;{self._etag(key)}&quot;</ETag>"
            f"<Size>{self.objects.size(key)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    def _etag(self, key: str) -> str:
        return _md5(self.objects, key)

    def _object(self, kind: str, key: str) -> None:
        self._wait(kind)
        size = self.objects.size(key)
        if size is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"ETag": f'"{self._etag(key)}"', "Last-Modified": HTTP_TIME, "Accept-Ranges": "bytes"}
        if kind == "HEAD":
            self._answer(200, b"", {**headers, "Content-Length": str(size)})
            return
        data, status = self.objects.content(key), 200
        if (wanted := self.headers.get("Range", "")).startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{size}"
            data = data[begin:end]
        self._answer(status, data, headers)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        given = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **(headers or {})}
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{name}: {value}" for name, value in given.items()),
        ]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + (b"" if self.command == "HEAD" else body))


@lru_cache(maxsize=1_100_000)
def _md5(objects: ManyObjects, key: str) -> str:
    return hashlib.md5(objects.content(key), usedforsecurity=False).hexdigest()
