"""The bucket probe: does the bucket answer? One small request outside the mount, often enough, and not more often."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import structlog

from mountd.errors import MountdError, RemoteError, Unavailable
from mountd.mount.engine import Engine
from mountd.mount.health import REFUSALS, SLOW_HINT, SLOW_S, BucketAnswers, Report, backend_status
from mountd.process.pace import pause
from mountd.rclone.conf_file import SecretChange
from mountd.rclone.keys import BucketEntry
from mountd.rclone.rc import AnswerTooLarge, RcTimeout, StoreFeatures, names_bucket
from mountd.status.board import PublishMount
from mountd.status.meters import MountMeters
from mountd.status.snapshot import RemoteStatus

log = structlog.get_logger()

PATIENT_S = 30.0
"""While a mount starts: a store that needs 5 s a request is slow, not away."""
NOOP_S = 1.0
TIMEOUT_S = 10.0
"""While it runs: two requests of 5 s. A request that was lost with its connection must not hold up the next for long:
the bucket may be back by then."""
AWAY_INTERVAL_S = 1.0
"""Between two probes of a bucket that does not answer."""
TROUBLE_INTERVAL_S = 2.0
"""Errors that rclone logs make the next probe come early, but not more often than this."""
SLOT_S = 0.5
"""A request that takes a probe's slot is answered by then, or the bucket is probed besides."""
SLOT_PATIENCE = 3
"""A request waits so many probe intervals for a slot: while the bucket is not well there is none."""
SECRETS_INTERVAL_S = 2.0
SHORTEST_S = 1.0
WITNESS_ENTRIES = 1000
"""One request gives as many."""
WITNESS_BYTES = 2 * 1024 * 1024
"""rclone's answer about so many entries, with long names."""
_SAYS_NO = frozenset({"bucket-missing", "directory-missing", "access-denied"})


@dataclass(frozen=True, slots=True)
class Witness:
    """A directory of `remote` that held something when the mount started: an answer that it is empty is a reason to
    doubt the answer. `kept`: nobody deletes through the mount."""

    remote: str
    directory: str
    kept: bool


class SharedProbeSlot:
    """Of one bucket, which is probed every `interval_s()` seconds: a request that has time takes the place of a probe,
    so that an unused mount stays quiet."""

    def __init__(self, interval_s: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._waiting: deque[tuple[asyncio.Event, asyncio.Future[bool]]] = deque()

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Begins when it is time to ask; an exception within means no answer. Raises Unavailable when it never is."""
        granted = asyncio.Event()
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((granted, done))
        begun = answered = False
        try:
            async with asyncio.timeout(SLOT_PATIENCE * self._interval_s()):
                await granted.wait()
            begun = True
            yield
            answered = True
        except TimeoutError:
            if begun:  # a slot that is granted as the time ends is not taken
                raise
            raise Unavailable("cannot ask the bucket: it is not well, or its mount does not run") from None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove((granted, done))
            done.set_result(answered)

    def grant(self) -> asyncio.Future[bool] | None:
        """It is time to probe: the slot goes to the request that has waited longest; None: there is none.

        The result is there once that has ended: whether it was answered.
        """
        if not self._waiting:
            return None
        granted, done = self._waiting.popleft()
        granted.set()
        return done


class BucketProbe:
    """`status` is the last answer, `answers` says when there was one. `meters` count the probes."""

    def __init__(self, engine: Engine, publish: PublishMount, meters: MountMeters | None = None) -> None:
        self.slot = SharedProbeSlot(lambda: engine.mount.health.backend)
        self.status = RemoteStatus()
        self.answers = BucketAnswers()
        self.witness: Witness | None = None
        self._engine = engine
        self._publish = publish
        self._meters = meters or MountMeters()
        self._features: StoreFeatures | None = None
        self._asks_root = False
        self._is_store = False
        self._usable = False
        # A directory that has become large takes too long, and so does a bucket that is away: only when the bucket
        # answers without the witness, and then again not with it, the witness is to blame.
        self._was_late = self._skips_witness = False

    def begin(self) -> None:
        """A new rclone starts, possibly with another remote."""
        self._features, self._asks_root, self._is_store = None, False, False
        if self.witness is not None and self.witness.remote != self._remote:
            self.witness = None

    @property
    def _remote(self) -> str:
        return self._engine.mount.remote

    @property
    def is_refusing(self) -> bool:
        """The bucket says no: other credentials could change that."""
        return self.status.reason is not None and self.status.reason.code in REFUSALS

    @property
    def is_asked_for_room(self) -> bool:
        """Whether a `statfs` of the mount may wait for the bucket; so it may as long as that is not known."""
        return self._features is None or self._features.reports_room

    async def run(self, report: Report) -> None:
        """Until a new rclone is needed, else until cancelled."""
        while True:
            began = time.monotonic()
            usable = await self.probe(TIMEOUT_S)
            report(answers=self.answers)
            if not usable and self.is_refusing and await self._engine.has_stale_secrets():
                report(restart="the store refuses the old credentials: starting again with the new ones")
                return
            if self._engine.signs_with_old_secret(usable=usable):
                report(restart="rclone still uses the old secret of its key: starting again with the new one")
                return
            if usable:
                took_s = time.monotonic() - began
                is_slow = self.status.reason is not None
                await self._until_due(pause_s(self._engine.mount.health.backend, took_s=took_s, is_slow=is_slow))
                await asyncio.sleep(max(0.0, TROUBLE_INTERVAL_S - (time.monotonic() - began)))
            else:
                await asyncio.sleep(AWAY_INTERVAL_S)

    async def _until_due(self, pause_s: float) -> None:
        """For `pause_s` seconds, and as long as then each time another request takes the slot and is answered soon."""
        trouble = self._engine.trouble
        while not await self._is_trouble(pause_s):
            request = None if self.status.reason else self.slot.grant()
            if request is None:
                return
            await asyncio.wait({request}, timeout=SLOT_S)
            if not request.done() or not request.result() or trouble.is_set():
                return

    async def _is_trouble(self, limit_s: float) -> bool:
        """Whether rclone logs an error within `limit_s` seconds."""
        trouble = self._engine.trouble
        trouble.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await trouble.wait()
        return trouble.is_set()

    def hurry(self) -> None:
        """Something may wait for the bucket: the next probe comes early."""
        self._engine.trouble.set()

    async def probe(self, timeout_s: float) -> bool:
        """Whether the bucket gives what it is asked; the board shows the answer, and that there is none yet."""
        asking = asyncio.ensure_future(self.ask(timeout_s))
        try:
            answered, _ = await asyncio.wait({asking}, timeout=SLOW_S)
            if not answered:
                await self.miss()
                self._show()
            usable = await asking
        finally:
            asking.cancel()
        self._show()
        return usable

    def _show(self) -> None:
        self._publish(lambda status: replace(status, backend=self.status))

    async def could_start(self) -> bool:
        """Whether a new rclone could start now: the bucket gives what it is asked, or refuses."""
        if self._usable or self.is_refusing:
            await self.probe(TIMEOUT_S)
        return self._usable or self.is_refusing

    async def ask(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether the bucket gives what it is asked; a slow one does."""
        began = time.monotonic()
        code = text = hint = ""
        try:
            await self._request(began + timeout_s)
        except RemoteError as error:
            late = time.monotonic() - began >= timeout_s
            code, hint = "bucket-silent" if late else error.code, error.hint
            text = f"cannot read {self._remote}: {error.text}"
        except MountdError:
            return False  # rclone itself did not answer, which says nothing of the bucket
        took_s = time.monotonic() - began
        self._meters.bucket_probe.add(took_s)
        self._meters.failed_bucket_probes += bool(code)
        self._learn(began, took_s=took_s, code=code, text=text, hint=hint)
        return not code

    async def _request(self, deadline: float) -> None:
        """Lists the witness, else what holds nothing: of a large root each thousand entries would cost a request.

        Where the bucket says no to that, listing the root decides; and from then on, when it does not.
        """
        rc = self._engine.rc
        said_no = False
        if await self._has_buckets(deadline) and names_bucket(self._remote) and not self._asks_root:
            try:
                await self._list_small(deadline)
            except RemoteError as error:
                if error.code not in _SAYS_NO:
                    raise
                said_no = True
            else:
                return
        await rc.probe_bucket(self._remote, _left_s(deadline), "")
        self._asks_root |= said_no

    async def _list_small(self, deadline: float) -> None:
        witness = None if self._skips_witness else self.witness
        if witness is None:
            await self._engine.rc.probe_bucket(self._remote, _left_s(deadline))
            self._skips_witness = False
            if not self._is_store:
                await self._expose(deadline)
            return
        found = await self._see(witness, deadline)
        if found is not None and not found:
            await self._doubt(witness, deadline)
        elif found is None or len(found) > WITNESS_ENTRIES:
            self.witness = None

    async def _see(self, witness: Witness, deadline: float) -> list[BucketEntry] | None:
        """What the witness holds; None: too much for a frequent request. Raises RemoteError, RcTimeout."""
        try:
            found = await self._engine.rc.probe_bucket(
                self._remote, _left_s(deadline), witness.directory, most_bytes=WITNESS_BYTES
            )
        except AnswerTooLarge:
            return None
        except (RemoteError, RcTimeout):
            if time.monotonic() >= deadline and not self._skips_witness:  # else of a request from before
                if self._was_late:
                    self.witness = None
                self._was_late = self._skips_witness = not self._was_late
            raise
        self._was_late = False
        return found

    async def confirm(self) -> None:
        """After an answer that something is not there: that the store gives valid answers. Raises RemoteError,
        Unavailable."""
        deadline = time.monotonic() + TIMEOUT_S
        await self._request(deadline)
        if await self._has_buckets(deadline):
            await self._expose(deadline)

    async def _doubt(self, witness: Witness, deadline: float) -> None:
        """The witness is gone: was it deleted, or was that no valid answer? Raises RemoteError."""
        if not await self._engine.rc.probe_bucket(self._remote, _left_s(deadline), ""):
            await self._expose(deadline)
            if witness.kept:
                where = f"{witness.directory}/" if witness.directory else "something"
                raise RemoteError(
                    f"the bucket says that it is empty, but it held {where} when the mount started",
                    hint="something else may answer in the store's place, or all was deleted: look at the store itself",
                    code="bucket-empty",
                )
        self.witness = None

    async def _expose(self, deadline: float) -> None:
        """What gives whatever it is asked for is no object store. Raises RemoteError."""
        try:
            pretends = await self._engine.rc.invents_objects(self._remote, _left_s(deadline))
        except RemoteError as error:
            if error.code not in _SAYS_NO:
                raise
            pretends = False
        if pretends:
            raise RemoteError(
                "what answers in the store's place is no object store: it has whatever it is asked for",
                hint="a login page or a proxy answers there: open the endpoint with curl, and correct the way to it",
                code="bucket-invalid",
            )
        self._is_store = True

    async def _has_buckets(self, deadline: float) -> bool:
        if self._features is None:
            try:
                self._features = await self._engine.rc.features(self._remote, _left_s(deadline) / 2)
            except MountdError:
                return False  # the listing says why
        return self._features.has_buckets

    async def miss(self) -> None:
        """There is no answer after SLOW_S: that much is known before the request ends, if rclone itself answers."""
        before = self.answers
        if self.status.reason is None and await self.rclone_answers() and self.answers is before:
            text = f"cannot read {self._remote}: the store has not answered for {SLOW_S:g} s"
            self._learn(0.0, took_s=SLOW_S, code="bucket-slow", text=text, hint=SLOW_HINT)

    async def rclone_answers(self, timeout_s: float = NOOP_S) -> bool:
        """Whether rclone itself is responsive, whatever its mount and the bucket do."""
        try:
            await self._engine.rc.call("rc/noop", timeout_s=timeout_s)
        except MountdError:
            return False
        return True

    def _learn(self, asked_at: float, *, took_s: float, code: str, text: str, hint: str) -> None:
        status = backend_status(self._remote.partition(":")[0], took_s=took_s, code=code, text=text, hint=hint)
        before, now = self.status.reason, status.reason
        self.status, self._usable = status, not code
        if now is None:
            self.answers = replace(self.answers, quick_at=asked_at)
        else:
            self.answers = replace(self.answers, bad_at=time.monotonic())
        if (before and before.code) == (now and now.code):
            return
        if now is None:
            log.info("bucket answers again", remote=self._remote)
        else:
            log.warning("bucket has a problem", remote=self._remote, cause=now.text, hint=now.hint)


def pause_s(interval_s: float, *, took_s: float, is_slow: bool) -> float:
    """After an answer that took `took_s`. That a slow bucket is quick again is seen within `interval_s`, like any
    other change."""
    return max(AWAY_INTERVAL_S, interval_s - AWAY_INTERVAL_S - took_s) if is_slow else interval_s


def _left_s(deadline: float) -> float:
    return max(SHORTEST_S, deadline - time.monotonic())


@dataclass(slots=True, eq=False)
class SecretsProbe:
    """New keys reach rclone, and tokens that it renewed are kept, whatever the configuration file says.

    What only a new rclone reads waits while the bucket is away: a new one could not serve what is cached.
    """

    engine: Engine
    bucket: BucketProbe

    async def run(self, report: Report) -> None:
        """Until a new rclone is needed, else until cancelled."""
        waits = False
        while True:
            await pause(SECRETS_INTERVAL_S)
            if await self.engine.refresh_secrets() is not SecretChange.REMOUNT:
                continue
            if await self.bucket.could_start():
                report(restart="a secret has changed that only a new rclone reads")
                return
            if not waits:
                log.info("a secret has changed, and the remount waits for the bucket", mount=self.engine.name)
            waits = True
