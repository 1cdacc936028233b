"""One target of notifications: reads the journal behind its cursor, and delivers what the rules choose, in order."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from mountd.clock import now, now_text
from mountd.errors import MountdError
from mountd.journal.journal import UPLOADED, EventRecord, Journal, NotifyCursor
from mountd.notify import rules
from mountd.notify.cloudevent import event_id
from mountd.notify.delivery import Advice, OutgoingMessage, Sender, SenderDeps, Undelivered
from mountd.notify.rules import Notification, Rules, SendDecision, TargetState
from mountd.process.lifecycle import Backoff
from mountd.process.resources import of_the_machine
from mountd.settings.notify import NotifySettings
from mountd.status.notify import NotifyStatus

log = structlog.get_logger()

PAGE = 500
"""Events that are read at once: a decision looks at so many."""
AGAIN = Backoff(1.0, 2.0, 300.0)
JITTER = 0.2
"""Of a pause, more or less: machines whose receiver was away do not all come back at the same moment."""
FAILING_AFTER = 3
"""After this many failed tries in a row there is an event, and a reason in the status."""
REFUSALS = 3
"""A message is given up after this many refusals."""
FAILING, WORKING = "notify-failing", "notify-working"
JOURNAL_AGAIN_S = 10.0
SAVE_EVERY = 200
"""After this many skipped events the cursor is written too, although nothing was delivered."""
DROPPED_EVERY_S = 3600.0
"""Seconds between two events about lost events, each of which pushes another event out of the journal."""
REPORT = "look at the receiver, and report this: mountd's log says where in mountd it happened"
GRACE_S = 5.0
"""A try that takes this much longer than its timeout is cancelled."""


@dataclass(frozen=True, slots=True)
class TargetDeps:
    """What a target uses. `source`: which mountd it is; `advise`: why mountd is not well now, in a language, None when
    it is."""

    journal: Journal
    sending: SenderDeps
    source: str
    show: Callable[[str, NotifyStatus], None]
    advise: Callable[[str | None], Awaitable[Advice | None]]


class NotifyTarget:
    """`at_start`: it is there since the start of mountd, not since a reload."""

    def __init__(self, name: str, settings: NotifySettings, deps: TargetDeps, *, at_start: bool) -> None:
        self.name = name
        self._at_start = at_start
        self._deps = deps
        self._journal = deps.journal
        self._log = log.bind(target=name)
        self._status = NotifyStatus()
        self._state: TargetState | None = None
        self._identity = ""
        self._saved = 0
        """the cursor as it is on disk"""
        self._counted = 0
        """the cursor up to which events that were lost are counted"""
        self._seen: dict[int, float] = {}
        self._failures = 0
        """failed tries since the last success"""
        self._is_alarm_open = False
        """the journal says that it fails, maybe since a previous run"""
        self._dropped_reported = (-DROPPED_EVERY_S, 0)
        """when events that were lost were reported last, and how many there were by then"""
        self._poked: asyncio.Future[None] | None = None
        self._use(settings)

    def reconfigure(self, settings: NotifySettings) -> None:
        """Holds from the next try on, which is made now: where the settings are the same, a secret may be another."""
        if settings != self._settings:
            self._use(settings)
        self._go_on()

    def _go_on(self) -> None:
        if self._poked is not None and not self._poked.done():
            self._poked.set_result(None)

    def _use(self, settings: NotifySettings) -> None:
        self._settings = settings
        self._rules = Rules(
            self.name,
            settings.patterns,
            settings.limit,
            settings.after_s,
            settings.healed,
            digest=settings.is_for_people,
        )
        self._sender = make_sender(self.name, settings, self._deps.sending)

    # -- its task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. What was being delivered then is delivered again by the next run, with the same id."""
        while self._state is None:
            try:
                await self._load()
            except MountdError as error:
                await self._wait_for_journal(error)
        while True:
            written, poked, settings = self._journal.event_written(), self._poke(), self._settings
            try:
                decision = await self._decide()
            except MountdError as error:
                await self._wait_for_journal(error)
                continue
            if decision.notification is not None:
                await self._deliver(decision, settings)
                continue
            if self._state.cursor - self._saved >= SAVE_EVERY:
                await self._save()
            timeout_s = None if decision.wait_until is None else max(0.0, decision.wait_until - time.monotonic())
            # `asyncio.wait` does not cancel `written`, for which others wait too.
            await asyncio.wait([written, poked], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def _load(self) -> None:
        """A target that is new begins with the next event; one that finds a new journal at the start of mountd, with
        its first."""
        self._identity = await self._journal.identity()
        known = await self._journal.notify_cursor(self.name)
        if known is None:
            begins = self._at_start and self._journal.is_lost
            cursor = 0 if begins else await self._journal.last_event()
            known = NotifyCursor(self.name, cursor)
            await self._journal.keep_notify_cursor(known)
        last = await self._journal.last_of(FAILING, WORKING, object_=self.name)
        self._is_alarm_open = last is not None and last.code == FAILING
        self._saved = self._counted = known.cursor
        self._dropped_reported = -DROPPED_EVERY_S, known.dropped
        self._state = rules.from_json(known.state, known.cursor, now=time.monotonic(), wall=now().timestamp())
        self._show(messages=known.messages, failed=known.failed, dropped=known.dropped, last_delivered=known.last)

    async def _decide(self) -> SendDecision:
        """Raises MountdError."""
        assert self._state is not None
        await self._count_lost()
        lost, first = (0, 0) if self._wants_uploads else await self._journal.lost_after(self._state.cursor)
        if lost:
            self._counted = first - 1
            self._state = replace(self._state, cursor=first - 1)
        events = await self._events()
        if lost:
            await self._drop(lost)
        elif self._wants_uploads and events and events[0].id > self._state.cursor + 1:
            self._state = replace(self._state, cursor=events[0].id - 1)
            await self._count_lost()
        at = time.monotonic()
        self._seen = {event.id: self._seen.get(event.id, at) for event in events}
        decision = rules.decide(self._rules, self._state, events, self._seen, at)
        if decision.notification is None:
            self._state = decision.state
            await self._count_lost()
            if len(events) == PAGE and decision.state.cursor == events[-1].id:
                self._go_on()  # there may be more
        self._show(pending=decision.pending)
        return decision

    @property
    def _wants_uploads(self) -> bool:
        """There may be far more of them than of all others: who does not want them does not read them either."""
        return UPLOADED in self._rules.codes

    async def _events(self) -> list[EventRecord]:
        """The next ones. Raises MountdError."""
        assert self._state is not None
        return await self._journal.events(self._state.cursor, limit=PAGE, uploads=self._wants_uploads)

    async def _count_lost(self) -> None:
        """Up to the cursor: uploads leave the journal on their own, so that events may be missing between others."""
        assert self._state is not None
        cursor, before = self._state.cursor, self._counted
        self._counted = cursor
        if not self._wants_uploads:
            return
        lost = cursor - before - sum(before < id_ <= cursor for id_ in self._seen)
        if lost > 0:
            await self._drop(lost)

    async def _wait_for_journal(self, error: MountdError) -> None:
        self._log.debug("cannot read events yet", cause=error.text)
        await asyncio.sleep(JOURNAL_AGAIN_S)

    # -- one message ----------------------------------------------------------------------------------------------

    async def _deliver(self, decision: SendDecision, settings: NotifySettings) -> None:
        """Returns once it is delivered or given up, or the settings are others than these."""
        assert decision.notification is not None
        assert self._state is not None
        id_ = event_id(self._identity, decision.notification.last)
        message = await self._message(id_, decision.notification)
        refusals = 0
        while self._settings is settings:
            poked = self._poke()
            try:
                await self._send(message)
            except MountdError as error:
                partial = isinstance(error, Undelivered) and error.is_partial
                refusals += partial or (isinstance(error, Undelivered) and error.is_refusal)
                if refusals >= REFUSALS:
                    # Who got it counts it, and has read of its alarms.
                    self._state = (
                        decision.state.delivered(time.monotonic(), self._rules.limit)
                        if partial
                        else replace(decision.state, open=self._state.open)
                    )
                    self._log.warning("notification given up", id=id_, cause=error.text, hint=error.hint)
                    self._show(failed=self._status.failed + 1)
                    await self._fail(error, FAILING_AFTER)
                    await self._save()
                    return
                await self._fail(error, self._failures + 1)
                await self._count()
                await self._pause(error, poked)
            else:
                self._state = decision.state.delivered(time.monotonic(), self._rules.limit)
                await self._succeed(id_)
                return

    async def _count(self) -> None:
        """What has come while nothing could be delivered."""
        assert self._state is not None
        with contextlib.suppress(MountdError):
            events = await self._events()
            self._show(pending=sum(self._rules.wants(event) for event in events))

    async def _message(self, id_: str, notification: Notification) -> OutgoingMessage:
        advice = await self._deps.advise(self._settings.language) if notification.is_alarm else None
        return OutgoingMessage(id_, self._deps.source, notification, advice)

    async def _send(self, message: OutgoingMessage) -> None:
        """Raises Undelivered, CannotStart. Whatever a receiver answers, it ends no more than this try."""
        limit_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(limit_s + GRACE_S):
                await self._sender.send(message)
        except TimeoutError:
            raise Undelivered(f"cannot deliver: no end after {limit_s + GRACE_S:g} s") from None
        except Exception as error:
            if isinstance(error, MountdError) or of_the_machine(error) is not None:
                raise
            # Its text may hold an address: the place says enough.
            place, kind = traceback.extract_tb(error.__traceback__)[-1], type(error).__name__
            self._log.error("bug in mountd: a try failed", kind=kind, place=f"{place.filename}:{place.lineno}")
            raise Undelivered(f"cannot deliver: mountd does not understand the answer ({kind})", hint=REPORT) from None

    async def _pause(self, error: MountdError, poked: asyncio.Future[None]) -> None:
        """Before the next try."""
        pause_s = AGAIN.delay_s(self._failures) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 (no secret)
        if isinstance(error, Undelivered):
            pause_s = max(pause_s, error.retry_after_s)
        await asyncio.wait([poked], timeout=pause_s)

    async def _succeed(self, id_: str) -> None:
        was_failing, self._is_alarm_open = self._is_alarm_open, False
        self._failures = 0
        pending = max(0, self._status.pending - 1)
        self._show(
            failing=False,
            last_error=None,
            hint="",
            messages=self._status.messages + 1,
            last_delivered=now_text(),
            pending=pending,
        )
        self._log.info("notification delivered", id=id_)
        await self._save()
        if was_failing:
            await self._report(WORKING, f"notifications reach {self.name} again")

    async def _fail(self, error: MountdError, failures: int) -> None:
        self._failures = failures
        first, is_failing = not self._status.failing, failures >= FAILING_AFTER
        if self._status.last_error != error.text:
            self._log.warning("cannot deliver a notification", cause=error.text, hint=error.hint)
        self._show(failing=is_failing or self._status.failing, last_error=error.text, hint=error.hint)
        if first and is_failing:
            self._is_alarm_open = True
            await self._report(FAILING, f"notifications do not reach {self.name}: {error.text}")

    async def _drop(self, count: int) -> None:
        """So many events left the journal before they were delivered."""
        self._show(dropped=self._status.dropped + count)
        reported_at, reported = self._dropped_reported
        if time.monotonic() - reported_at < DROPPED_EVERY_S:
            return
        self._dropped_reported = time.monotonic(), self._status.dropped
        lost = self._status.dropped - reported
        self._log.error("events were lost before they were delivered", count=lost)
        text = f"{lost} events left the journal before {self.name} was notified of them"
        await self._report("notifications-dropped", text, {"count": lost})

    # -- kept and shown -------------------------------------------------------------------------------------------

    async def _save(self) -> None:
        """What cannot be written is delivered once more after a restart."""
        assert self._state is not None
        status, state = self._status, self._state
        text = rules.to_json(state, now=time.monotonic(), wall=now().timestamp())
        cursor = NotifyCursor(
            self.name, state.cursor, status.messages, status.failed, status.dropped, status.last_delivered, text
        )
        try:
            await self._journal.keep_notify_cursor(cursor)
        except MountdError as error:
            self._log.warning("cannot journal what was delivered", cause=error.text, hint=error.hint)
        else:
            self._saved = state.cursor

    async def _report(self, code: str, text: str, data: dict[str, object] | None = None) -> None:
        try:
            await self._journal.event(code, self.name, text, data)
        except MountdError as error:
            self._log.warning("cannot journal an event", code=code, cause=error.text)

    def _show(self, **changed: object) -> None:
        self._status = replace(self._status, **changed)  # type: ignore[arg-type]
        self._deps.show(self.name, self._status)

    def _poke(self) -> asyncio.Future[None]:
        if self._poked is None or self._poked.done():
            self._poked = asyncio.get_running_loop().create_future()
        return self._poked

    # -- a test ---------------------------------------------------------------------------------------------------

    async def test(self, text: str) -> None:
        """Sends one message that no event stands behind, once. Raises Undelivered, CannotStart, JournalError."""
        identity = self._identity or await self._journal.identity()
        event = EventRecord(0, now_text(), "test", "mountd", text)
        id_ = f"{identity}-test-{secrets.token_hex(8)}"
        await self._send(OutgoingMessage(id_, self._deps.source, Notification((event,))))


def make_sender(name: str, settings: NotifySettings, deps: SenderDeps) -> Sender:
    if settings.is_for_people:
        from mountd.notify.people import PeopleSender

        return PeopleSender(name, settings, deps)
    from mountd.notify.webhook import WebhookSender

    return WebhookSender(settings, deps)
