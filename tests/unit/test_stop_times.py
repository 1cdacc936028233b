"""How long a stop may take: the longest app, then the longest mount, also one that is being removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.app.app import KILL_WAIT_S
from mountd.cache.uploads import SCAN_LIMIT_S
from mountd.daemon import shutdown
from mountd.daemon.shutdown import mount_stop_s, stop_times
from mountd.journal.database import LOCKED_S
from mountd.mount.traffic import LAST_LOOK_S
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
OTHERS_S = shutdown.OPERATION_S + shutdown.JOURNAL_S + LOCKED_S + shutdown.WORKERS_S + shutdown.API_S


def settings(*graces: str, **mount: Any) -> Settings:
    data = {
        "remotes": {"r": {"type": "local"}},
        "mounts": {
            "reads": {"remote": "r:/x", "path": "/reads"},
            "m": {"remote": "r:/x", "path": "/m", **mount},
        },
        "apps": {f"app{each}": {"command": ["x"], "stop": {"grace": each}} for each in graces},
    }
    return parse(yaml.safe_dump(data), "x.yaml", PLACES).settings


@pytest.mark.parametrize(
    ("graces", "apps_s"), [((), 0.0), (("7s",), 7 + KILL_WAIT_S), (("7s", "20s", "3s"), 20 + KILL_WAIT_S)]
)
def test_apps_stop_together(graces: tuple[str, ...], apps_s: float) -> None:
    found = stop_times(settings(*graces))
    assert found.apps_s == apps_s
    assert found.total_s == OTHERS_S + apps_s + found.mounts_s


def test_mounts_stop_together_those_that_are_being_removed_too() -> None:
    reads = settings()
    base_s = stop_times(reads).mounts_s
    writes = settings(profile="outputs", drain="40s")
    assert stop_times(writes).mounts_s == base_s + 40 + SCAN_LIMIT_S + LAST_LOOK_S
    assert stop_times(reads, [writes.mounts["m"]]).mounts_s == mount_stop_s(writes.mounts["m"])
    assert stop_times(writes, [reads.mounts["m"]]).mounts_s == base_s + 40 + SCAN_LIMIT_S + LAST_LOOK_S
