"""`mountd publish` as a whole: what is there, what is missing, who else publishes it; sent, verified, manifest last.

Before anything is written the version gets a marker of this publisher, an object `.mountd-publishing-ID`. While a
marker is there mountd takes the version for incomplete. It is deleted when everything is verified and the manifest is
there: that one deletion makes the version visible.

Of two that write their markers at the same time, at least one sees the other's in the listing that follows, since S3
lists what was written before; one that sees another's withdraws.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mountd import __version__
from mountd.clock import now_text
from mountd.errors import Busy, MountdError, NotFound, Refused, RemoteError, UsageError
from mountd.model import manifest
from mountd.publish import hashing, plan
from mountd.publish.hashing import CHANGED_HINT, Tree
from mountd.publish.plan import Bucket, File
from mountd.publish.record import Record
from mountd.publish.upload import Listener, Store

CLAIM_CHECK_S = 10.0
AGAIN = "run the same command again: it goes on where this one ended"
Checked = Literal["size", "hash", "download", ""]
"""What was compared with the bucket."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`jobs`: files at the same time. `take_over`: go on with what somebody else has begun."""

    version: str
    required: Sequence[str]
    jobs: int
    dry_run: bool = False
    take_over: bool = False
    download_check: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` bytes; `speed` in bytes a second, `eta_s` in seconds, where they are known."""

    what: Literal["reading", "sending", "reading back"]
    done: int
    total: int
    speed: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The result; `digest` and `checked` are empty after a dry run."""

    result: Literal["published", "already-published", "would-publish"]
    digest: str
    files: int
    bytes: int
    sent: int
    sent_bytes: int
    deleted: tuple[str, ...]
    left_out: tuple[str, ...]
    checked: Checked


Report = Callable[[Progress], None]


def look_at(directory: str, asked: Asked, prefix: str) -> Tree:
    """The files to publish below the key `prefix`. Blocks. Raises NotFound, UsageError, Refused, MountdError."""
    if not os.path.isdir(directory):
        if os.path.lexists(directory):
            raise UsageError(f"cannot publish {directory}: it is not a directory")
        raise NotFound(f"cannot publish {directory}: there is no such directory")
    tree = hashing.scan(directory)
    problems = [*dict.fromkeys(tree.problems), *filter(None, (plan.name_problem(path, prefix) for path in tree.files))]
    if problems:
        hint = "`mountd publish --help` says what can be a version"
        if any("leads out" in problem for problem in problems):
            hint = "copy it with the files that its links mean, and publish that: cp -rL"
        raise Refused(f"cannot publish {directory}: {manifest.summary(problems)}", hint=hint)
    if not tree.files:
        raise Refused(f"cannot publish {directory}: there are no files in it")
    problems = [
        f"{path} is {'empty' if path in tree.files else 'missing'}, and the model requires it"
        for path in asked.required
        if path not in tree.files or tree.files[path].size == 0
    ]
    if problems:
        hint = "name the directory that holds them, or correct models.*.required"
        raise Refused(f"cannot publish {directory}: {manifest.summary(problems)}", hint=hint)
    return tree


class Publishing:
    def __init__(self, asked: Asked, tree: Tree, store: Store, record: Record, report: Report) -> None:
        self._asked, self._tree, self._store, self._record, self._report = asked, tree, store, record, report
        self._marker = f"{manifest.MARKER}{record.id}"
        self._wanted: dict[str, File] = {}
        self._data = b""
        """of the manifest, once it is known"""

    async def run(self) -> Published:
        """Raises Refused and Busy before anything is written, later MountdError: then another run goes on."""
        seen = await self._store.look()
        try:
            await self._check_claim(seen)  # before hours of reading
            self._wanted = await hashing.digests(
                self._tree,
                self._record,
                self._asked.jobs,
                lambda done, total: self._report(Progress("reading", done, total)),
            )
            await self._check_manifest(seen)
        except (Refused, Busy):
            if self._marker not in seen.markers:  # nothing was begun that another run could go on with
                self._record.forget()
            raise
        if seen.manifest and not seen.markers and not self._problems(seen):
            return await self._already(seen)
        if self._asked.dry_run:
            return self._published("would-publish", list(self._problems(seen)), self._strays(seen), "")
        seen = await self._claim(seen)
        missing, strays = list(self._problems(seen)), self._strays(seen)
        try:
            await self._store.remove(strays)
            await self._send(missing)
            checked = await self._verify(missing)
            await self._finish()
        except RemoteError as error:
            error.hint = f"{error.hint}; then {AGAIN}" if error.hint else AGAIN
            raise
        self._record.forget()
        return self._published("published", missing, strays, checked)

    def _problems(self, seen: Bucket) -> dict[str, str]:
        # A manifest vouches for content where the store reports no hashes.
        return plan.problems(self._wanted, seen.files, None if self._data else self._record.sent)

    def _strays(self, seen: Bucket) -> list[str]:
        """What an interrupted run has sent and this one does not want; see `_check_claim`."""
        # Beside a published version that lacks something they may be anybody's.
        return [] if self._data else sorted(seen.files.keys() - self._wanted.keys())

    # -- who ------------------------------------------------------------------------------------------------------

    async def _check_claim(self, seen: Bucket) -> None:
        """Raises Busy, Refused when this version is not ours to go on with."""
        others = sorted(seen.markers - {self._marker})
        if others and not self._asked.take_over:
            holder = await self._holder(others[0])
            raise Busy(
                f"cannot publish {self._asked.version}: {holder} is publishing it",
                hint="wait until it is done; if it was interrupted let it be run again there, or add --take-over here",
                holder=holder,
            )
        if seen.markers or seen.empty or seen.manifest:
            return
        if not self._asked.take_over:
            raise Refused(
                f"cannot publish {self._asked.version}: {self._store.place} holds {len(seen.files)} files that"
                " `mountd publish` did not send, and no manifest",
                hint="choose another version name, or add --take-over to keep what is equal and replace what is not",
            )
        beyond = sorted(seen.files.keys() - self._tree.files.keys())
        if beyond:  # of an interrupted run they may be deleted, these are somebody's
            raise Refused(
                f"cannot publish {self._asked.version}: {self._store.place} holds files that {self._tree.root} does"
                f" not: {manifest.summary(beyond)}",
                hint="delete them there, or add them here, or choose another version name",
            )

    async def _holder(self, marker: str) -> str:
        try:
            who = json.loads(await self._store.read(marker))
            return f"{who['user']} on {who['host']} (since {who['since']})"
        except (MountdError, ValueError, TypeError, KeyError):
            return f"somebody ({marker})"

    async def _check_manifest(self, seen: Bucket) -> None:
        """Raises Refused when the version is published with other content."""
        if not seen.manifest:
            return
        data = await self._store.read(manifest.NAME)
        different = plan.differences(data, self._asked.version, self._wanted)
        if different:
            raise Refused(
                f"cannot publish {self._asked.version}: it is published with other content:"
                f" {manifest.summary(different)}",
                hint="a version never changes: choose another name",
            )
        self._data = data

    async def _claim(self, seen: Bucket) -> Bucket:
        """Our marker is there and no other; what the bucket holds then. Raises Busy, Refused."""
        fresh = self._marker not in seen.markers
        if fresh:
            await self._store.write(self._marker, _who())
        now = await self._store.look()
        try:
            if self._marker not in now.markers:
                raise MountdError(f"cannot publish {self._asked.version}: {self._marker} was written and is not there")
            await self._check_claim(now)
            await self._check_manifest(now)
        except MountdError:
            if fresh:  # nothing was sent under it
                with contextlib.suppress(MountdError):
                    await self._store.remove([self._marker])
            raise
        await self._store.remove(now.markers - {self._marker})
        return now

    async def _still_ours(self) -> Bucket:
        now = await self._store.look()
        if self._marker not in now.markers:
            raise Busy(
                f"cannot go on with {self._asked.version}: its marker is gone, somebody else has taken it over",
                hint="let only one publish it",
            )
        return now

    # -- what -----------------------------------------------------------------------------------------------------

    async def _already(self, seen: Bucket) -> Published:
        """The same content is published; it is read back when that was asked for. Raises MountdError."""
        if bad := await self._read_back():
            raise MountdError(
                f"cannot trust {self._asked.version}: read back as something else: {manifest.summary(bad)}",
                hint="look at the store; what is damaged can be deleted there, then publish it again",
            )
        self._record.forget()
        return self._published("already-published", [], [], self._checked(seen))

    def _checked(self, seen: Bucket) -> Checked:
        if self._asked.download_check:
            return "download"
        return "hash" if all(seen.files[path].md5 for path, file in self._wanted.items() if file.size) else "size"

    async def _send(self, missing: Sequence[str]) -> None:
        if not missing:
            return
        report = self._reporter("sending", missing)

        def listen(event: Mapping[str, Any]) -> None:
            path = plan.copied(event)
            if path in self._wanted and hashing.unchanged(self._tree, path):  # or other bytes were sent than hashed
                self._record.note_sent(path, self._wanted[path].sha256)
            report(event)

        sending = asyncio.create_task(self._store.send(self._tree.root, missing, self._asked.jobs, listen))
        try:
            while not (await asyncio.wait({sending}, timeout=CLAIM_CHECK_S))[0]:
                await self._still_ours()
            await sending
        finally:
            sending.cancel()
            await asyncio.wait({sending})

    def _reporter(self, what: Literal["sending", "reading back"], paths: Iterable[str]) -> Listener:
        """Reports the progress that rclone's log shows of these files."""
        total = sum(self._wanted[path].size for path in paths)

        def report(event: Mapping[str, Any]) -> None:
            if isinstance(stats := event.get("stats"), dict):
                done = min(int(stats.get("bytes") or 0), total)
                speed = float(stats.get("speed") or 0.0)
                self._report(Progress(what, done, total, speed or None, (total - done) / speed if speed else None))

        report({"stats": {}})
        return report

    async def _verify(self, sent: Sequence[str]) -> Checked:
        """The local files are still what was hashed, and the bucket holds just these. Raises MountdError."""
        changed = await asyncio.to_thread(
            lambda: [path for path in self._tree.files if not hashing.unchanged(self._tree, path)]
        )
        if changed:
            raise MountdError(
                f"cannot publish {self._tree.root}: files have changed since they were read:"
                f" {manifest.summary(changed)}",
                hint=CHANGED_HINT,
            )
        for path in sent:
            self._record.note_sent(path, self._wanted[path].sha256)
        seen = await self._still_ours()
        problems = [f"{path} {text}" for path, text in self._problems(seen).items()]
        problems += [f"{path} is there too" for path in self._strays(seen)]
        if not problems and (bad := await self._read_back()):
            for path in bad:
                self._record.note_sent(path, "")
            await self._store.remove(bad)  # or the hash that the store reports would vouch for them
            problems = [f"{path} was read back as something else" for path in bad]
        if problems:
            raise MountdError(f"cannot publish {self._asked.version}: {manifest.summary(problems)}", hint=AGAIN)
        return self._checked(seen)

    async def _read_back(self) -> list[str]:
        """Paths whose bytes in the bucket are not what they should be, where --download-check asks for that."""
        if not self._asked.download_check:
            return []
        report = self._reporter("reading back", self._wanted)
        digests = await self._store.sha256(self._wanted, self._asked.jobs, report)
        return [path for path, file in self._wanted.items() if digests.get(path) != file.sha256]

    async def _finish(self) -> None:
        """The manifest, read back, then the marker is deleted. Raises MountdError."""
        if not self._data:
            self._data = self._render()
            await self._store.write(manifest.NAME, self._data)
        if await self._store.read(manifest.NAME) != self._data:
            raise Refused(
                f"cannot publish {self._asked.version}: its manifest was read back as another one",
                hint="somebody else publishes it too: let only one do so",
            )
        await self._still_ours()
        await self._store.remove([self._marker])

    def _render(self) -> bytes:
        files = ((path, file.size, file.sha256) for path, file in self._wanted.items())
        data = manifest.render(self._asked.version, files, created=now_text("seconds"), tool=f"mountd {__version__}")
        if len(data) > manifest.MAX_BYTES:
            raise Refused(f"cannot publish {self._asked.version}: its manifest would have {len(data)} bytes")
        return data

    def _published(
        self,
        result: Literal["published", "already-published", "would-publish"],
        sent: Sequence[str],
        deleted: Sequence[str],
        checked: Checked,
    ) -> Published:
        return Published(
            result,
            manifest.digest(manifest.parse(self._data)) if self._data else "",
            len(self._wanted),
            sum(file.size for file in self._wanted.values()),
            len(sent),
            sum(self._wanted[path].size for path in sent),
            tuple(deleted),
            tuple(self._tree.left_out),
            checked,
        )


def _who() -> bytes:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return json.dumps({"schema": 1, "user": user, "host": socket.gethostname(), "since": now_text("seconds")}).encode()
