"""A mount that nobody uses costs nothing: no byte of an object, one small request for each health question.

MOUNTD_STEADY_S sets for how many seconds it is watched; `./dev bench steady` watches for ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.steady import measure
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.current_first]

SECONDS = float(os.environ.get("MOUNTD_STEADY_S", "40"))
INTERVAL_S = 15.0
"""The default of `health.backend`."""


@pytest.mark.timeout(SECONDS + 120)
def test_an_idle_mount_fetches_nothing(make_daemon: Callable[..., Daemon], proxy: Proxy, each_rclone: Path) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint, rclone=each_rclone)
    before = daemon.start_ready()
    idle = measure(proxy, INTERVAL_S, SECONDS)
    assert idle.missed == ()
    assert set(idle.kinds) <= {"LIST", "HEAD"}
    after = daemon.status()
    assert (after["ready"], after["health"]) == (True, "Healthy")
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    assert after["mounts"]["storage"]["restarts"] == 0
