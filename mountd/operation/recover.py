"""At a start: what a former life of mountd left unfinished is finished or undone, by the rules, and told as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Committed, Journal, Record
from mountd.model import link
from mountd.model.model import Model
from mountd.operation.plan import Undo
from mountd.operation.rules import Recovery, after_crash

log = structlog.get_logger()


async def recover(journal: Journal, models: Mapping[str, Model]) -> None:
    """Before the models are loaded: whatever runs then finds link and journal in agreement. Raises MountdError only
    when the journal cannot even be read."""
    for record in await journal.unfinished():
        known = await journal.committed(record.model)
        rule = after_crash(record.step, committed=known.current == record.to_version)
        log.warning(
            "operation was interrupted",
            operation=record.id,
            step=record.step,
            version=record.to_version,
            rule=str(rule),
        )
        if rule is Recovery.FINISH:
            with _logged(record):
                await journal.end_step(record.id, record.step, "done")
                await journal.finish(record.id, result="committed", cause="", hint="", exit_code=0, duration_s=None)
            continue
        with _logged(record):
            await journal.end_step(record.id, record.step, "interrupted")
        if rule is Recovery.UNDO:
            await _undo(journal, record, known, models.get(record.model))
        else:
            with _logged(record):
                await journal.finish(
                    record.id,
                    result="interrupted",
                    cause=f"mountd ended during {record.step}",
                    hint="",
                    exit_code=1,
                    duration_s=None,
                )


async def _undo(journal: Journal, record: Record, known: Committed, model: Model | None) -> None:
    """Its apps ended with the former life, and start with what is committed; so the link is all there is to undo."""
    back = "its model is not configured any more, and the link was left as it is"
    if model is not None:
        with _logged(record):
            await journal.begin_step(record.id, Undo.FLIP_BACK)
        outcome = "done"
        back = f"the link is at {known.current} again" if known.current else "there is no link, as before"
        try:
            if model.restore_link(known.current, failed=record.to_version):
                log.warning("link points back", link=str(model.settings.link), version=known.current)
        except link.LinkBlocked as error:  # climbing tries again, and tells
            log.error("cannot point the link back yet", cause=error.text, hint=error.hint)
            outcome, back = "failed", f"the link cannot be put back yet: {error.text}"
        with _logged(record):
            await journal.end_step(record.id, Undo.FLIP_BACK, outcome)
    with _logged(record):
        await journal.finish(
            record.id,
            result="rolled-back",
            cause=f"cannot {record.kind} to {record.to_version}: mountd ended during {record.step}; {back}",
            hint="",
            exit_code=5,
            duration_s=None,
        )


@contextlib.contextmanager
def _logged(record: Record) -> Iterator[None]:
    """A journal that cannot be written keeps nobody from serving; it is told when it is tried next."""
    try:
        yield
    except MountdError as error:
        log.error("cannot journal a recovery", operation=record.id, cause=error.text, hint=error.hint)
