"""A store of pinned files, killed at each step of each change: the state before, or the state after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import killed_store

TOP = Path(__file__).parents[2]
CHANGES = [
    *("accept", "build", "build-over-what-does-not-count", "build-where-a-tree-was-lost"),
    *("repair", "remove", "sweep"),
]
LEAST_POINTS = 8
TIMEOUT_S = 100
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""There nothing waits for a disk: some thousand files are synced."""


@pytest.mark.shown_by("build-over", "repair", "remove")
@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_step_leaves_the_state_before_or_after(change: str) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as place:
        argv = [sys.executable, "-m", killed_store.__name__, change, place]
        done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["points"] >= LEAST_POINTS
