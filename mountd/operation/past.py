"""What a rollback goes to: what was live before, or after an operation of the history."""

from __future__ import annotations

from mountd.errors import NotFound, Refused, UsageError
from mountd.journal.journal import OperationRecord
from mountd.model.model import Model
from mountd.operation.results import ResultStore


async def committed(results: ResultStore, id_: int, model: str | None) -> OperationRecord:
    """Its `model` was at its `to_version` afterwards. Raises NotFound, UsageError, Refused, MountdError (journal)."""
    record = await results.operation(id_)
    if record is None:
        raise NotFound(f"cannot roll back to operation {id_}: there is none", hint="`mountd history` lists the ids")
    if record.result != "committed":
        how = record.result or f"it runs, step {record.step}"
        raise Refused(
            f"cannot roll back to operation {id_}: it was not committed ({how})",
            hint="`mountd history --result committed` lists those that were",
        )
    if model not in (None, record.model):
        raise UsageError(f"cannot roll back {model} to operation {id_}: that is one of {record.model}")
    return record


def previous(model: Model) -> str:
    """Raises NotFound."""
    if model.committed.previous is None:
        raise NotFound(
            f"cannot roll back {model.name}: no version was live before {model.committed.current}",
            hint="`mountd versions` lists what can be switched to",
        )
    return model.committed.previous
