"""What is shown of a model, in tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.journal.records import Committed
from mountd.model.derived import complete, is_settled
from mountd.status.snapshot import DriftStatus, Health, ModelStage, ModelStatus, Reason, Sync

LINKED = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=2)
WAITING = replace(LINKED, stage=ModelStage.WAITING, current=None, mount_restarts=-1)
WARMED = replace(LINKED, stage=ModelStage.WARMED)
DRIFTED = DriftStatus(Reason("link-drifted", "somebody pointed it elsewhere", "link", "hub"))
KNOWN = Committed(current="v23", previous="v22", desired="v23")


@pytest.mark.parametrize(
    ("status", "known", "switching_to", "current", "desired", "sync"),
    [
        (LINKED, KNOWN, None, "v23", "v23", Sync.SYNCED),
        (LINKED, replace(KNOWN, desired="v24"), None, "v23", "v24", Sync.OUT_OF_SYNC),
        (LINKED, KNOWN, "v24", "v23", "v24", Sync.OUT_OF_SYNC),
        (replace(LINKED, current="v24"), KNOWN, "v24", "v24", "v24", Sync.SYNCED),  # flipped, not committed
        (replace(LINKED, drift=DRIFTED), KNOWN, None, "v23", "v23", Sync.OUT_OF_SYNC),
        (WAITING, KNOWN, None, "v23", "v23", Sync.UNKNOWN),
        (replace(WAITING, drift=DRIFTED), KNOWN, None, "v23", "v23", Sync.OUT_OF_SYNC),
        (WAITING, Committed(desired="v23"), None, None, "v23", Sync.UNKNOWN),
    ],
)
def test_complete(
    status: ModelStatus, known: Committed, switching_to: str | None, current: str | None, desired: str, sync: Sync
) -> None:
    shown = complete(status, replace(known, suspended="alice"), switching_to=switching_to, automatic=False)
    assert (shown.current, shown.desired, shown.sync) == (current, desired, sync)
    assert (shown.previous, shown.suspended, shown.automatic) == (known.previous, "alice", False)


@pytest.mark.parametrize(
    ("status", "known", "restarts", "live", "held", "absent", "settled"),
    [
        (LINKED, KNOWN, 2, "v23", False, False, True),
        (LINKED, KNOWN, 3, "v23", False, False, False),  # the mount was replaced
        (LINKED, Committed(), 2, "v23", False, False, False),  # a first version that is not journaled yet
        (LINKED, Committed(), 2, "v23", True, False, True),  # an operation sees to that
        (WAITING, KNOWN, 2, "v23", False, False, False),
        (WAITING, KNOWN, 2, "v23", True, False, False),
        (WAITING, Committed(), 2, None, True, False, True),
        (WAITING, Committed(), 2, None, False, False, False),
        (WARMED, KNOWN, 2, "v23", False, True, True),
        (WARMED, KNOWN, 3, "v23", False, True, False),
        (WARMED, KNOWN, 2, "v23", False, False, False),
    ],
)
def test_is_settled(
    status: ModelStatus, known: Committed, restarts: int, live: str | None, held: bool, absent: bool, settled: bool
) -> None:
    assert is_settled(status, known, restarts, live=live, held=held, absent=absent) is settled
