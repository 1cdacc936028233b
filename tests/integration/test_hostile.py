"""Data from outside, made to do harm: nothing of it ends mountd, is a bug, or reaches a terminal as it is."""

from __future__ import annotations

import json
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.client.api import post
from mountd.demo import hub
from mountd.errors import MountdError
from tests.support import hostile
from tests.support.daemon import Daemon, Result
from tests.support.hostile import HOSTILE, raw_controls
from tests.support.s3 import RcloneS3

pytestmark = pytest.mark.fuse

SOON_S = 30.0
# Says whatever comes out of a seeded generator, on and on; with v22 it ends with words that would do harm.
APP = r"""
import json, random, socket, sys
port, link, seed = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
version = json.load(open(f"{link}/MANIFEST.json"))["version"]
rng, say = random.Random(seed), sys.stdout.buffer
pieces = [b"\x1b[2J", b"\x1b]0;t\x07", b"\xc2\x9b31m", b"\r", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xae"]
pieces.append(b"\n")
for _ in range(300):
    say.write(rng.choice(pieces) + rng.randbytes(rng.randint(0, 30)))
say.write(b"\n" + b"x" * rng.choice([10, 20_000]) + b"\r50%\r60%\n")
say.flush()
if version == "v22":
    say.write(b"\x1b[2J\xc2\x9b\xff\xe2\x80\xae fatal \0 words")
    sys.exit(1)
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
"""
NAMES = (b"\x1b[2J", b"\xc2\x9b31m", b"caf\xe9", "\u202egpj.exe".encode(), b"a\tb", b"\xe5\xa3\xb0" * 80, b"line\nend")


class Attacked:
    """A daemon whose bucket and app are hostile; every answer of it is looked at."""

    def __init__(self, daemon: Daemon, store: RcloneS3, seed: int, count: int) -> None:
        self.daemon = daemon
        self._rng = random.Random(seed)
        self._bucket = store.directory / hub.BUCKET
        self.versions = [self._plant(f"h{number}") for number in range(count)]
        (daemon.root / "app.py").write_text(APP)
        app = daemon.config["apps"]["webui"]
        script = [str(daemon.root / "app.py"), str(daemon.web_port), str(daemon.link), str(seed)]
        app["command"] = [sys.executable, "-I", "-S", *script]
        self.pid: int = daemon.start_ready()["pid"]

    def _plant(self, version: str) -> str:
        directory = self._bucket / f"cache_hub_{version}"
        (directory / "models").mkdir(parents=True)
        files = {"models/gpt.pth": 7, "config.yaml": 3}
        for path, size in files.items():
            (directory / path).write_bytes(b"x" * size)
        for name in self._rng.sample(NAMES, 2):
            Path(os.fsdecode(os.fsencode(directory) + b"/" + name)).write_bytes(b"")
        (directory / hub.MANIFEST).write_bytes(hostile.manifest(self._rng, version, files))
        return version

    def check(self, result: Result, *codes: int) -> Result:
        assert result.code in codes, result
        assert (raw_controls(result.out), raw_controls(result.err)) == ([], []), result
        assert "Traceback" not in result.err, result
        assert len(result.out) + len(result.err) < 500_000
        return result

    def ask(self, path: str) -> None:
        """Over TCP, as a dashboard or `curl` does."""
        url = f"http://127.0.0.1:{self.daemon.http_port}{path}"
        try:
            answer = urllib.request.urlopen(url, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body: bytes = answer.read()
        assert answer.status in (200, 400, 404, 503), path
        assert raw_controls(body.decode()) == [], path
        json.loads(body)

    def post(self, path: str, body: dict[str, object]) -> int:
        """The exit code that a command would have."""
        try:
            post(str(self.daemon.socket), path, body, timeout_s=60)
        except MountdError as error:
            failure = error
        else:
            return 0
        assert len(failure.text) < 5000
        return failure.exit_code

    def check_unharmed(self) -> None:
        status = self.daemon.status()
        assert (status["pid"], status["models"]["cache_hub"]["current"]) == (self.pid, "v23")
        assert "Traceback" not in self.daemon.own_log_text()
        assert raw_controls(self.daemon.log_text()) == []
        assert (self.daemon.root / "state" / "mountd.db").stat().st_size < 1_000_000

    def __iter__(self) -> Iterator[str]:
        return iter(self.versions)


@pytest.mark.parametrize(
    ("seed", "count"),
    [(1, 12), *(pytest.param(seed, 100, marks=pytest.mark.thorough) for seed in range(2, 6))],
)
def test_hostile_manifests_keys_and_output(
    make_daemon: Callable[..., Daemon], store: RcloneS3, seed: int, count: int
) -> None:
    attacked = Attacked(make_daemon(), store, seed, count)
    daemon, rng = attacked.daemon, random.Random(seed)
    for version in attacked:
        assert attacked.post("/api/v1/switch", {"version": version, "dry_run": True}) == 7, version
    operation = attacked.check(daemon.cli("switch", attacked.versions[0], "--no-wait"), 0).out.strip()
    attacked.check(daemon.cli("wait", "--for", f"operation={operation}"), 7)
    if count > 50:
        attacked.check(daemon.cli("switch", attacked.versions[1], "--dry-run"), 7)
    # One that is complete, and whose app ends with hostile words.
    attacked.check(daemon.cli("switch", "v22", "--reason", "\x1b[2J\x9b\u202e words"), 5)
    assert attacked.post("/api/v1/switch", {"version": "v22", "reason": "\ud800"}) == 2
    for key in ("version", "model", "reason", hostile.text(rng, 3)):
        assert attacked.post("/api/v1/switch", {"version": "v22", "dry_run": True, key: HOSTILE}) in (2, 3)
    # As the edited version.
    daemon.config["models"]["cache_hub"]["version"] = attacked.versions[2]
    daemon.write_config()
    daemon.until_reason("switch-failed", SOON_S)

    for words in (("versions",), ("status",), ("history",), ("events",), ("logs",)):
        attacked.check(daemon.cli(*words), 0)
    assert attacked.check(daemon.cli("logs", "-o", "json", "--previous"), 0).json
    for name in (
        "status",
        "versions",
        f"history/{operation}",
        "events",
        "logs",
        "logs?name=%1b%9b%ed%a0%80",
        "history?model=%ff%00",
    ):
        attacked.ask(f"/api/v1/{name}")
    attacked.check_unharmed()
    assert daemon.stop() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(12))
def test_a_hostile_first_version(make_daemon: Callable[..., Daemon], store: RcloneS3, number: int) -> None:
    """There is nothing to go on with: it waits for content that is right, and does not end and start and end."""
    version = store.directory / hub.BUCKET / "cache_hub_v23"
    kept = (version / hub.MANIFEST).read_bytes()
    (version / hub.MANIFEST).write_bytes(hostile.manifest(random.Random(number), "v23", {"models/gpt.pth": 7}))
    daemon = make_daemon()
    daemon.start()
    reason = daemon.until_reason("waiting-for-content", SOON_S)
    assert len(reason["text"]) < 5000
    assert raw_controls(daemon.cli("status").out) == []
    (version / hub.MANIFEST).write_bytes(kept)
    daemon.until_ready()
    assert daemon.stop() == 0
