"""A mount that nobody uses costs nothing: no byte of an object, one small request in the time of each bucket probe.

MOUNTD_STEADY_S sets for how many seconds it is watched; `./dev bench steady` watches for ten minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from bench.steady import measure
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SECONDS = float(os.environ.get("MOUNTD_STEADY_S", "40"))
INTERVAL_S = 15.0
"""The default of `health.backend`."""
# The product looks at the live version every ten minutes: here whenever it may.
OFTEN = """
import sys
from mountd.cli.main import main
from mountd.model import audit
audit.INTERVAL_S, audit.SPREAD_S = 1.0, 1.0
sys.exit(main())
"""


@pytest.mark.timeout(SECONDS + 120)
def test_an_idle_mount_fetches_nothing(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint, program=(sys.executable, "-c", OFTEN))
    before = daemon.start_ready()
    idle = measure(proxy, INTERVAL_S, SECONDS)
    assert idle.missed == ()
    assert set(idle.kinds) == {"LIST", "HEAD"}, "bucket probes, and looks at the live version in place of them"
    after = daemon.status()
    assert (after["ready"], after["health"]) == (True, "Healthy")
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    assert after["mounts"]["storage"]["restarts"] == 0
