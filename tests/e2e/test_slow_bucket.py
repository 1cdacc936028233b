"""The failure that mountd is for: a service that looks for its model as its first act, and a bucket that is slow."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(300)]

LATENCY_S = 0.2
REQUIRED = "models/gpt.pth"

# The first act is the stat: no wait, no retry, no second look. What it saw goes into a file, then it serves.
APP = """\
import os
try:
    seen = str(os.stat("./cache_hub/models/gpt.pth").st_size)
except OSError as error:
    seen = str(error)
with open("seen", "a") as file:
    file.write(seen + "\\n")
import signal, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize("starts", [2, pytest.param(10, marks=pytest.mark.thorough)])
def test_the_first_look_of_the_app_always_finds_the_whole_model(
    make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy, starts: int
) -> None:
    """Fresh starts of mountd with an empty cache, and starts after the mount was restarted or the version switched."""
    daemon = make_daemon(endpoint=proxy.endpoint)
    script = daemon.root / "app.py"
    script.write_text(APP)
    daemon.config["apps"]["webui"]["command"] = [sys.executable, str(script), str(daemon.web_port)]
    proxy.latency_s = LATENCY_S

    for number in range(1, starts + 1):
        daemon.start()
        daemon.until_ready()
        assert len(seen(daemon)) == number
        if number < starts:
            assert daemon.stop() == 0
            assert daemon.mounts() == []
            shutil.rmtree(daemon.root / "cache")

    for number in range(1, starts + 1):
        words = ("restart", "storage") if number % 2 else ("switch", "v22" if number % 4 else "v23")
        assert daemon.cli(*words).code == 0
        until(partial(has_started, daemon, starts + number), 60, f"the app to start after {words}")
        daemon.until_ready()

    whole = os.stat(store.directory / hub.BUCKET / "cache_hub_v23" / REQUIRED).st_size
    assert whole == os.stat(store.directory / hub.BUCKET / "cache_hub_v22" / REQUIRED).st_size
    assert seen(daemon) == [str(whole)] * (2 * starts)


def has_started(daemon: Daemon, times: int) -> bool:
    return len(seen(daemon)) == times


def seen(daemon: Daemon) -> list[str]:
    """What the app saw at each of its starts."""
    file = daemon.app / "seen"
    return file.read_text().splitlines() if file.exists() else []
