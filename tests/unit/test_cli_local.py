"""`mountd run`: what holds for the daemon itself once all is imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from mountd.cli.local import run
from mountd.cli.options import Options


def test_garbage_is_collected_while_the_daemon_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its imports go without."""
    seen: list[bool] = []

    def main(_: str | None) -> int:
        seen.append(gc.isenabled())
        return 7

    def fork(daemon: Callable[[], int]) -> int:
        return daemon()

    monkeypatch.setitem(sys.modules, "rich", sys.modules.get("rich"))  # which it takes away
    monkeypatch.setattr("mountd.daemon.run.main", main)
    monkeypatch.setattr("mountd.process.init.fork_daemon", fork)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    try:
        result = CliRunner().invoke(run, [], obj=Options())
    finally:
        gc.enable()
    assert (result.exit_code, seen) == (7, [True])
