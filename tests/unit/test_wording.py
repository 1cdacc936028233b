"""The tests of wording for texts whose subject has no such module of its own.

Its own have: problems of a configuration file (test_settings_problems.py, _source.py, _punctuation.py), required files
(test_required.py), the plan of a switch (test_operation_plan.py), the headline (test_readiness.py) and the command line
(test_cli_help.py, _view.py, _wrap.py). All other tests assert codes, fields, and what a text quotes.
"""

from __future__ import annotations

import pytest

from mountd.cache.upload_state import Pending, not_uploaded
from mountd.journal.records import OperationRecord
from mountd.model import manifest
from mountd.status.snapshot import DrainStatus


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "p0"), (3, "p0; p1; p2"), (4, "p0; p1; p2 and 1 more"), (9, "p0; p1; p2 and 6 more")],
)
def test_the_first_of_many_problems(count: int, text: str) -> None:
    assert manifest.summary([f"p{n}" for n in range(count)]) == text


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (DrainStatus(7, 3, 12 << 20, open=1), "3 of 7 files left, 12 MiB, 1 open for writing"),
        (DrainStatus(8, 4, 13 << 20), "4 of 8 files left, 13 MiB"),
    ],
)
def test_the_progress_of_a_drain(status: DrainStatus, text: str) -> None:
    assert str(status) == text


@pytest.mark.parametrize(
    ("pending", "text"),
    [
        (Pending(1, 5, ("a.wav",)), "1 file (a.wav; 5 bytes) of mount o is not uploaded yet"),
        (Pending(12, 3 << 20, ("a", "b")), "12 files (a, b and 10 more; 3 MiB) of mount o are not uploaded yet"),
    ],
)
def test_what_is_not_uploaded(pending: Pending, text: str) -> None:
    assert not_uploaded("o", pending, "/cache").text == text


@pytest.mark.parametrize(("kind", "text"), [("switch", "switch to v23"), ("rollback", "roll back to v23")])
def test_what_an_operation_is_for(kind: str, text: str) -> None:
    record = OperationRecord(1, kind, "hub", "v22", "v23", "tina", "cli", "", "warm", "2026-01-01T00:00:00Z")
    assert record.action == text
