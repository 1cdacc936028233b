"""What is shown of a model follows from what is known of it: which version, in sync or not, still to climb or not."""

from __future__ import annotations

from dataclasses import replace

from mountd.journal.records import Committed
from mountd.status.snapshot import ModelStage, ModelStatus, Sync


def complete(status: ModelStatus, known: Committed, *, wished: str | None, automatic: bool) -> ModelStatus:
    """`status` with what is durable. `wished`: what an operation is about to make live, which counts as desired."""
    current = status.current if status.linked else known.current
    drifted = status.drift.reason is not None
    desired = wished or known.desired
    synced = Sync.SYNCED if current == desired and not drifted else Sync.OUT_OF_SYNC
    return replace(
        status,
        current=current,
        previous=known.previous,
        desired=desired,
        sync=synced if status.linked or drifted else Sync.UNKNOWN,
        suspended=known.suspended,
        automatic=automatic,
    )


def is_settled(
    status: ModelStatus, known: Committed, restarts: int, *, live: str | None, held: bool, astray: bool
) -> bool:
    """Whether nothing is to be climbed on the mount's life number `restarts`.

    `live`: what the link is to point at; `held`: an operation has the model; `astray`: somebody took the link away.
    """
    if astray and status.stage is ModelStage.WARMED:  # the guard puts that right, no climb does
        return status.mount_restarts == restarts
    if status.linked:
        # A first version that could not be journaled is tried again.
        return status.mount_restarts == restarts and (known.current is not None or held)
    # Nothing was ever live, and an operation is about to decide what will be: leave that to it.
    return held and live is None
