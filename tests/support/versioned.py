"""A daemon whose app reports which version it runs, for tests of switches, and whether all of it agrees."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from mountd.client.api import get, post
from mountd.demo import hub
from mountd.errors import Busy
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.wait import until

MODEL = "cache_hub"
AGREE_S = 30.0
RELOAD_S = 30.0

# It does with each version what a file of that name says: "crash", or "hang" for one that never gets ready. It knows
# the version from the manifest behind its link, so what its page says was read through the link and the mount.
APP = r"""
import json, os, socket, sys, time
port, behaviours, link = int(sys.argv[1]), *sys.argv[2:4]
with open(f"{link}/MANIFEST.json") as file:
    version = json.load(file)["version"]
try:
    with open(f"{behaviours}/{version}") as file:
        behaviour = file.read()
except FileNotFoundError:
    behaviour = ""
if behaviour == "crash":
    sys.exit("RuntimeError: CUDA out of memory")
if behaviour == "hang":
    time.sleep(600)
server = socket.create_server(("127.0.0.1", port))
body = json.dumps({"version": version, "pid": os.getpid()}).encode()
while True:
    client, _ = server.accept()
    with client:
        client.settimeout(5)
        try:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            pass
"""
GATE = 'test ! -e "$0/gate-$MOUNTD_VERSION"'


class Versioned:
    """Of a daemon that was not started yet. `bucket` is the directory that its bucket is served from."""

    def __init__(self, daemon: Daemon, bucket: Path, *, ready: str = "20s", watch: str = "300ms") -> None:
        self.daemon = daemon
        self.bucket = bucket
        self.behaviours = daemon.root / "behaviours"
        self.behaviours.mkdir()
        script = daemon.root / "app.py"
        script.write_text(APP)
        words = [sys.executable, "-I", "-S", str(script), str(daemon.web_port), str(self.behaviours), str(daemon.link)]
        app = daemon.config["apps"]["webui"]
        app["command"] = words
        app["ready"]["timeout"] = ready
        model = daemon.config["models"][MODEL]
        model["gates"] = [{"command": ["sh", "-c", GATE, str(self.behaviours)], "timeout": "20s"}]
        model["watch"] = {"for": watch}

    def behave(self, version: str, behaviour: str) -> None:
        """From its next start on: crash, hang, or empty for as it should."""
        (self.behaviours / version).write_text(behaviour)

    def close_gate(self, version: str) -> None:
        (self.behaviours / f"gate-{version}").touch()

    def open_gate(self, version: str) -> None:
        (self.behaviours / f"gate-{version}").unlink(missing_ok=True)

    # -- asking ---------------------------------------------------------------------------------------------------

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Once the file is not being looked at, which lets no operation begin. Raises what the daemon's answer says."""
        ends = time.monotonic() + RELOAD_S
        while True:
            try:
                return post(str(self.daemon.socket), f"/api/v1/{path}", body, timeout_s=ANSWER_S)
            except Busy as busy:
                if "reload" not in busy.holder or time.monotonic() > ends:
                    raise
                time.sleep(0.02)

    def get(self, path: str, **parameters: object) -> dict[str, Any]:
        return get(str(self.daemon.socket), f"/api/v1/{path}", timeout_s=ANSWER_S, **parameters)

    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.status()["models"][MODEL]
        return found

    def newest(self) -> dict[str, Any] | None:
        """The operation that was begun last."""
        records = self.get("history", limit=1)["history"]
        return records[0] if records else None

    def steps(self, operation: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"history/{operation}")["steps"]
        return found

    def until_finished(self, timeout_s: float = AGREE_S) -> dict[str, Any]:
        """The newest operation, once it has ended."""

        def finished() -> dict[str, Any] | None:
            newest = self.newest()
            return newest if newest is not None and newest["finished"] else None

        found = until(finished, timeout_s, "the end of the operation", every_s=0.05)
        assert found is not None
        return found

    # -- what must hold ---------------------------------------------------------------------------------------------

    def linked(self) -> str:
        """The version that the link points at, which is one that the bucket holds with all its files."""
        target = os.readlink(self.daemon.link)
        directory = os.path.basename(target)
        assert target == f"{self.daemon.mount}/{directory}", f"the link points at {target}"
        assert (self.bucket / hub.BUCKET / directory / hub.MANIFEST).exists(), f"{directory} is not complete"
        return directory.removeprefix("cache_hub_")

    def rclones(self) -> list[int]:
        return [pid for pid in self.daemon.processes() if b"mount" in _words(pid)[1:2]]

    def apps(self) -> list[int]:
        return [pid for pid in self.daemon.processes() if str(self.behaviours).encode() in _words(pid)]

    def check_agrees(self, version: str) -> None:
        """Link, app and mount are there once, and all of one version. Raises AssertionError."""
        daemon = self.daemon
        status = daemon.status()
        model, app = status["models"][MODEL], status["apps"]["webui"]
        assert (self.linked(), model["current"], model["stage"]) == (version, version, "linked")
        assert os.listdir(daemon.link.parent) == [daemon.link.name], "nothing but the link is left there"
        page = daemon.page()
        assert (page["version"], page["pid"]) == (version, app["pid"])
        assert app["versions"] == {MODEL: version}
        assert self.apps() == [app["pid"]]
        assert daemon.mounts() == [str(daemon.mount)], "mounted once"
        assert self.rclones() == [status["mounts"]["storage"]["pid"]], "one rclone"


def _words(pid: int) -> list[bytes]:
    """Of its command line; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
