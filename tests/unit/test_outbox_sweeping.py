"""When an outbox compares its journal with its directory."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mountd.outbox.local import DirectoryScan
from mountd.outbox.sweeping import SWEEP_S, Sweep
from mountd.outbox.worker import MOST_FILES

NOTHING: Any = None


@pytest.mark.parametrize(
    ("files", "missing", "swept_s_ago", "is_due"),
    [
        (0, 0, None, True),  # at the start
        (9, 0, 9.0, False),
        (9, 0, 10 * SWEEP_S, False),  # the process has seen each one go
        (9, 1, 9.0, True),
        (MOST_FILES + 1, 0, SWEEP_S - 9, False),
        (MOST_FILES + 1, 0, SWEEP_S + 9, True),
    ],
)
def test_it_is_due_at_the_start_and_where_nobody_has_seen_what_went(
    files: int, missing: int, swept_s_ago: float | None, is_due: bool
) -> None:
    it = Sweep(NOTHING, NOTHING, NOTHING, forget=NOTHING)
    it.missing = missing
    if swept_s_ago is not None:
        it._swept_at = time.monotonic() - swept_s_ago
    scan = DirectoryScan("7", files, free=1, total=2, full=False, unread=(), skipped=0, first_skipped="")
    assert it.is_due(scan) is is_due
    it.begin()
    assert it.is_due(scan)
