"""At a start: finishes or undoes, by the rules, the operations that the previous run of mountd left unfinished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from mountd.journal.journal import Committed, Journal, OperationRecord
from mountd.model.drift import LinkBlocked
from mountd.model.model import Model
from mountd.operation.plan import Step, Undo
from mountd.operation.results import ResultStore, logged
from mountd.operation.rules import Recovery, after_crash

log = structlog.get_logger()


async def recover(journal: Journal, models: Mapping[str, Model], results: ResultStore) -> None:
    """Runs before the models are loaded, so that link and journal agree for everything after it. Raises MountdError:
    the journal cannot be read."""
    for record in await journal.unfinished():
        newest = await journal.newest(record.model)
        if newest != record.id:
            await _give_up(journal, record, results, newest)
            continue
        known = await journal.committed(record.model)
        # A switch to the version that was live already has nothing to undo, and nothing shows whether it was committed.
        committed = known.current == record.to_version != record.from_version
        rule = after_crash(record.step, committed=committed)
        log.warning(
            "operation was interrupted",
            operation=record.id,
            step=record.step,
            version=record.to_version,
            rule=str(rule),
        )
        if rule is Recovery.FINISH:
            await _end_step(journal, record, record.step, "done" if record.step == Step.COMMIT else "interrupted")
            await results.finish(replace(record, result="committed", cause="", exit_code=0))
            continue
        await _end_step(journal, record, record.step, "interrupted")
        if rule is Recovery.UNDO:
            await _undo(journal, record, known, models.get(record.model), results)
        else:
            cause = f"mountd stopped during {record.step}"
            await results.finish(replace(record, result="interrupted", cause=cause, exit_code=1))


async def _give_up(journal: Journal, record: OperationRecord, results: ResultStore, newest: int) -> None:
    """Its result was never written, and the operation after it decides about the link."""
    log.warning("result of an operation is unknown", operation=record.id, step=record.step, version=record.to_version)
    await _end_step(journal, record, record.step, "interrupted")
    cause = f"its result could not be written; it was at {record.step}, and operation {newest} came after it"
    await results.finish(replace(record, result="interrupted", cause=cause, exit_code=1))


async def _undo(
    journal: Journal, record: OperationRecord, known: Committed, model: Model | None, results: ResultStore
) -> None:
    """Its apps stopped with the previous run and start with what is committed, so only the link has to be undone."""
    back = "its model is not configured any more, and the link was left as it is"
    if model is not None:
        with logged("journal a recovery", operation=record.id):
            await journal.begin_step(record.id, Undo.FLIP_BACK)
        outcome = "done"
        back = f"the link is at {known.current} again" if known.current else "there is no link, as before"
        try:
            live = None if known.current is None else model.versions.target(known.current)
            if model.link.restore(model.versions.targets(record.to_version), live):
                log.warning("link points back", link=str(model.settings.link), version=known.current)
        except LinkBlocked as error:  # the start-up tries again and reports it
            log.error("cannot point the link back yet", cause=error.text, hint=error.hint)
            outcome, back = "failed", f"the link cannot be put back yet: {error.text}"
        await _end_step(journal, record, Undo.FLIP_BACK, outcome)
    what = f"cannot {record.action}: "
    first = f"{record.cause.removeprefix(what)}; and then " if record.cause else ""
    cause = f"{what}{first}mountd stopped during {record.step}; {back}"
    await results.finish(replace(record, result="rolled-back", cause=cause, exit_code=5))


async def _end_step(journal: Journal, record: OperationRecord, step: str, outcome: str) -> None:
    with logged("journal a recovery", operation=record.id):
        await journal.end_step(record.id, step, outcome)
