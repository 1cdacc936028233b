"""The shipped unit: what its lines promise together (under a real systemd: tests/system/test_systemd.py)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd/mountd.service"


def values(key: str) -> set[str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#"))
    return {word for name, _, value in lines if name == key for word in value.split()}


def test_the_boot_is_not_ordered_after_it_and_all_else_is() -> None:
    """`After=` of a target is among the default dependencies of what it wants; the others of them are written out."""
    assert values("DefaultDependencies") == {"no"}
    assert values("Requires") == {"sysinit.target"}
    assert {"sysinit.target", "basic.target", "network-online.target"} <= values("After")
    assert values("Conflicts") == values("Before") == {"shutdown.target"}
    assert values("WantedBy") == {"multi-user.target"}
    assert values("Type") == {"notify"}, "what is ordered after it waits for the model"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # A machine for tests has no mountd on its PATH for units.
    text = UNIT.read_text().replace("/usr/bin/env mountd", "/bin/true mountd")
    (tmp_path / "mountd.service").write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "mountd.service")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not [line for line in done.stderr.splitlines() if "mountd.service" in line]  # there may be others
