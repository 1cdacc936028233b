"""The benchmark of loads itself: a short form of two cases runs, says what is missing, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(300)]
TOP = Path(__file__).parents[2]


def test_a_short_form_of_two_cases(tmp_path: Path) -> None:
    result = tmp_path / "load.json"
    words = ["--quick", "--only", "unopened", "--only", "warm", "--json", str(result)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "load", *words],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=TOP,
    )
    assert result.exists(), done.stderr
    cases = {each["case"]: each for each in json.loads(result.read_text())["cases"]}
    assert list(cases) == ["warm", "unopened"], "in the order of the catalogue"
    warm = {each["who"]: each for each in cases["warm"]["samples"]}
    assert {"raw: ranges", "raw: boto3", "raw: rclone copy"} <= warm.keys()
    assert [each["broken"] for case in cases.values() for each in case["samples"]] == [""] * (len(warm) + 1)
    assert len({each["figures"]["fetched_bytes"] for who, each in warm.items() if who.startswith("raw")}) == 1
    assert (tmp_path / "warm.svg").exists()
    assert all(f"### {case['title']}" in done.stdout for case in cases.values())
