"""Log lines about single files, of which an app can cause any number."""

from __future__ import annotations

import structlog
from structlog.testing import capture_logs

from mountd.outbox.patience import RareLog


def test_lines_about_files_are_one_a_minute() -> None:
    now = 0.0
    with capture_logs() as logs:
        rare = RareLog(structlog.get_logger(), lambda: now)
        for number in range(10_000):
            rare.warning("bad", name=str(number))
        rare.warning("another", name="x")
        now = 61.0
        rare.warning("bad", name="last")
        rare.warning("bad", name="left out again")
    assert [(each["event"], each["name"], each.get("left_out")) for each in logs] == [
        ("bad", "0", None),
        ("another", "x", None),
        ("bad", "last", 9_999),
    ]
