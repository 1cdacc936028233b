"""The second health question: does the bucket answer? One small request outside the mount."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from enum import Enum

import structlog

from mountd.errors import MountdError, RemoteError
from mountd.mount.engine import Engine
from mountd.mount.health import SLOW_HINT, SLOW_S, Answers, backend_status, is_refusal
from mountd.rclone.rc import AnswerTooLarge, BucketEntry, RcTimeout, StoreFeatures, names_bucket
from mountd.status.snapshot import RemoteStatus

log = structlog.get_logger()

PATIENT_S = 30.0
"""While a mount starts: a store that needs 5 s a request is slow, not away."""
NOOP_S = 1.0
TIMEOUT_S = 10.0
"""While it runs: two requests of 5 s. A question that was lost with its connection must not hold up the next for
long: the bucket may be back by then."""
SHORTEST_S = 1.0
WITNESS_ENTRIES = 1000
"""One request gives as many."""
WITNESS_BYTES = 2 * 1024 * 1024
"""rclone's answer about so many entries, with long names."""
_SAYS_NO = frozenset({"bucket-missing", "directory-missing", "access-denied"})


@dataclass(frozen=True, slots=True)
class Witness:
    """A directory of `remote` that held something when the mount began: an answer that it is empty is a reason to
    doubt the answer. `kept`: nobody deletes through the mount."""

    remote: str
    directory: str
    kept: bool


class Late(Enum):
    """Whether the witness answers in time. A directory that has become large takes too long, and so does a bucket that
    is away: only when the bucket answers without the witness, and then not with it, the witness is to blame."""

    NO = enum.auto()
    ONCE = enum.auto()
    """the next request goes without it"""
    ON_PROBATION = enum.auto()
    """the bucket has answered without it since"""


class Backend:
    """`status` is the last answer, `answers` says when there was one."""

    def __init__(self, remote: str, engine: Engine) -> None:
        self.status = RemoteStatus()
        self.answers = Answers()
        self.remote = remote
        self._engine = engine
        self._features: StoreFeatures | None = None
        self._asks_root = False
        self._is_store = False
        self._usable = False
        self.witness: Witness | None = None
        self._late = Late.NO

    def begin(self) -> None:
        """A new rclone starts, perhaps with another remote."""
        self._features, self._asks_root, self._is_store = None, False, False
        if self.witness is not None and self.witness.remote != self.remote:
            self.witness = None

    @property
    def is_refusing(self) -> bool:
        """The bucket says no: other credentials could change that."""
        return self.status.reason is not None and is_refusal(self.status.reason.code)

    @property
    def could_begin(self) -> bool:
        """Whether a new rclone could begin, as far as is known: the bucket gives what it is asked, or refuses."""
        return self._usable or self.is_refusing

    @property
    def is_asked_for_room(self) -> bool:
        """Whether a `statfs` of the mount may wait for the bucket; so it may as long as that is not known."""
        return self._features is None or self._features.reports_room

    async def ask(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether the bucket gives what it is asked; a slow one does."""
        name = self.remote.partition(":")[0]
        began = time.monotonic()
        try:
            await self._question(began + timeout_s)
            status = backend_status(name, took_s=time.monotonic() - began)
            usable = True
        except RemoteError as error:
            took_s = time.monotonic() - began
            text = f"cannot read {self.remote}: {error.text}"
            code = "bucket-silent" if took_s >= timeout_s else error.code
            status = backend_status(name, took_s=took_s, code=code, text=text, hint=error.hint)
            usable = False
        except MountdError:
            return False  # rclone itself did not answer: that is the beat's question, not the bucket's
        self._learn(status, began, usable=usable)
        return usable

    async def _question(self, deadline: float) -> None:
        """Lists the witness, else what holds nothing: of a large root each thousand entries would cost a request.

        Where the bucket says no to that, listing the root decides; and from then on, when it does not.
        """
        rc = self._engine.rc
        said_no = False
        if await self._has_buckets(deadline) and names_bucket(self.remote) and not self._asks_root:
            try:
                await self._knock(deadline)
            except RemoteError as error:
                if error.code not in _SAYS_NO:
                    raise
                said_no = True
            else:
                return
        await rc.list(self.remote, quick=True, timeout_s=_left_s(deadline))
        self._asks_root |= said_no

    async def _knock(self, deadline: float) -> None:
        witness = None if self._late is Late.ONCE else self.witness
        if witness is None:
            await self._engine.rc.probe_bucket(self.remote, _left_s(deadline))
            if self._late is Late.ONCE:
                self._late = Late.ON_PROBATION
            if not self._is_store:
                await self._expose(deadline)
            return
        found = await self._see(witness, deadline)
        if found is not None and not found:
            await self._doubt(witness, deadline)
        elif found is None or len(found) > WITNESS_ENTRIES:
            self.witness = None

    async def _see(self, witness: Witness, deadline: float) -> list[BucketEntry] | None:
        """What the witness holds; None: too much for a question that is asked often. Raises RemoteError, RcTimeout."""
        try:
            found = await self._engine.rc.probe_bucket(
                self.remote, _left_s(deadline), witness.directory, most_bytes=WITNESS_BYTES
            )
        except AnswerTooLarge:
            return None
        except (RemoteError, RcTimeout):
            if time.monotonic() >= deadline:
                if self._late is Late.ON_PROBATION:
                    self.witness = None
                self._late = Late.NO if self._late is Late.ON_PROBATION else Late.ONCE
            raise
        self._late = Late.NO
        return found

    async def confirm(self) -> None:
        """After an answer that something is not there: that the store gives valid answers. Raises RemoteError,
        Unavailable."""
        deadline = time.monotonic() + TIMEOUT_S
        await self._question(deadline)
        if await self._has_buckets(deadline):
            await self._expose(deadline)

    async def _doubt(self, witness: Witness, deadline: float) -> None:
        """The witness is gone: was it deleted, or was that no valid answer? Raises RemoteError."""
        if not await self._engine.rc.list(self.remote, quick=True, timeout_s=_left_s(deadline)):
            await self._expose(deadline)
            if witness.kept:
                where = f"{witness.directory}/" if witness.directory else "something"
                raise RemoteError(
                    f"the bucket says that it is empty, but it held {where} when the mount began",
                    hint="something else may answer in the store's place, or all was deleted: look at the store itself",
                    code="bucket-empty",
                )
        self.witness = None

    async def _expose(self, deadline: float) -> None:
        """What gives whatever it is asked for is no object store. Raises RemoteError."""
        try:
            pretends = await self._engine.rc.invents_objects(self.remote, _left_s(deadline))
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
                self._features = await self._engine.rc.features(self.remote, _left_s(deadline) / 2)
            except MountdError:
                return False  # the listing tells why
        return self._features.has_buckets

    async def miss(self) -> None:
        """The question is not answered after SLOW_S: that much is known before it ends, if rclone itself answers."""
        before = self.answers
        if self.status.reason is None and await self.rclone_answers() and self.answers is before:
            name = self.remote.partition(":")[0]
            text = f"cannot read {self.remote}: the store has not answered for {SLOW_S:g} s"
            status = backend_status(name, took_s=SLOW_S, code="bucket-slow", text=text, hint=SLOW_HINT)
            self._learn(status, 0.0, usable=False)

    async def rclone_answers(self, timeout_s: float = NOOP_S) -> bool:
        """Whether rclone itself is awake, whatever its mount and the bucket do."""
        try:
            await self._engine.rc.call("rc/noop", timeout_s=timeout_s)
        except MountdError:
            return False
        return True

    def _learn(self, status: RemoteStatus, asked_at: float, *, usable: bool) -> None:
        self._report(status)
        self.status, self._usable = status, usable
        answers = self.answers
        if status.reason is None:
            self.answers = Answers(asked_at, answers.bad_at)
        else:
            self.answers = Answers(answers.quick_at, time.monotonic())

    def _report(self, status: RemoteStatus) -> None:
        before, now = self.status.reason, status.reason
        if (before and before.code) == (now and now.code):
            return
        if now is None:
            log.info("bucket answers again", remote=self.remote)
        else:
            log.warning("bucket has a problem", remote=self.remote, cause=now.text, hint=now.hint)


def _left_s(deadline: float) -> float:
    return max(SHORTEST_S, deadline - time.monotonic())
