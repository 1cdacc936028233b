"""A Git repository as the source of the wanted version: a child process reads it, with limits of time and size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mountd.errors import CommandTimeout, MountdError, Unavailable, cause_of
from mountd.gitops import git_worker
from mountd.gitops.git_command import REMOTE, GitSecrets, environment, explain, place
from mountd.gitops.wanted import MAX_BYTES, UNREACHABLE, WantedVersion, parse
from mountd.process import directories, tool
from mountd.process.slow_disk import SlowDisk
from mountd.rclone import private_file
from mountd.settings.secret import ReadSecrets, SecretRef
from mountd.settings.sync import GitSettings
from mountd.text import storable

log = structlog.get_logger()

T = TypeVar("T")
JITTER = 0.1
"""Of the interval, more or less: machines that were started at the same time do not keep asking at the same time."""
DISK_S = 5.0
AUTHOR_CHARACTERS, MESSAGE_CHARACTERS = 128, 256


@dataclass(frozen=True, slots=True)
class GitPlaces:
    """`scratch`: a directory for what is fetched, removed soon; `private`: one for the key, readable by nobody else.

    `turn`: of all sources that use these for the same model. A reload replaces a source that may still be reading.
    """

    scratch: Path
    private: Path
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class GitSource:
    """Of one model; `marks`: variables that identify the child as this mountd's."""

    kind = "git"

    def __init__(
        self, model: str, git: GitSettings, *, read_secrets: ReadSecrets, places: GitPlaces, marks: Mapping[str, str]
    ) -> None:
        self._git = git
        self._read_secrets = read_secrets
        self._scratch = places.scratch / model
        self._key_file = places.private / f"git-{model}.key"
        self._turn = places.turn
        self._marks = marks
        self._known: WantedVersion | None = None
        self._name = ""
        """the full name of the branch or tag, once it is known"""
        self._disk = SlowDisk()

    @property
    def place(self) -> str:
        return f"{place(self._git)} ({self._git.ref}: {self._git.path})"

    async def read(self, *, has_changed: bool = False) -> WantedVersion:
        """Asks which commit it is at, unless somebody says that it is another one; reads the file only of one that is
        new. Raises as `Source.read` does."""
        async with self._turn:
            try:
                return await self._read(self._name if has_changed else "")
            finally:
                with contextlib.suppress(MountdError):
                    await self._on_disk(self._clear)

    async def _read(self, name: str) -> WantedVersion:
        secrets = await self._secrets()
        await self._on_disk(self._make_room)
        answer = await self._ask(secrets, name)
        if "step" in answer:
            self._name = ""
            raise explain(str(answer["step"]), str(answer.get("said", "")), self._git)
        if self._known is None or answer["commit"] != self._known.revision:
            self._known = await asyncio.to_thread(self._wanted, answer, await self._on_disk(self._value))
        self._name = str(answer["name"])
        return self._known

    async def changed(self) -> None:
        await asyncio.sleep(self._git.interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 (no secret)

    def close(self) -> None:
        """Nothing is held between two readings."""

    async def _ask(self, secrets: GitSecrets, name: str) -> dict[str, Any]:
        git, known = self._git, (self._known.revision if self._known else None) or ""
        given = environment(git, secrets, os.environ, str(self._scratch), self._marks)
        argv = [
            sys.executable,
            "-I",
            "-S",
            git_worker.__file__,
            str(self._scratch),
            REMOTE,
            git.ref,
            git.path,
            known,
            name,
        ]
        try:
            outcome = await tool.run(argv, timeout_s=git.timeout, environment=given, flood_lines=tool.ALL_LINES)
        except CommandTimeout:
            raise Unavailable(
                f"cannot read {place(git)}: no answer in {git.timeout:g} s",
                hint="the live version stays; mountd tries again by itself",
                code=UNREACHABLE,
            ) from None
        try:
            answer = json.loads(f"\n{outcome.output}".rpartition(f"\n{git_worker.BEGINS}\n")[2])
        except ValueError:
            answer = {"step": "worker", "said": outcome.output.rpartition("\n")[2] or str(outcome)}
        return answer if isinstance(answer, dict) else {"step": "worker"}

    def _wanted(self, answer: Mapping[str, Any], value: bytes) -> WantedVersion:
        version = parse(value, self._git.key, f"{self._git.path} of {place(self._git)}")
        author, message = str(answer.get("author", "")), str(answer.get("message", ""))
        return WantedVersion(
            version,
            self.kind,
            revision=storable(str(answer["commit"]), MESSAGE_CHARACTERS),
            author=storable(author, AUTHOR_CHARACTERS),
            message=storable(message, MESSAGE_CHARACTERS),
        )

    async def _secrets(self) -> GitSecrets:
        """Raises CannotStart."""
        wanted: dict[str, SecretRef] = {}
        if self._git.token is not None:
            wanted["token"] = self._git.token
        if self._git.ssh_key is not None:
            wanted["key"] = self._git.ssh_key
        found = await self._read_secrets(wanted)
        if "key" not in found:
            return GitSecrets(token=found.get("token"))
        key = found["key"]
        await self._on_disk(lambda: private_file.replace(self._key_file, f"{key}\n"))
        return GitSecrets(key_file=str(self._key_file))

    # -- on disk, in a thread -------------------------------------------------------------------------------------

    async def _on_disk(self, work: Callable[[], T]) -> T:
        try:
            return await self._disk.run(work, DISK_S)
        except TimeoutError:
            cause = f"no answer in {DISK_S:g} s"
        except OSError as error:
            cause = cause_of(error)
        text = f"cannot read {place(self._git)}: its place on disk, {self._scratch}, cannot be used: {cause}"
        raise Unavailable(text, hint="see whether the disk of `state` is full or read-only", code=UNREACHABLE)

    def _make_room(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a run that was killed
        directories.make_private(self._scratch)

    def _value(self) -> bytes:
        with open(self._scratch / "value", "rb") as file:
            return file.read(MAX_BYTES + 1)

    def _clear(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self._key_file)
