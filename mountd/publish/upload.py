"""The version's directory in the bucket, by way of short-lived rclones: listed, written, read back, tidied."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mountd.errors import MountdError, RemoteError, cause_of
from mountd.publish.plan import Bucket, bucket, place
from mountd.rclone import log
from mountd.rclone.command import source
from mountd.rclone.failures import classify

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_PATIENCE = ("--contimeout=15s", "--timeout=60s", "--retries=3", "--low-level-retries=5")
# Statistics once a second, so that an rclone that says nothing for long is known to hang.
_TALK = ("--use-json-log", "--log-level=INFO", "--stats=1s", "--stats-log-level=NOTICE", "--ask-password=false")
_OF_THE_CONNECTION = ("--ca-cert=", "--no-check-certificate", "--s3-")
SILENT_S = 60
END_S = 10.0
MAX_ANSWER_BYTES = 128 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
KEPT_ERRORS = 20
MISSING = 3
CHANGED = "source file is being updated"

Listener = Callable[[Mapping[str, Any]], None]
"""Hears each record of rclone's log."""


@dataclass(frozen=True, slots=True)
class Access:
    """How rclone gets to the bucket: `argv` and `environment` of the mount's own rclone, its own rclone.conf."""

    binary: Path
    conf: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Access({self.binary}, {self.conf})"


class Store:
    """One directory of a bucket, `remote:bucket/directory`. Methods raise RemoteError with what rclone's words mean."""

    def __init__(self, access: Access, remote: str, directory: str, *, scratch: Path, lock: int) -> None:
        """`scratch`: a private directory; `lock`: a descriptor that each rclone keeps open as long as it lives."""
        self._access = access
        self._lock = lock
        self._scratch = scratch
        self.base = source(remote)
        self.place = place(remote, directory)

    async def look(self) -> Bucket:
        """What is there now, with sizes, and hashes where the store reports them."""
        flags = ("--recursive", "--files-only", "--hash", "--hash-type=md5", "--no-modtime", "--no-mimetype")
        code, data, error = await self._run("lsjson", *flags, source(self.place))
        if code == MISSING:
            # A directory that is not there is empty, a bucket that is not there is a mistake.
            code, _, error = await self._run("lsf", "--max-depth=1", self.base)
            data = b"[]"
        if code != 0:
            raise self._failed(f"list {self.place}", error)
        return bucket(json.loads(data))

    async def read(self, name: str) -> bytes:
        code, data, error = await self._run("cat", f"{self.place}/{name}")
        if code != 0:
            raise self._failed(f"read {self.place}/{name}", error)
        return data

    async def write(self, name: str, data: bytes) -> None:
        """A small object, as a whole."""
        file = self._scratch / "object"
        file.write_bytes(data)
        code, _, error = await self._run("copyto", "--ignore-times", str(file), f"{self.place}/{name}")
        if code != 0:
            raise self._failed(f"write {self.place}/{name}", error)

    async def remove(self, names: Collection[str]) -> None:
        """Objects that may be gone already."""
        if names:
            code, _, error = await self._run("delete", self._list(names), source(self.place))
            if code != 0:
                raise self._failed(f"delete {self.place}/{min(names)}", error)

    async def send(self, root: str, names: Collection[str], jobs: int, listen: Listener) -> None:
        """Files below the local directory `root`, each whatever the bucket holds of it; rclone sends their checksums.

        Raises MountdError when one of them changes meanwhile.
        """
        flags = ("--ignore-times", "--no-traverse", "--copy-links", f"--transfers={jobs}", self._list(names))
        code, _, error = await self._run("copy", *flags, root, source(self.place), listen=listen)
        if CHANGED in error:
            raise MountdError(f"cannot publish {root}: a file changed while it was sent: {error}")
        if code != 0:
            raise self._failed(f"send to {self.place}", error)

    async def sha256(self, names: Collection[str], jobs: int, listen: Listener) -> dict[str, str]:
        """Of what is stored, read back as a whole: path → sha256 in hex."""
        flags = ("--download", f"--checkers={jobs}", f"--transfers={jobs}", self._list(names))
        code, data, error = await self._run("hashsum", "sha256", *flags, source(self.place), listen=listen)
        if code != 0:
            raise self._failed(f"read back {self.place}", error)
        lines = data.decode(errors="surrogateescape").splitlines()
        return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}

    def _list(self, names: Iterable[str]) -> str:
        file = self._scratch / "names"
        file.write_text("".join(f"{name}\n" for name in names), "utf-8")
        return f"--files-from-raw={file}"

    def _failed(self, what: str, error: str) -> RemoteError:
        failure = classify(log.mask(error, self._access.secrets))
        return RemoteError(f"cannot {what}: {failure.text}", hint=failure.hint, code=failure.code)

    async def _run(self, *words: str, listen: Listener = lambda _: None) -> tuple[int, bytes, str]:
        """Exit code, stdout, and the last error that it reported."""
        access = self._access
        connection = [flag for flag in access.argv if flag.startswith(_OF_THE_CONNECTION)]
        argv = [str(access.binary), f"--config={access.conf}", *_TALK, *_PATIENCE, *connection, *words]
        environment = {name: value for name, value in access.environment.items() if not name.startswith("RCLONE_")}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd="/",
                env=environment,
                limit=MAX_LINE_BYTES,
                pass_fds=(self._lock,),
                preexec_fn=_end_with_parent,  # no thread of ours holds a lock now: those that hash have ended
            )
        except OSError as error:
            raise RemoteError(f"cannot run {argv[0]}: {cause_of(error)}") from None
        assert process.stdout is not None
        assert process.stderr is not None
        reading = asyncio.create_task(_read_all(process.stdout))
        try:
            said = await self._follow(process.stderr, listen)
            return await process.wait(), await reading, said
        finally:
            reading.cancel()
            await _end(process)

    async def _follow(self, stream: asyncio.StreamReader, listen: Listener) -> str:
        errors: deque[str] = deque(maxlen=KEPT_ERRORS)
        silent = 0
        while True:
            try:
                line = await asyncio.wait_for(stream.readline(), 1.0)
            except TimeoutError:
                silent += 1  # seconds in which we ran too: one that was stopped with us has not hung
                if silent > SILENT_S:
                    raise RemoteError(
                        f"cannot go on: rclone said nothing for {SILENT_S} s", code="rclone-error"
                    ) from None
                continue
            except ValueError:
                continue  # longer than any line that matters
            if not line:
                return errors[-1] if errors else ""
            silent = 0
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    listen(record)
            event = log.parse(line, self._access.secrets)
            if event.level == "error" or event.text.startswith("Failed to "):
                cause = f"{event.keys['object']}: {event.text}" if "object" in event.keys else event.text
                errors.append(cause)


async def _read_all(stream: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while block := await stream.read(MAX_LINE_BYTES):
        if len(data) + len(block) > MAX_ANSWER_BYTES:
            raise RemoteError(f"cannot read an answer of more than {MAX_ANSWER_BYTES} bytes")
        data += block
    return bytes(data)


async def _end(process: asyncio.subprocess.Process) -> None:
    """With SIGTERM, so that it withdraws the parts of what it has not sent whole; it does not outlast this call."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
