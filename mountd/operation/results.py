"""The results of operations: in the journal, and kept here while that cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import structlog

from mountd.clock import now_text
from mountd.errors import MountdError
from mountd.journal.journal import Journal, OperationRecord
from mountd.status.meters import OperationMeters

log = structlog.get_logger()

AGAIN_S = 10.0
"""How soon a result that could not be written is tried again."""


@contextlib.contextmanager
def logged(what: str, **keys: object) -> Iterator[None]:
    """Around what must not stop the rest, such as an undo or a start of mountd: its failure is logged, no more."""
    try:
        yield
    except MountdError as error:
        log.error(f"cannot {what}", **keys, cause=error.text, hint=error.hint)


async def report_event(journal: Journal, code: str, object_: str, text: str) -> None:
    """Who asked for what, or what came of it; also when the journal cannot be written, what was asked for is done."""
    with logged("journal an event", code=code, text=text):
        await journal.event(code, object_, text)


class ResultStore:
    """Keeps at most a few results: no operation begins before the former ones are written."""

    def __init__(self, journal: Journal, meters: OperationMeters | None = None) -> None:
        """`meters` count them."""
        self._journal = journal
        self._meters = meters or OperationMeters()
        self._kept: dict[int, OperationRecord] = {}
        """with the result that the journal does not have yet; by id"""
        self._keeps = asyncio.Event()

    # -- writing --------------------------------------------------------------------------------------------------

    async def finish(self, record: OperationRecord, *, counts: bool = True) -> None:
        """`record` has its result. It is finished from now on, even if the journal cannot be written.

        `counts`: no other record stands for the same in the metrics.
        """
        finished = replace(record, finished=now_text())
        if counts:
            self._meters.finished(record.kind, record.result or "", record.duration_s)
        try:
            await self._journal.finish(finished)
        except MountdError as error:
            self._kept[record.id] = finished
            self._keeps.set()
            log.error("cannot journal a result", operation=record.id, cause=error.text, hint=error.hint)

    async def flush(self) -> None:
        """Writes what is kept, oldest first. Raises MountdError."""
        for id_, finished in sorted(self._kept.items()):
            await self._journal.finish(finished)
            self._kept.pop(id_, None)
            log.info("result journaled later", operation=id_, result=finished.result)
        if not self._kept:
            self._keeps.clear()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._keeps.wait()
            await asyncio.sleep(AGAIN_S)
            try:
                await self.flush()
            except MountdError as error:
                log.debug("cannot journal a result yet", cause=error.text)

    # -- reading --------------------------------------------------------------------------------------------------

    async def operation(self, id_: int) -> OperationRecord | None:
        """Raises MountdError."""
        return self._kept.get(id_) or await self._journal.operation(id_)

    async def history(
        self,
        model: str | None = None,
        kind: str | None = None,
        result: str | None = None,
        *,
        limit: int,
        before: int | None = None,
    ) -> list[OperationRecord]:
        """As the journal's, with the results that are kept here. Raises MountdError."""
        found = {each.id: each for each in await self._journal.history(model, kind, result, limit=limit, before=before)}
        for id_, kept in self._kept.items():
            asked = ((model, kept.model), (kind, kept.kind), (result, kept.result))
            if all(wanted in (None, is_) for wanted, is_ in asked) and (before is None or id_ < before):
                found[id_] = kept  # the limit drops one that is older than what was found
        return [found[id_] for id_ in sorted(found, reverse=True)][:limit]
