"""How operations ended: in the journal, and as long as that cannot be written, here."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from mountd.clock import now_text
from mountd.errors import MountdError
from mountd.journal.journal import Journal, OperationRecord

log = structlog.get_logger()

AGAIN_S = 10.0
"""How soon an end that could not be written is written again."""


class ResultStore:
    """Operations as they are told. What is kept is little: none begins before it is written."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: dict[int, OperationRecord] = {}
        """with its end, of which the journal knows nothing yet; by id"""
        self._keeps = asyncio.Event()

    # -- writing --------------------------------------------------------------------------------------------------

    async def finish(
        self,
        record: OperationRecord,
        *,
        result: str,
        cause: str = "",
        hint: str = "",
        exit_code: int = 0,
        duration_s: float | None = None,
    ) -> None:
        """`record` as it stood last. It has ended from now on, whatever the journal can take of it."""
        ended = replace(
            record,
            finished=now_text(),
            result=result,
            cause=cause,
            hint=hint,
            exit_code=exit_code,
            duration_s=duration_s,
        )
        try:
            await self._write(ended)
        except MountdError as error:
            self._kept[record.id] = ended
            self._keeps.set()
            log.error("cannot journal the end of an operation", operation=record.id, cause=error.text, hint=error.hint)

    async def flush(self) -> None:
        """Writes what is kept, oldest first. Raises MountdError."""
        for id_, ended in sorted(self._kept.items()):
            await self._write(ended)
            self._kept.pop(id_, None)
            log.info("end of an operation journaled later", operation=id_, result=ended.result)
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
                log.debug("cannot journal the end of an operation yet", cause=error.text)

    async def _write(self, ended: OperationRecord) -> None:
        assert ended.result is not None
        assert ended.exit_code is not None
        await self._journal.finish(
            ended.id,
            result=ended.result,
            cause=ended.cause,
            hint=ended.hint,
            exit_code=ended.exit_code,
            duration_s=ended.duration_s,
            finished=ended.finished,
        )

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
        """As the journal's, with the ends that it does not know yet. Raises MountdError."""
        found = {each.id: each for each in await self._journal.history(model, kind, result, limit=limit, before=before)}
        for id_, kept in self._kept.items():
            asked = ((model, kept.model), (kind, kept.kind), (result, kept.result))
            if all(wanted in (None, is_) for wanted, is_ in asked) and (before is None or id_ < before):
                found[id_] = kept  # one that is older than what was found goes with the limit
        return [found[id_] for id_ in sorted(found, reverse=True)][:limit]
