"""Pauses and resumes what mountd changes by itself. Supervision and what a person asks for are never paused.

Paused are switches to what is declared, their retries, scheduled switches, the healing of a changed link and pruning.
After a switch by hand an edited `version:` needs no pause: it asks once, and a later request replaces it. A source
outside (`desired:`) asks again with each commit: so such a switch suspends it (`Committed.overridden`), and only that,
until it is resumed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from mountd.errors import NotFound, UsageError
from mountd.journal.journal import Journal
from mountd.model.model import Model
from mountd.text import did_you_mean

log = structlog.get_logger()

WHY_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Paused:
    """Whether one model is paused now; `changed`: it was not so before."""

    model: str
    suspended: str | None
    changed: bool


class Syncing:
    def __init__(
        self,
        models: Mapping[str, Model],
        journal: Journal,
        resumed: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`resumed` is called with the name of each model that is resumed, once that is on disk."""
        self._models = models
        self._journal = journal
        self._resumed = resumed

    async def pause(self, name: str | None, *, operator: str, reason: str = "") -> list[Paused]:
        """Pauses one model, else all; the last request says who paused it and why.

        Is on disk when this returns. Raises NotFound, UsageError (a reason that is too long), MountdError (journal).
        """
        why = _why(operator, reason)
        return [await self._set(model, why, f"{model.name} is paused by {why}") for model in self._meant(name)]

    async def resume(self, name: str | None, *, operator: str, reason: str = "") -> list[Paused]:
        """What has waited begins at once. Raises as `pause` does."""
        why = _why(operator, reason)
        return [await self._set(model, None, f"{model.name} is resumed by {why}") for model in self._meant(name)]

    def _meant(self, name: str | None) -> list[Model]:
        if not self._models:
            raise NotFound("cannot find a model: none is configured", hint="add one under `models:`")
        if name is None:
            return list(self._models.values())
        if name not in self._models:
            near = did_you_mean(name, self._models)
            raise NotFound(f"cannot find the model {name}", hint=f"{near}models: {', '.join(self._models)}")
        return [self._models[name]]

    async def _set(self, model: Model, suspended: str | None, text: str) -> Paused:
        known = model.committed
        if known.suspended == suspended and (suspended is not None or known.overridden is None):
            return Paused(model.name, suspended, changed=False)
        await model.suspend(suspended)
        if suspended is None and self._resumed is not None:
            await self._resumed(model.name)
        log.info("automatic changes paused" if suspended else "automatic changes resumed", model=model.name, cause=text)
        await self._journal.event("suspended" if suspended else "resumed", model.name, text)
        return Paused(model.name, suspended, changed=True)


def _why(operator: str, reason: str) -> str:
    if len(reason) > WHY_CHARACTERS:
        raise UsageError(f"cannot keep a reason of {len(reason)} characters: {WHY_CHARACTERS} are enough")
    words = " ".join(reason.split())
    return f"{operator}: {words}" if words else operator
