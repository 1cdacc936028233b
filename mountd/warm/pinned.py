"""The pinned versions of all models: which there are, and how one is brought here. Disk work is done in threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from mountd.errors import Refused, Unavailable
from mountd.process.slow_disk import SlowDisk
from mountd.text import printable
from mountd.warm import pins
from mountd.warm.adopt import adopt
from mountd.warm.pins import PinFit, PinRecord
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, WarmProgress, raise_faults
from mountd.warm.store import PinStore, SweptPins, Version

log = structlog.get_logger()

DIRECTORY = "pins"
LOOK_LIMIT_S = 60.0
VERIFY_LIMIT_S = 6 * 3600.0
BUILD_LIMIT_S = 1800.0
"""12 GB that an SD card with 10 MB/s has still to write take 1,200 s."""
REPORT_S = 0.25
"""As often as a fetch reports."""
RESERVE = 0.05
"""Of the file system stays free."""
RESERVE_BYTES = 1024**3
"""And no more than that."""

T = TypeVar("T")
Needed = Callable[[], Collection[str] | None]
"""Versions that stay, asked as late as it matters, also in a thread; None: all do."""
Bring = Callable[[Sequence[WantedFile], Path, Callable[[WarmProgress], None]], Awaitable[FetchResult]]
"""Fetches these files into that directory, see `warm.fetch.fetch_into`; reports how far it is."""


@dataclass(frozen=True, slots=True)
class PinOrder:
    """What is to be pinned: all files of a version, `digest` that of its manifest. `adopt`: directories that may hold
    files of it already, of which nothing in `excluded` is looked at. For want of room the copies of `model` go that are
    not among `needed` versions nor those pinned last, up to `keep` in all."""

    model: str
    version: str
    digest: str
    files: Sequence[WantedFile] = field(repr=False)
    adopt: Sequence[str] = ()
    excluded: Collection[str] = ()
    needed: Needed = lambda: None
    keep: int = 0


class Pins:
    """`record` and `tree` answer from memory; the rest raises MountdError, Unavailable when the disk is silent."""

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        """`environment`: the marks for the orphans of a run of mountd."""
        self._place = state / DIRECTORY
        self._environment = environment
        self._disk = SlowDisk()
        self._checks = SlowDisk()
        """of the same disk: to hash a copy may take hours, and changes nothing that others would have to wait for"""
        self._store: PinStore | None = None
        self._records: dict[Version, PinRecord] = {}
        self._arriving: Counter[str] = Counter()
        """sha256 of what is being pinned"""
        self._pinning: Counter[Version] = Counter()
        self._held: set[str] = set()
        """those of them that one `pin` brings here and no other may, until it has ended"""
        self._released = asyncio.Condition()

    async def load(self) -> None:
        """Reads what is pinned, where anything ever was."""
        if await self._run(self._place.is_dir, LOOK_LIMIT_S):
            store = await self._open()
            self._records = await self._run(store.versions, LOOK_LIMIT_S)

    def record(self, model: str, version: str) -> PinRecord | None:
        """None: it is not pinned."""
        return self._records.get((model, version))

    def versions(self, model: str) -> list[str]:
        """Those of `model` that are pinned."""
        return [version for name, version in [*self._records] if name == model]  # a thread may remove one

    def tree(self, model: str, version: str) -> str:
        """Where the files of a pinned version lie."""
        return str(self._place / "trees" / model / version)

    def version_of(self, model: str, path: str) -> str | None:
        """The version of `model` whose tree this is, pinned or not; None for any other path."""
        above, _, version = path.rpartition("/")
        return version if version and above == str(self._place / "trees" / model) else None

    async def pin(self, order: PinOrder, bring: Bring, report: Callable[[WarmProgress], None]) -> PinRecord:
        """Pins a version: what lies here is used, what lies in `order.adopt` adopted, the rest fetched and checked.

        What has other bytes than the manifest says is fetched once more. Raises Refused when it differs again, when a
        file has no sha256, or when there is no room; what was brought stays for the next try.
        """
        store, files = await self._open(), order.files
        sizes = pins.needed(files)
        self._arriving.update(sizes)
        self._pinning[order.model, order.version] += 1
        try:
            return await self._pin(store, order, bring, sum(sizes.values()), report)
        finally:
            self._arriving.subtract(sizes)
            self._arriving = +self._arriving
            self._pinning[order.model, order.version] -= 1
            self._pinning = +self._pinning

    async def _pin(
        self, store: PinStore, order: PinOrder, bring: Bring, total: int, report: Callable[[WarmProgress], None]
    ) -> PinRecord:
        files = order.files
        lacking = await self._run(lambda: store.lacking(files), LOOK_LIMIT_S)
        async with self._alone(frozenset(lacking), lambda why: report(_waiting(why, total, lacking))):
            lacking = await self._run(lambda: store.resume(files), BUILD_LIMIT_S)
            if lacking and order.adopt:
                lacking = await self._adopt(store, order)
            if lacking:
                await self._make_room(store, order, lacking)
                there = total - sum(lacking.values())
                await self._bring(bring, _first_of_each(files, lacking), store, lambda now: report(now.shifted(there)))
                await self._run(lambda: store.accept_all(lacking), BUILD_LIMIT_S)
        record = await self._run(
            lambda: store.build(order.model, order.version, files, digest=order.digest), BUILD_LIMIT_S
        )
        self._records[order.model, order.version] = record
        log.info(
            "version is pinned", model=order.model, version=order.version, bytes=total, fetched=sum(lacking.values())
        )
        return record

    @contextlib.asynccontextmanager
    async def _alone(self, contents: frozenset[str], waits: Callable[[str], None]) -> AsyncIterator[None]:
        """`incoming` has one file of each content: a pin that brings one of these waits for another that does."""
        async with self._released:
            while not self._held.isdisjoint(contents):
                waits("another version that is being pinned has files in common with it")
                await self._released.wait()
            self._held |= contents
        try:
            yield
        finally:
            async with self._released:
                self._held -= contents
                self._released.notify_all()

    async def _adopt(self, store: PinStore, order: PinOrder) -> dict[str, int]:
        adoption = await adopt(
            store,
            order.files,
            order.adopt,
            disk=self._disk,
            environment=self._environment,
            excluded=order.excluded,
        )
        for note in adoption.notes:
            log.warning("cannot adopt", model=order.model, cause=note)
        found = sum(each.bytes for each in adoption.adopted)
        log.info("files adopted", model=order.model, files=len(adoption.adopted), bytes=found)
        return await self._run(lambda: store.lacking(order.files), LOOK_LIMIT_S)

    async def _bring(
        self, bring: Bring, wanted: Sequence[WantedFile], store: PinStore, report: Callable[[WarmProgress], None]
    ) -> None:
        result = await bring(wanted, store.incoming, report)
        if differing := [fault.path for fault in result.faults if fault.code == "digest-differs"]:
            log.warning("fetched bytes differ from the manifest: fetching them again", files=differing[:10])
            again = [each for each in wanted if each.path in set(differing)]
            others = [fault for fault in result.faults if fault.code != "digest-differs"]
            result = await bring(again, store.incoming, report)
            result = FetchResult(result.bytes_read, (*others, *result.faults))
        raise_faults(result)

    async def _make_room(self, store: PinStore, order: PinOrder, lacking: Mapping[str, int]) -> None:
        """Removes what need not stay, if that makes room for what is `lacking`: bytes by sha256. Raises Refused when it
        does not."""
        needed = sum(lacking.values())
        usage = await self._run(store.usage, LOOK_LIMIT_S)
        reserve = min(RESERVE_BYTES, int(usage.total_bytes * RESERVE))
        free = usage.free_bytes + await self._run(lambda: store.arrived(lacking), LOOK_LIMIT_S)
        if pins.fit(needed, free, 0, reserve) is PinFit.FITS:
            return

        def stays() -> Collection[str] | None:
            others = order.needed()
            return None if others is None else {*others, order.version}

        def look() -> int:
            arriving = set(self._arriving)
            kept = self._kept(order.model, stays, order.keep)
            return usage.incoming_bytes - store.arrived(arriving) + store.could_go(kept, arriving)

        could_go = await self._run(look, LOOK_LIMIT_S)
        if pins.fit(needed, free, could_go, reserve) is PinFit.AFTER_SWEEP:
            await self.keep_only(order.model, stays, order.keep)
            return
        why = pins.no_room(order.version, needed, free, could_go, reserve)
        raise Refused(f"cannot pin {order.version}: {why}", hint=f"free space on the disk of {self._place}")

    def _kept(self, model: str, needed: Needed, keep: int) -> set[Version]:
        """Which trees stay; called in a thread as late as it is used: another version may have been pinned before."""
        records, stays = dict(self._records), needed()
        if stays is None:
            return set(records) | set(self._pinning)
        return pins.kept(records, model, stays, keep) | set(self._pinning)

    async def keep_only(self, model: str, needed: Needed, keep: int) -> None:
        """Removes trees of `model`, but not of `needed` versions nor of those pinned last, up to `keep` in all.

        What no tree needs then goes as well.
        """
        if self._store is not None:
            store = self._store

            def sweep() -> SweptPins:
                kept = self._kept(model, needed, keep)
                for version in set(self._records) - kept:  # in the thread: nobody may wait for its end any more
                    self._records.pop(version, None)
                return store.sweep(kept, set(self._arriving))

            swept = await self._run(sweep, BUILD_LIMIT_S)
            if swept.trees:
                log.info("pinned versions removed", versions=[*map("/".join, swept.trees)], bytes=swept.bytes)

    async def verify(self, model: str, version: str, progress: Callable[[int, int], None]) -> None:
        """Hashes all files of a pinned version; `progress` is called with bytes, each REPORT_S seconds and at the end.

        Raises Refused for damaged ones, which the next `pin` fetches again. The tree stays: an app may read the other
        files of it."""
        store, loop = await self._open(), asyncio.get_running_loop()
        stop, due = threading.Event(), 0.0

        def hear(done: int, total: int) -> None:
            if not stop.is_set():  # else the caller has gone on without it
                progress(done, total)

        def relay(done: int, total: int) -> None:
            nonlocal due
            if (now := time.monotonic()) >= due or done >= total:
                due = now + REPORT_S
                loop.call_soon_threadsafe(hear, done, total)

        try:
            damaged = await self._run(
                lambda: store.verify(model, version, relay, stop.is_set), VERIFY_LIMIT_S, self._checks
            )
        finally:
            stop.set()
        if damaged:
            names = ", ".join(printable(each.path) for each in damaged[:5])
            await self._run(lambda: store.drop([each.sha256 for each in damaged]), BUILD_LIMIT_S)
            raise Refused(
                f"cannot use pinned version {version}: its copy is damaged: {names}",
                hint="the next try fetches these files again; look at its disk",
                code="digest-differs",
            )

    async def remove(self, model: str, version: str) -> None:
        """The tree of one version."""
        store = await self._open()
        self._records.pop((model, version), None)
        await self._run(lambda: store.remove(model, version), BUILD_LIMIT_S)

    async def _open(self) -> PinStore:
        if self._store is None:
            self._store = await self._run(lambda: PinStore(self._place), LOOK_LIMIT_S)
        return self._store

    async def _run(self, work: Callable[[], T], limit_s: float, disk: SlowDisk | None = None) -> T:
        try:
            return await (disk or self._disk).run(work, limit_s)
        except TimeoutError:
            raise Unavailable(
                f"cannot use the pinned versions: no answer in {limit_s:g} s", hint=f"look at the disk of {self._place}"
            ) from None


def _waiting(why: str, total: int, lacking: Mapping[str, int]) -> WarmProgress:
    return WarmProgress(total - sum(lacking.values()), total, 0.0, None, 0, 0, readers=0, waits_for=why)


def _first_of_each(files: Sequence[WantedFile], lacking: Collection[str]) -> list[WantedFile]:
    """One file of each sha256 that is lacking, in the order of the files."""
    found: dict[str | None, WantedFile] = {}
    for each in files:
        if each.sha256 in lacking:
            found.setdefault(each.sha256, each)
    return list(found.values())
