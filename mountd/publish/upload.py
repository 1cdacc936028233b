"""The version's directory in the bucket, by way of short-lived rclones: listed, written, read back, tidied.

rclone sends, retries, and compares each file that it sends. What is to be sent mountd decides itself: where a store
reports no hashes, `copy --checksum` and `check` of rclone 1.75 take other content of the same size for the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
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
# Statistics once a second, so that an rclone that writes nothing for long is known to hang.
_REPORTS = ("--use-json-log", "--log-level=INFO", "--stats=1s", "--stats-log-level=NOTICE", "--ask-password=false")
_OF_THE_CONNECTION = ("--ca-cert=", "--no-check-certificate", "--s3-")
SILENT_S = 60
STOP_S = 10.0
MAX_ANSWER_BYTES = 128 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
MISSING = 3
CHANGED = "source file is being updated"

Listener = Callable[[Mapping[str, Any]], None]
"""Gets each record of rclone's log."""


@dataclass(frozen=True, slots=True)
class Access:
    """How rclone gets to the bucket: `argv` and `environment` of the mount's own rclone, its own rclone.conf."""

    binary: Path
    conf: Path
    argv: tuple[str, ...] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


class Store:
    """One directory of a bucket, `remote:bucket/directory`. Methods raise RemoteError with what rclone's words mean."""

    def __init__(self, access: Access, remote: str, directory: str, *, scratch: Path, lock: int) -> None:
        """`scratch`: a private directory; `lock`: a descriptor that each rclone keeps open as long as it lives."""
        self._secrets = access.secrets
        self._lock = lock
        self._scratch = scratch
        self._base = source(remote)
        self.place = place(remote, directory)
        connection = [flag for flag in access.argv if flag.startswith(_OF_THE_CONNECTION)]
        self._argv = [str(access.binary), f"--config={access.conf}", *_REPORTS, *_PATIENCE, *connection]
        self._environment = {
            name: value for name, value in access.environment.items() if not name.startswith("RCLONE_")
        }

    async def look(self) -> Bucket:
        """What is there now, with sizes, and hashes where the store reports them."""
        flags = ("--recursive", "--files-only", "--hash", "--hash-type=md5", "--no-modtime", "--no-mimetype")
        code, data, error = await self._run("lsjson", *flags, source(self.place))
        if code == MISSING:
            # A directory that is not there is empty, a bucket that is not there is a mistake.
            code, _, error = await self._run("lsf", "--max-depth=1", self._base)
            data = b"[]"
        if code != 0:
            raise self._failed("list", "", error)
        return bucket(json.loads(data))

    async def read(self, name: str) -> bytes:
        return await self._do("read", name, "cat", f"{self.place}/{name}")

    async def write(self, name: str, data: bytes) -> None:
        """A small object, as a whole."""
        file = self._scratch / "object"
        file.write_bytes(data)
        await self._do("write", name, "copyto", "--ignore-times", str(file), f"{self.place}/{name}")

    async def remove(self, names: Collection[str]) -> None:
        """Objects that may be gone already."""
        if names:
            await self._do("delete", min(names), "delete", self._list(names), source(self.place))

    async def send(self, root: str, names: Collection[str], jobs: int, listen: Listener) -> None:
        """Files below the local directory `root`, each whatever the bucket holds of it; rclone sends their checksums.

        Raises MountdError when one of them changes meanwhile.
        """
        flags = ("--ignore-times", "--no-traverse", "--copy-links", f"--transfers={jobs}", self._list(names))
        code, _, error = await self._run("copy", *flags, root, source(self.place), listen=listen)
        if CHANGED in error:
            raise MountdError(f"cannot publish {root}: a file changed while it was sent: {error}")
        if code != 0:
            raise self._failed("send to", "", error)

    async def sha256(self, names: Collection[str], jobs: int, listen: Listener) -> dict[str, str]:
        """Of what is stored, read back as a whole: path → sha256 in hex."""
        flags = ("--download", f"--checkers={jobs}", f"--transfers={jobs}", self._list(names))
        data = await self._do("read back", "", "hashsum", "sha256", *flags, source(self.place), listen=listen)
        lines = data.decode(errors="surrogateescape").splitlines()
        return {path: digest for digest, _, path in (line.partition("  ") for line in lines)}

    def _list(self, names: Collection[str]) -> str:
        file = self._scratch / "names"
        file.write_text("".join(f"{name}\n" for name in names), "utf-8")
        return f"--files-from-raw={file}"

    def _failed(self, verb: str, name: str, error: str) -> RemoteError:
        failure = classify(log.mask(error, self._secrets))
        where = f"{self.place}/{name}" if name else self.place
        return RemoteError(f"cannot {verb} {where}: {failure.text}", hint=failure.hint, code=failure.code)

    async def _do(self, verb: str, name: str, *words: str, listen: Listener = lambda _: None) -> bytes:
        """Its stdout. `verb`, `name`: what is done to which object, for the error."""
        code, data, error = await self._run(*words, listen=listen)
        if code != 0:
            raise self._failed(verb, name, error)
        return data

    async def _run(self, *words: str, listen: Listener = lambda _: None) -> tuple[int, bytes, str]:
        """Exit code, stdout, and the last error that rclone logged."""
        with os.fdopen(os.memfd_create("rclone-stdout"), "w+b") as answer:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=answer,
                    stderr=asyncio.subprocess.PIPE,
                    cwd="/",
                    env=self._environment,
                    limit=MAX_LINE_BYTES,
                    pass_fds=(self._lock,),
                    preexec_fn=_stop_with_parent,  # no thread of ours holds a lock now: those that hash are done
                )
            except OSError as error:
                raise RemoteError(f"cannot run {self._argv[0]}: {cause_of(error)}") from None
            assert process.stderr is not None
            try:
                last_error = await self._follow(process.stderr, listen)
                code = await process.wait()
            finally:
                await _stop(process)
            answer.seek(0)
            data = answer.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise RemoteError(f"cannot read an answer of more than {MAX_ANSWER_BYTES} bytes")
        return code, data, last_error

    async def _follow(self, stream: asyncio.StreamReader, listen: Listener) -> str:
        last_error = ""
        silent = 0
        while True:
            try:
                line = await asyncio.wait_for(stream.readline(), 1.0)
            except TimeoutError:
                silent += 1  # seconds in which we ran too: one that was stopped with us has not hung
                if silent > SILENT_S:
                    text = f"cannot go on: rclone wrote nothing for {SILENT_S} s"
                    raise RemoteError(text, code="rclone-error") from None
                continue
            except ValueError:
                continue  # longer than any line that matters
            if not line:
                return last_error
            silent = 0
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    listen(record)
            event = log.parse(line, self._secrets)
            if event.level == "error" or event.text.startswith("Failed to "):
                last_error = f"{event.keys['object']}: {event.text}" if "object" in event.keys else event.text


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Gracefully, so that it withdraws the parts of what it has not sent whole; it does not outlast this call."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)


def _stop_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
