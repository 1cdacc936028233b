"""The derived status of a model: which version, in sync or not, whether it has to start up."""

from __future__ import annotations

from dataclasses import replace

from mountd.journal.records import Committed
from mountd.status.snapshot import ModelStage, ModelStatus, Sync


def complete(status: ModelStatus, known: Committed, *, switching_to: str | None, automatic: bool) -> ModelStatus:
    """`status` with the committed state. `switching_to`: the version of a running operation counts as desired."""
    current = status.current if status.linked else known.current
    drifted = status.drift.reason is not None
    desired = switching_to or known.desired
    wanted = status.source.version if status.source else desired
    synced = Sync.SYNCED if current == wanted and not drifted else Sync.OUT_OF_SYNC
    known_now = status.source is None or status.source.is_known
    return replace(
        status,
        current=current,
        previous=known.previous,
        desired=desired,
        sync=synced if known_now and (status.linked or drifted) else Sync.UNKNOWN,
        suspended=known.suspended,
        overridden=known.overridden,
        automatic=automatic,
    )


def is_settled(
    status: ModelStatus, known: Committed, restarts: int, *, live: str | None, held: bool, absent: bool
) -> bool:
    """Whether the model needs no start-up on the mount that has restarted `restarts` times.

    `live`: what the link should point at; `held`: an operation has the model; `absent`: somebody took the link away.
    """
    if absent and status.stage is ModelStage.WARMED:  # the guard repairs that, a start-up does not
        return status.mount_restarts == restarts
    if status.linked:
        # A first version that could not be journaled is tried again.
        return status.mount_restarts == restarts and (known.current is not None or held)
    # Nothing was ever live, and an operation is about to decide what will be: leave that to it.
    return held and live is None
