"""Calls a running rclone through its remote control: each call with a deadline, each answer checked.

HTTP 200 is no success here: `vfs/refresh` puts its failures into the values of `result`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from mountd.errors import RemoteError, Unavailable
from mountd.rclone.command import RcAddress, source
from mountd.rclone.failures import classify
from mountd.rclone.keys import BucketEntry
from mountd.rclone.stats import CoreStats, Transferred, VfsStats, transferred

MAX_ANSWER_BYTES = 64 * 1024 * 1024
CALL_S = 2.0
NOOP_S = 1.0
LONG_AGO_S = -1e9
AT_HAND = frozenset({"STANDARD", "STANDARD_IA", "ONEZONE_IA", "REDUCED_REDUNDANCY", "EXPRESS_ONEZONE", "GLACIER_IR"})
"""Classes of storage whose objects are read without being restored first [Amazon S3, storage classes]; for rclone an
object without a class has STANDARD. INTELLIGENT_TIERING is none: what it archives keeps its name."""
LIST = "operations/list"
NONEXISTENT_DIR = ".mountd-asks"
"""Not in any bucket: listing it costs one request, whatever the bucket holds."""

# One request to the store and one repetition (rclone's own, which no option turns off), without pauses that grow: a
# refused connection is known in 0.1 s instead of 7 s, a dropped one after 4 s (measured with 1.75.2).
# `Timeout` is long because the caller's deadline decides what is slow: dropping the call also cancels rclone's request.
_QUICK = {"LowLevelRetries": 1, "Retries": 1, "ConnectTimeout": 2_000_000_000, "Timeout": 30_000_000_000}


class RcTimeout(Unavailable):
    """rclone took the call but did not answer in time: it may wait for the bucket, or hang."""


class AnswerTooLarge(Unavailable):
    """The answer is larger than mountd would take in."""


@dataclass(frozen=True, slots=True)
class StoreFeatures:
    """`has_buckets`: listing a directory that does not exist is no error, only a missing bucket is one.
    `reports_room`: rclone asks the store at each `statfs` how much room there is."""

    has_buckets: bool
    reports_room: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """One entry of the upload queue; it may begin in `due_s` seconds (negative: it could have)."""

    id: int
    name: str
    due_s: float
    uploading: bool


class RcClient:
    """Not tied to one process: the address stays the same over restarts. To be closed."""

    def __init__(self, address: RcAddress) -> None:
        self.address = address
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_S,
        most_bytes: int | None = None,
    ) -> dict[str, Any]:
        """One call. Raises RemoteError when rclone refuses, RcTimeout or another Unavailable when it does not answer.

        AnswerTooLarge when the answer has more than `most_bytes` (MAX_ANSWER_BYTES): the event loop takes it apart.
        """
        async with self._asking(method, params or {}, timeout_s) as answer:
            status, body = answer.status, await _read(answer, most_bytes or MAX_ANSWER_BYTES)
        return _checked(method, status, body)

    async def vfs_stats(self, timeout_s: float = CALL_S) -> VfsStats:
        return VfsStats.parse(await self.call("vfs/stats", timeout_s=timeout_s))

    async def core_stats(self, timeout_s: float = CALL_S) -> CoreStats:
        return CoreStats.parse(await self.call("core/stats", timeout_s=timeout_s))

    async def transferred(self, timeout_s: float = CALL_S) -> list[Transferred]:
        """The last transfers that have ended, whatever their result."""
        return transferred(await self.call("core/transferred", timeout_s=timeout_s))

    async def vfs_refresh(self, directory: str = "", *, recursive: bool = False, timeout_s: float = 60.0) -> None:
        """Read a directory (relative to the mount, "" its root) again; its parents must be known to rclone already.

        Raises RemoteError for the first result that is not "OK", `directory-missing` for a directory that is not there.
        """
        params = {"dir": directory} if directory else {}
        if recursive:
            params["recursive"] = "true"  # the word, not the truth value
        result = (await self.call("vfs/refresh", params, timeout_s)).get("result")
        if not isinstance(result, dict) or not result:
            raise RemoteError(f"cannot refresh {directory or '/'}: the answer holds no result")
        for name, value in result.items():
            if value != "OK":
                failure = classify(str(value))
                raise RemoteError(f"cannot refresh {name or '/'}: {failure.text}", hint=failure.hint, code=failure.code)

    async def fingerprint(self, fs: str, path: str, timeout_s: float = 60.0) -> str:
        """What the store reports of one object, past the mount's caches: size, time and MD5, as far as it does.

        On S3 one HEAD. The same text at two looks: it was not written in between. "" when it is not there.
        """
        options = {"showHash": True, "hashTypes": ["md5"], "noMimeType": True}
        answer = await self.call("operations/stat", {"fs": source(fs), "remote": path, "opt": options}, timeout_s)
        item = answer.get("item")
        if not isinstance(item, dict):
            return ""
        return json.dumps([item.get("Size"), item.get("ModTime"), item.get("Hashes")])

    async def size(self, fs: str, path: str, timeout_s: float = 60.0) -> int | None:
        """Bytes of one object, past the mount's caches; None: it is not there. On S3 one HEAD."""
        options = {"filesOnly": True, "noModTime": True, "noMimeType": True}
        answer = await self.call("operations/stat", {"fs": source(fs), "remote": path, "opt": options}, timeout_s)
        item = answer.get("item")
        return int(item.get("Size", -1)) if isinstance(item, dict) else None

    async def is_at_hand(self, fs: str, path: str, timeout_s: float = 60.0) -> bool:
        """Whether one object is in a class of storage that is read at once, past the mount's caches. On S3 one HEAD.

        False also when it is not there, or when the store does not say. Raises RemoteError, Unavailable.
        """
        # Of many kinds of S3 (1.75.2: "Other", Minio) only the metadata have the class.
        options = {"filesOnly": True, "noModTime": True, "noMimeType": True, "metadata": True}
        answer = await self.call("operations/stat", {"fs": source(fs), "remote": path, "opt": options}, timeout_s)
        item = answer.get("item")
        metadata = item.get("Metadata") if isinstance(item, dict) else None
        return isinstance(metadata, dict) and str(metadata.get("tier", "")).upper() in AT_HAND

    async def exclude(self, patterns: Sequence[str]) -> None:
        """From the next listing on the mount leaves out what these `--exclude` patterns match, and only that."""
        await self.call("options/set", {"filter": {"ExcludeRule": list(patterns)}})

    async def read_byte(self, fs: str, path: str, timeout_s: float = 60.0) -> None:
        """Reads one byte of an object that is not empty, past the mount and its caches: a HEAD and a GET.

        Raises RemoteError with the cause when it cannot be read.
        """
        url, first = f"%5B{quote(source(fs), safe='')}%5D/{quote(path)}", {"Range": "bytes=0-0"}
        async with self._request("GET", url, f"no byte of {path}", timeout_s, headers=first) as answer:
            if answer.status < 400 and await answer.content.readany():
                return
        # The answer has no cause. This call would read all of the file, but fails in the same way first.
        params = {"fs": source(fs), "remote": path, "hashType": "md5", "download": True}
        await self.call("operations/hashsumfile", params, timeout_s)

    async def copy_file(self, fs: str, path: str, to: Path, timeout_s: float = 60.0) -> None:
        """One object, past the mount's caches, into the local file `to`, which must not be there yet."""
        params = {"srcFs": source(fs), "srcRemote": path, "dstFs": str(to.parent), "dstRemote": to.name}
        await self.call("operations/copyfile", params, timeout_s)

    async def features(self, fs: str, timeout_s: float) -> StoreFeatures:
        """What the kind of store behind `fs` can do, for which S3 and most others get no request."""
        # The same object as that of a probe of the root.
        answer = await self.call("operations/fsinfo", {"fs": _split(fs)[0], "_config": _QUICK}, timeout_s)
        features = answer.get("Features")
        if not isinstance(features, dict):
            raise Unavailable("rclone does not answer: operations/fsinfo holds no features")
        return StoreFeatures(bool(features.get("BucketBased")), bool(features.get("About")))

    async def probe_bucket(
        self, fs: str, timeout_s: float, directory: str = NONEXISTENT_DIR, *, most_bytes: int | None = None
    ) -> list[BucketEntry]:
        """What `directory` of `fs` (`remote:bucket/prefix`) holds, "" for its root: fails fast, and raises as `list`.

        One request for a small one; the paths are not relative to `fs`. Other than the root only for a remote that has
        buckets. Keys that may list certain directories alone are refused elsewhere. rclone takes any well-formed page,
        and even an empty answer, for a listing of nothing (1.75.2).
        """
        # `_config` counts when rclone makes its object for `fs`, and the mount's own was made with the mount's
        # patience. "remote:" with the bucket in the path is another one.
        place, path = (_within(fs, directory), "") if directory else _split(fs)
        return await self.list(place, path, config=_QUICK, timeout_s=timeout_s, most_bytes=most_bytes)

    async def invents_objects(self, fs: str, timeout_s: float) -> bool:
        """Whether `fs` gives an object that no bucket holds: then what answers is no object store. One HEAD."""
        params = {
            "fs": _within(fs, NONEXISTENT_DIR),
            "remote": NONEXISTENT_DIR,
            "opt": {"filesOnly": True},
            "_config": _QUICK,
        }
        return isinstance((await self.call("operations/stat", params, timeout_s)).get("item"), dict)

    async def vfs_queue(self) -> list[Upload]:
        """The files that wait for their upload or are being uploaded."""
        entries = (await self.call("vfs/queue")).get("queue")
        if not isinstance(entries, list):
            raise Unavailable("rclone does not answer: vfs/queue holds no queue")
        return [
            Upload(int(each["id"]), str(each["name"]), float(each.get("expiry", 0.0)), bool(each.get("uploading")))
            for each in entries
        ]

    async def vfs_upload_now(self, upload: int) -> None:
        """Begin the upload of that id without further waiting. Raises RemoteError when it is no longer in the queue."""
        await self.vfs_upload_in(upload, LONG_AGO_S)

    async def vfs_upload_in(self, upload: int, delay_s: float) -> None:
        """Begin the upload of that id in `delay_s` seconds. Raises RemoteError when it is no longer in the queue."""
        await self.call("vfs/queue-set-expiry", {"id": upload, "expiry": delay_s})

    async def list(
        self,
        fs: str,
        directory: str = "",
        *,
        recursive: bool = False,
        config: Mapping[str, int] | None = None,
        exclude: Sequence[str] = (),
        timeout_s: float = 60.0,
        most_bytes: int | None = None,
    ) -> list[BucketEntry]:
        """What the store holds in `fs` (`remote:bucket/prefix`) below `directory`, asked past the mount's caches.

        `exclude`: patterns of what is left out, instead of those of the mount. On S3 one request for each thousand
        entries, and a directory that does not exist is empty; only a missing bucket is an error. Raises RemoteError,
        also (`bucket-slow`) when rclone itself answers but the store does not, and Unavailable when rclone does not.
        """
        params = _listing(fs, directory, exclude, recursive=recursive)
        if config:
            params["_config"] = config
        async with self._blaming_the_store(timeout_s):
            answer = await self.call(LIST, params, timeout_s, most_bytes)
        entries = answer.get("list")
        if not isinstance(entries, list):
            raise RemoteError("cannot list the bucket: rclone's answer holds no list")
        return [
            BucketEntry(str(each["Path"]), str(each["Name"]), int(each.get("Size", -1)), bool(each.get("IsDir")))
            for each in entries
        ]

    async def save_listing(
        self, fs: str, directory: str, to: Path, *, exclude: Sequence[str] = (), timeout_s: float = 60.0
    ) -> int:
        """As a recursive `list`, but rclone's answer goes into the file `to` as it comes: how many bytes it has.

        Nothing of it stays in memory: of 100,000 objects it has 15 MB.
        """
        size, params = 0, _listing(fs, directory, exclude, recursive=True)
        async with self._blaming_the_store(timeout_s), self._asking(LIST, params, timeout_s) as answer:
            if answer.status != 200:
                _checked(LIST, answer.status, await _read(answer, MAX_ANSWER_BYTES))
            with await asyncio.to_thread(open, to, "wb") as file:
                async for part in answer.content.iter_any():
                    size += file.write(part)
        return size

    @contextlib.asynccontextmanager
    async def _blaming_the_store(self, timeout_s: float) -> AsyncIterator[None]:
        """For a call that waits for the store: raises RemoteError when that does not answer, and rclone itself does."""
        try:
            yield
        except RcTimeout:
            await self.call("rc/noop", timeout_s=NOOP_S)  # else rclone hangs, which this raises
            raise RemoteError(
                f"the store did not answer within {timeout_s:g} s",
                hint="look at the load of the store and of the network to it",
                code="bucket-slow",
            ) from None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _asking(
        self, method: str, params: Mapping[str, Any], timeout_s: float
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._request("POST", method, f"no reply to {method}", timeout_s, json=params)

    @contextlib.asynccontextmanager
    async def _request(
        self, verb: str, path: str, lacks: str, timeout_s: float, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Raises RcTimeout, which says what `lacks`, or another Unavailable."""
        if self._session is None:
            # A connection for each call: a kept one would be that of the previous process after a restart.
            connector = aiohttp.UnixConnector(str(self.address.socket), force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, headers={"Authorization": self.address.authorization}
            )
        url, timeout = URL(f"http://rclone/{path}", encoded=True), aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(verb, url, timeout=timeout, **more) as answer:
                yield answer
        except TimeoutError:
            raise RcTimeout(f"rclone does not answer: {lacks} within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            said = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
            raise Unavailable(f"rclone does not answer: {' '.join(said.split()) or type(error).__name__}") from None


async def _read(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > most_bytes:
            raise AnswerTooLarge(f"rclone does not answer: the answer is larger than {most_bytes >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _checked(method: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if status in (401, 403) and (answer is None or "authentication must be set up" in str(answer.get("error"))):
        raise Unavailable(f"rclone does not answer: it refused mountd's user and password ({status})")
    if not isinstance(answer, dict):
        raise Unavailable(f"rclone does not answer: {method} gave status {status} and no JSON")
    if status >= 400 or "error" in answer:
        failure = classify(str(answer.get("error", f"status {status}")))
        raise RemoteError(failure.text, hint=failure.hint, code=failure.code)
    return answer


def _listing(fs: str, directory: str, exclude: Sequence[str], *, recursive: bool) -> dict[str, Any]:
    options = {
        "noModTime": True,  # one HEAD for each object else
        "noMimeType": True,
        "recurse": recursive,
    }
    # A pattern that excludes directories, as one of the mount's does, makes a recursive listing cost a request for each
    # of them; and what cannot be a path is to be seen.
    only = {"ExcludeRule": list(exclude)}
    return {"fs": source(fs), "remote": directory.strip("/"), "opt": options, "_filter": only}


def names_bucket(fs: str) -> bool:
    """Whether there is a bucket in `fs`: `remote:` alone has none."""
    return bool(_split(fs)[1])


def _within(fs: str, directory: str) -> str:
    """As a place of its own: rclone makes another object for it than for the mount, with other patience, and one that
    knows its bucket, without which a redirection to another region counts as a listing of nothing."""
    return source(f"{fs.rstrip('/')}/{directory}")


def _split(fs: str) -> tuple[str, str]:
    remote, _, path = fs.partition(":")
    if path.startswith("/"):  # an absolute path of a backend that knows such: not below the root of the remote
        return source(fs), ""
    return f"{remote}:", path.strip("/")
