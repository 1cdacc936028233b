"""Out of sync, but only until a switch is done or its window opens: no reason to wake anybody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mountd.api.metrics.models import ModelCollector
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import DriftStatus, Operation, Reason, Sync
from mountd.status.source import Unmet
from tests.unit.test_explain import SWITCH, now

OUT = {"sync": Sync.OUT_OF_SYNC, "desired": "v24"}
CLOSED = {**OUT, "pending": "v24", "window": "no window allows it now"}
FAILED = {"unmet": Unmet("v24", "webui is not ready")}
TO_V24 = replace(SWITCH, to_version="v24")


@pytest.mark.parametrize(
    ("model", "operations", "waits"),
    [
        # a switch
        (OUT, (), False),
        (OUT, (TO_V24,), True),
        (OUT, (replace(TO_V24, kind="rollback"),), True),
        (OUT, (replace(TO_V24, kind="warm"),), False),  # loads, and makes nothing live
        (OUT, (replace(TO_V24, model="voice"),), False),
        (OUT, (replace(TO_V24, kind="drill"),), False),  # of a mount with the model's name
        ({**OUT, **FAILED}, (TO_V24,), False),  # one more try of many
        ({**OUT, **FAILED}, (replace(TO_V24, to_version="v25"),), True),
        ({"sync": Sync.SYNCED}, (TO_V24,), False),  # the link is there already
        ({"sync": Sync.UNKNOWN}, (TO_V24,), False),
        # a window
        (CLOSED, (), True),
        ({**CLOSED, "window": ""}, (), False),
        ({**CLOSED, "pending": None}, (), False),  # nothing would be switched when it opens
        ({**CLOSED, **FAILED}, (), False),
        ({**CLOSED, "unmet": Unmet("v22", "of a former version")}, (), True),
        ({**CLOSED, "suspended": "tina"}, (), False),
        ({**CLOSED, "overridden": "tina"}, (), False),
        ({**CLOSED, "automatic": False}, (), False),  # a person has to do it
        ({**CLOSED, "drift": DriftStatus(Reason("link-drifted", "…"))}, (), False),
    ],
)
def test_what_waits_only_for_something_that_passes(
    model: dict[str, Any], operations: tuple[Operation, ...], waits: bool
) -> None:
    snapshot = now(model=model, operations=operations)
    assert readiness.is_sync_waiting(snapshot, "hub") is waits
    (metric,) = (each for each in ModelCollector(Board(snapshot)).collect() if each.name == "mountd_model_sync_waiting")
    assert [(each.labels, each.value) for each in metric.samples] == [({"model": "hub"}, waits)]
