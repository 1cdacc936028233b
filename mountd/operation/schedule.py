"""Switches for a later time: on disk as soon as they are accepted, carried out once, or reported as missed.

A schedule is an operation of the journal that only waits. At its time it becomes a switch like any other. The row of
that switch names the schedule from its first moment, so that no crash makes two switches of it. Its time is one of the
wall clock, which may be set: it is looked at again every RECHECK_S seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import structlog

from mountd import clock
from mountd.errors import Busy, MountdError, Refused, UsageError
from mountd.journal.journal import Journal, OperationRecord
from mountd.journal.records import SCHEDULE
from mountd.operation import due
from mountd.operation.desired import Request
from mountd.operation.due import Turn
from mountd.operation.results import logged, report_event
from mountd.operation.switch import Operations
from mountd.settings.names import check_version
from mountd.status.board import Board
from mountd.status.snapshot import WAITS, ScheduledSwitch

log = structlog.get_logger()

RECHECK_S = 10.0
"""How soon it is noticed that the clock was set, or that what a switch waits for is there."""
MOST = 50
"""That wait at the same time."""
FROM_SCHEDULE = "schedule"
"""The source of a switch whose time has come."""


class Schedules:
    def __init__(self, operations: Operations, journal: Journal, board: Board) -> None:
        self._operations = operations
        self._journal = journal
        self._board = board
        self._pending: dict[int, OperationRecord] = {}
        self._waits: dict[int, str] = {}
        """by id: why one that is due has not begun"""
        self._became: dict[int, int] = {}
        """schedule → the switch that it became, until that is finished"""
        self._turn = asyncio.Lock()
        """one of them is begun, or cancelled"""

    async def load(self) -> None:
        """At a start, after interrupted operations are closed. Raises MountdError: the journal cannot be read."""
        for record in await self._journal.scheduled():
            switch = await self._journal.became(record.id)
            if switch is None:
                self._pending[record.id] = record
            else:
                self._became[record.id] = switch.id
        self._show()

    # -- asking ---------------------------------------------------------------------------------------------------

    async def ask(self, name: str | None, version: str, at: str, request: Request) -> OperationRecord:
        """The schedule, which is on disk. `at`: `+30m`, or ISO 8601 with an offset.

        Raises BadVersionName, NotFound, UsageError, Refused, MountdError (journal).
        """
        check_version(version)
        model = self._operations.model(name)
        when = clock.as_text(due.moment(at, clock.now()), "seconds")
        if len(self._pending) >= MOST:
            raise Refused(f"cannot schedule another switch: {MOST} wait already", hint="`mountd cancel ID` drops one")
        record = await self._journal.begin(
            kind=SCHEDULE,
            model=model.name,
            from_version=None,
            to_version=version,
            operator=request.operator,
            source=request.source,
            reason=request.reason,
            step=WAITS,
            due=when,
            options=" ".join(word for word in ("force", "digests") if getattr(request, word)),
        )
        self._pending[record.id] = record
        self._show()
        log.info("switch is scheduled", operation=record.id, model=model.name, version=version, due=when)
        await self._report("switch-scheduled", record, f"{request.operator} scheduled {_what(record)} for {when}")
        return record

    async def cancel(self, name: str | None, operator: str, id_: int | None = None) -> OperationRecord:
        """Undoes the running operation (of model `name`, or with this id), else drops a scheduled switch.

        A schedule is dropped for good when this returns. Raises as `Operations.cancel` does, MountdError (journal).
        """
        async with self._turn:
            if id_ in self._became:
                return self._operations.cancel(name, operator, self._became[id_])
            found = self._found(name, id_)
            if not found:
                return self._operations.cancel(name, operator, id_)
            if len(found) > 1:
                ids = ", ".join(f"{each.id} ({_what(each)} at {each.due})" for each in found)
                raise UsageError(f"cannot choose a scheduled switch: say which with its id: {ids}")
            (record,) = found
            cause = f"cancelled by {operator} before its time"
            done = replace(record, finished=clock.now_text(), result="cancelled", cause=cause, exit_code=1)
            await self._journal.finish(done)  # not kept for later: after a crash it would be carried out
            self._drop(record.id)
        log.info("scheduled switch is cancelled", operation=record.id, operator=operator)
        await self._report("schedule-cancelled", record, f"{operator} cancelled {_what(record)}, due {record.due}")
        return done

    def _found(self, name: str | None, id_: int | None) -> list[OperationRecord]:
        """The schedules that are meant; without an id none while an operation runs, which is meant then."""
        wanted = None if name is None else self._operations.model(name).name
        found = [each for each in self._pending.values() if wanted in (None, each.model)]
        if id_ is not None:
            return [each for each in found if each.id == id_]
        runs = any(wanted in (None, each.model) for each in self._board.snapshot.operations)
        return [] if runs else found

    # -- running --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for record in sorted(self._pending.values(), key=_due):
                async with self._turn:
                    if record.id in self._pending:
                        await self._look(record)
            await self._close_finished()
            self._show()
            now = clock.now()
            left_s = [(_due(each) - now).total_seconds() for each in self._pending.values()]
            await self._board.changed(min([RECHECK_S, *(each for each in left_s if each > 0)]))

    async def _look(self, record: OperationRecord) -> None:
        turn = due.turn(_due(record), clock.now())
        if turn is Turn.DUE:
            await self._try(record)
        elif turn is Turn.MISSED:
            why = self._waits.get(record.id) or "mountd did not run then, or the clock was set"
            cause = f"it was due {record.due} and could not begin within {due.LATE_S / 3600:g} h: {why}"
            await self._give_up(record, "missed", cause)

    async def _try(self, record: OperationRecord) -> None:
        """Begins its switch, or notes why that must wait."""
        words = record.options.split()
        request = Request(
            record.operator,
            FROM_SCHEDULE,
            record.reason,
            force="force" in words,
            digests="digests" in words,
            schedule=record.id,
        )
        if why := self._obstacle(record.model):
            self._wait(record, why)
            return
        try:
            # A journal that failed may have taken the former try all the same.
            switch = await self._journal.became(record.id)
            if switch is None:
                switch = (await self._operations.switch(record.model, record.to_version, request)).record
        except MountdError as error:
            if error.retryable:  # the text of Busy has an age, which would be news each time
                self._wait(record, "another operation runs" if isinstance(error, Busy) else error.text)
            else:
                await self._give_up(record, "failed", error.text, error)
            return
        self._drop(record.id)
        if switch is None:
            done = replace(record, result="done", cause="it was live already", exit_code=0)
            await self._operations.results.finish(done)
            return
        self._became[record.id] = switch.id
        text = f"operation {switch.id} began {_what(record)}, scheduled by {record.operator} for {record.due}"
        await self._report("schedule-begun", record, text)

    def _obstacle(self, model: str) -> str:
        """Why no switch of it may begin now by itself. One to a model that is gone is refused by `switch`."""
        found = self._board.snapshot.models.get(model)
        if found is None or (found.linked and found.suspended is None):
            return ""
        if found.suspended is not None:
            return f"automatic changes are paused by {found.suspended}"
        return f"{model} is {found.stage}: there is no way back yet"

    def _wait(self, record: OperationRecord, why: str) -> None:
        if self._waits.get(record.id) != why:
            log.info("scheduled switch waits", operation=record.id, version=record.to_version, cause=why)
        self._waits[record.id] = why

    async def _give_up(
        self, record: OperationRecord, result: str, cause: str, error: MountdError | None = None
    ) -> None:
        self._drop(record.id)
        log.warning(f"scheduled switch {result}", operation=record.id, version=record.to_version, cause=cause)
        hint = (error.hint if error else "") or f"mountd switch {record.to_version} --model {record.model}"
        exit_code = error.exit_code if error else 1
        ended = replace(record, result=result, cause=cause, hint=hint, exit_code=exit_code)
        await self._operations.results.finish(ended)
        await self._report(f"schedule-{result}", record, f"{_what(record)} {result}: {cause}")

    async def _close_finished(self) -> None:
        """Of those that became switches: each ends as its switch does."""
        for id_, switch_id in [*self._became.items()]:
            if any(each.id == switch_id for each in self._board.snapshot.operations):
                continue
            with logged("read the result of a scheduled switch", operation=switch_id):
                record, switch = await self._journal.operation(id_), await self._operations.results.operation(switch_id)
                if switch is not None and switch.finished is None:
                    continue  # its result is being written
                del self._became[id_]
                if record is None or switch is None:
                    continue  # trimmed away
                ended = {key: getattr(switch, key) for key in ("result", "cause", "hint", "exit_code")}
                await self._operations.results.finish(replace(record, **ended), counts=False)  # its switch counts

    # -- shown ----------------------------------------------------------------------------------------------------

    def _drop(self, id_: int) -> None:
        self._pending.pop(id_, None)
        self._waits.pop(id_, None)
        self._show()

    def _show(self) -> None:
        self._board.set_scheduled(
            *(
                ScheduledSwitch(
                    each.id,
                    each.model,
                    each.to_version,
                    str(each.due),
                    each.operator,
                    each.reason,
                    each.started,
                    self._waits.get(each.id, ""),
                )
                for each in sorted(self._pending.values(), key=_due)
            )
        )

    async def _report(self, code: str, record: OperationRecord, text: str) -> None:
        await report_event(self._journal, code, record.model, text)


def _due(record: OperationRecord) -> datetime:
    return clock.parse(str(record.due))


def _what(record: OperationRecord) -> str:
    return f"the switch of {record.model} to {record.to_version} (operation {record.id})"
