"""The end of a pipeline against a real daemon: live is 0, rolled back is 5, and the report says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.manifests import DEPLOY

SCRIPT = DEPLOY / "ci" / "await_version.py"
NOT_V22 = {"command": ["sh", "-c", '[ "$MOUNTD_VERSION" != v22 ]'], "timeout": "30s"}

pytestmark = [pytest.mark.fuse, pytest.mark.thorough]  # the same is part of test_whole_circle.py


def wait_for(daemon: Daemon, version: str, timeout: str) -> subprocess.CompletedProcess[str]:
    """In a pod the command is `kubectl exec …`; here it says which daemon is meant."""
    via = f"env MOUNTD_SOCKET={daemon.socket}"
    words = [sys.executable, str(SCRIPT), version, "--timeout", timeout, "--after", "0", "--via", via]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_a_pipeline_ends_as_the_version_does(daemon: Daemon) -> None:
    nobody = wait_for(daemon, "v23", "1s")
    assert nobody.returncode == 4, "no daemon yet"

    daemon.config["models"]["cache_hub"]["gates"] = [NOT_V22]
    daemon.start_ready()
    live = wait_for(daemon, "v23", "60s")
    assert (live.returncode, "v23 is live" in live.stdout) == (0, True), live

    assert daemon.cli("switch", "v22").code == 5
    undone = wait_for(daemon, "v22", "60s")
    assert undone.returncode == 5, undone
    assert "| from → to | v23 → v22 |" in undone.stdout
    assert "gate" in undone.stdout
