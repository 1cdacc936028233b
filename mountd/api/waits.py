"""What a request for the status can wait for: that all is ready, or that a version is live or will not be."""

from __future__ import annotations

from collections.abc import Callable

from mountd.errors import UsageError
from mountd.status import readiness
from mountd.status.snapshot import ModelStatus, Snapshot

Condition = Callable[[Snapshot], bool]


def condition(wanted: str, model: Callable[[], str]) -> Condition:
    """`ready` or `version=V` as a question to each snapshot; `model` gives the name of the model that is meant.

    Raises UsageError, and what `model` raises.
    """
    if wanted == "ready":
        return readiness.is_ready
    key, _, version = wanted.partition("=")
    if key != "version" or not version:
        raise UsageError(f"cannot wait for {wanted!r}", hint="wait for `ready` or for `version=v23`")
    return VersionWait(model(), version)


class VersionWait:
    """True once `version` is live and nothing changes it, and once something ended that could have made it live, or the
    model is removed: the client sees what has come of it, and asks again or gives up."""

    def __init__(self, model: str, version: str) -> None:
        self._model = model
        self._version = version
        self._seen: set[int] = set()
        """operations of the model that have run meanwhile"""
        self._was_pending = False

    def __call__(self, snapshot: Snapshot) -> bool:
        found = snapshot.models.get(self._model)
        if found is None:
            return True
        running = {each.id for each in snapshot.operations if each.model == self._model and not each.only_loads}
        has_ended = bool(self._seen - running) or (self._was_pending and not self._is_pending(found))
        self._seen |= running
        self._was_pending = self._is_pending(found)
        is_live = found.linked and found.current == self._version and found.drift.reason is None
        return has_ended or (is_live and not running)

    def _is_pending(self, found: ModelStatus) -> bool:
        return found.pending == self._version
