"""The benchmark of faults itself: does what it says, prints its table, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(200)]
TOP = Path(__file__).parents[2]


def test_a_run_of_some_faults(tmp_path: Path) -> None:
    """Two lanes and one that has the machine to itself."""
    result = tmp_path / "result.json"
    words = ["--runs", "1", "--json", str(result), "--logs", str(tmp_path / "logs")]
    words += [word for name in ("kill", "app", "end-spawned") for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "recovery", *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=TOP,
    )
    rows = json.loads(result.read_text())["rows"]
    assert [(row["fault"], row["runs"]) for row in rows] == [
        ("rclone SIGKILL", 1),
        ("app SIGKILL", 1),
        ("SIGTERM: spawned", 1),
    ]
    assert [sample["broken"] for row in rows for sample in row["samples"]] == [""] * 3, done.stderr
    assert all(f"| {row['fault']} " in done.stdout for row in rows)


def test_a_run_of_what_is_fetched_twice(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    words = ["--runs", "1", "--size", "4", "--json", str(result)]
    words += ["--only", "rclone SIGKILL", "--only", "wrong bytes after a clean stop"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "refetch", *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=TOP,
    )
    assert done.returncode == 0, done.stderr
    kept, planted = json.loads(result.read_text())["runs"]
    assert (kept["broken"], planted["broken"]) == ("", "")
    assert kept["fetched_bytes"] < kept["model_bytes"] / 100 < planted["fetched_bytes"]
