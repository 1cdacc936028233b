"""The commands that change a version, against a real daemon with a gate: what one prints, the next one takes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until

GATE = 'while test -e hold; do sleep 0.05; done; echo "no good: $MOUNTD_MODEL $MOUNTD_VERSION"; test ! -e bad'


@pytest.mark.thorough
@pytest.mark.fuse
@pytest.mark.slow
def test_from_the_plan_to_the_way_back(daemon: Daemon) -> None:
    bad = daemon.app / "bad"
    daemon.config["models"]["cache_hub"] |= {
        "version": "v22",
        "gates": [
            {"http": f"http://127.0.0.1:{daemon.web_port}/config"},
            {"command": ["sh", "-c", GATE], "timeout": "60s"},
        ],
    }
    daemon.start_ready()

    plan = daemon.cli("switch", "v23", "--dry-run", "-o", "json").json["plan"]
    assert [step["step"] for step in plan["steps"]][-2:] == ["gates", "commit"]
    assert daemon.cli("switch", "v23", "--dry-run").out.splitlines() == plan["text"]
    assert daemon.status()["operation"] is None, "a dry run is no operation"

    begun = daemon.cli("switch", "v23", "--no-wait", "--digests")
    assert begun.code == 0
    waited = daemon.cli("wait", "--for", f"operation={begun.out.strip()}")
    assert (waited.code, waited.out[:19]) == (0, "cache_hub is at v23"), waited.err

    bad.touch()
    failed = daemon.cli("rollback")
    assert failed.code == 5
    assert "gate 2 (command sh -c" in failed.err
    assert "failed: exit code 1: no good: cache_hub v22; v23 is live again" in failed.err
    assert daemon.cli("rollback", "--dry-run").code == 7, "in quarantine"
    bad.unlink()

    interrupted(daemon)
    waited = daemon.cli("wait", "--for", "operation=3")
    assert (waited.code, waited.out[:19]) == (0, "cache_hub is at v22"), waited.err
    assert daemon.cli("cancel").code == 3, "nothing runs"


def interrupted(daemon: Daemon) -> None:
    """A rollback whose command gets Ctrl-C before its gates are through."""
    argv = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "rollback", "--force"]
    root, hold = Path(__file__).parents[2], daemon.app / "hold"
    hold.touch()
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=root) as command:
        try:
            until(lambda: daemon.status()["operation"], 60, "the rollback")
            assert command.stderr
            first = command.stderr.readline()
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=60)
        finally:
            command.kill()
            hold.unlink()
    assert first.startswith("rollback cache_hub v23 → v22: ")
    assert command.returncode == 130
    assert "`mountd wait --for operation=3`" in err
