"""An operation while it runs: what it conflicts with, and what is said to who asks for another one meanwhile."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mountd.errors import Busy
from mountd.journal.journal import OperationRecord
from mountd.operation.runner import OperationOutcome, SwitchRun
from mountd.operation.warm import WarmRun
from mountd.status.snapshot import WARM

ExclusiveTask = Callable[[OperationRecord], Awaitable[OperationOutcome]]
"""An operation that is no switch: returns its outcome, also when it is cancelled."""


@dataclass
class Running:
    """An operation from the moment it is claimed; `model` is empty for an exclusive task: it may touch all."""

    kind: str
    target: str
    wanted: str
    operator: str
    model: str = ""
    apps: frozenset[str] = frozenset()
    job: SwitchRun | WarmRun | ExclusiveTask | None = None
    record: OperationRecord | None = None
    began: float = field(default_factory=time.monotonic)

    def meets(self, model: str, apps: frozenset[str]) -> bool:
        """Whether it conflicts with an operation on these; an exclusive task, on none, conflicts with all."""
        return not self.model or not model or self.model == model or bool(self.apps & apps)


def busy(running: Running, wanted: str, hint: str = "") -> Busy:
    age_s = time.monotonic() - running.began
    if running.kind == "drill":
        what = f"drill {running.wanted} of {running.target}"
        hint = hint or "it finishes by itself; `mountd status` shows how far it is"
    else:
        what = f"{running.kind} {running.target} {'' if running.kind == WARM else 'to '}{running.wanted}"
        hint = hint or f"wait for it: mountd wait --for version={running.wanted}; or undo it: mountd cancel"
    holder = f"{running.operator} ({what}, since {age_s:.0f} s)"
    return Busy(f"cannot {wanted}: busy with {holder}", hint=hint, holder=holder)
