"""A daemon whose app does what a test says, by version; and what a test wants to know of it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon, Result
from tests.support.wait import until

SOON_S = 60.0

# An app that does with each version what a file APP-VERSION says: crash, exit, hang, deaf, dies (once asked by
# APP-VERSION.die; then-crash: and never starts again), mute (its page /synthesis fails). While there is an
# APP-VERSION.hold its start goes on. It knows the version from the manifest behind its link, so what its page says was
# read through the link and the mount.
APP = r"""
import json, os, signal, socket, sys, time
port, behaviours, app, link = int(sys.argv[1]), *sys.argv[2:5]
with open(f"{link}/MANIFEST.json") as file:
    version = json.load(file)["version"]
try:
    with open(f"{behaviours}/{app}-{version}") as file:
        words = file.read().split()
except FileNotFoundError:
    words = []
print("loading", version, *words, flush=True)
if "deaf" in words:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
hold, die, died = (f"{behaviours}/{app}-{version}.{each}" for each in ("hold", "die", "died"))
if "crash" in words or ("then-crash" in words and os.path.exists(died)):
    sys.exit("RuntimeError: CUDA out of memory")
if "exit" in words:
    sys.exit(0)
if "hang" in words:
    time.sleep(600)
if os.path.exists(hold):
    print("held", app, version, flush=True)
while os.path.exists(hold):
    time.sleep(0.02)
server = socket.create_server(("127.0.0.1", port))
server.settimeout(0.02 if "dies" in words else None)
body = json.dumps({"version": version, "pid": os.getpid()}).encode()
while True:
    if "dies" in words and os.path.exists(die):
        os.rename(die, died)
        sys.exit("RuntimeError: device-side assert triggered")
    try:
        client, _ = server.accept()
    except TimeoutError:
        continue
    with client:
        client.settimeout(5)
        asked = client.recv(65536)
        status = b"500 Not now" if b"/synthesis" in asked and "mute" in words else b"200 OK"
        client.sendall(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
"""


class Stage:
    """A daemon with such an app, and what a test wants to know of it."""

    def __init__(self, daemon: Daemon, *, ready: str = "20s", grace: str = "3s") -> None:
        self.daemon = daemon
        self.behaviours = daemon.root / "behaviours"
        self.behaviours.mkdir()
        (daemon.root / "app.py").write_text(APP)
        app = daemon.config["apps"]["webui"]
        app["command"] = self.command("webui", daemon.web_port, daemon.link)
        app["ready"]["timeout"] = ready
        app["stop"]["grace"] = grace

    def command(self, app: str, port: int, link: Path) -> list[str]:
        script = self.daemon.root / "app.py"
        return [sys.executable, "-I", "-S", str(script), str(port), str(self.behaviours), app, str(link)]

    def add_app(self, name: str, model: str, link: Path, port: int) -> dict[str, Any]:
        apps = self.daemon.config["apps"]
        apps[name] = {
            **apps["webui"],
            "command": self.command(name, port, link),
            "needs": [model],
            "ready": {**apps["webui"]["ready"], "http": f"http://127.0.0.1:{port}/config"},
        }
        added: dict[str, Any] = apps[name]
        return added

    def gate(self, *more: dict[str, Any]) -> None:
        """A test synthesis must succeed, and `more`."""
        http = {"http": f"http://127.0.0.1:{self.daemon.web_port}/synthesis", "timeout": "30s"}
        self.daemon.config["models"]["cache_hub"]["gates"] = [http, *more]

    def behave(self, version: str, behaviour: str, app: str = "webui") -> None:
        """From its next start on; empty: as it should."""
        (self.behaviours / f"{app}-{version}").write_text(behaviour)

    def hold(self, version: str, app: str = "webui") -> None:
        """From its next start on it does not get ready."""
        (self.behaviours / f"{app}-{version}.hold").touch()

    def let_go(self, version: str, app: str = "webui") -> None:
        (self.behaviours / f"{app}-{version}.hold").unlink()

    def die(self, version: str, app: str = "webui") -> None:
        """Now, if it was to behave so."""
        (self.behaviours / f"{app}-{version}.die").touch()

    def model(self, name: str = "cache_hub") -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.status()["models"][name]
        return found

    def pid(self, app: str = "webui") -> int:
        found: int = self.daemon.status()["apps"][app]["pid"]
        return found

    def link(self) -> str:
        return os.path.basename(os.readlink(self.daemon.link)).removeprefix("cache_hub_")

    def operation(self, id_: int) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.daemon.http_port}/api/v1/operations/{id_}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def begin(self, version: str) -> None:
        """Asks for it and does not wait for its end."""
        assert self.daemon.cli("switch", version, "--timeout", "100ms").code == 4

    def until_step(self, step: str) -> None:
        def there() -> bool:
            operation = self.daemon.status()["operation"]
            return operation is not None and operation["step"] == step

        until(there, SOON_S, f"the step {step}", every_s=0.01)

    def until_held(self, version: str, app: str = "webui") -> None:
        text = f"held {app} {version}"
        until(lambda: any(event["text"] == text for event in self.daemon.events("app says")), SOON_S, f"{text!r}")

    def check_serves(self, version: str) -> None:
        """All that could disagree agrees."""
        model = self.model()
        assert (model["stage"], model["current"], self.link()) == ("linked", version, version)
        assert self.daemon.page()["version"] == version
        assert (model["desired"], model["sync"]) == (version, "Synced")


def says(result: Result, code: int, *texts: str) -> None:
    assert result.code == code, result
    for text in texts:
        assert text in result.err, result.err
