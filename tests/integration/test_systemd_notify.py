"""What mountd sends to systemd and when, and that nothing of what it gives to mountd reaches mountd's children."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

WATCHDOG_S = 9.0
PRIVATE = ("WATCHDOG_", "CREDENTIALS_DIRECTORY", "LISTEN_", "INVOCATION_ID", "JOURNAL_STREAM")


@dataclass(frozen=True)
class Message:
    at: float
    fields: dict[str, str]


class Systemd:
    """The other end of NOTIFY_SOCKET, and a directory of credentials."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mountd-t-")
        self.credentials = Path(self._root.name) / "credentials"
        self.credentials.mkdir(mode=0o700)
        self.address = f"{self._root.name}/notify"
        self.messages: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            fields = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            self.messages.append(Message(time.monotonic(), fields))

    def environment(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
            "WATCHDOG_PID": "1",
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            "INVOCATION_ID": "0123456789abcdef",
            "JOURNAL_STREAM": "1:2",
            "LISTEN_FDNAMES": "nothing",
        }

    def of(self, key: str) -> list[Message]:
        return [message for message in self.messages if key in message.fields]

    def reported(self, key: str) -> list[str]:
        return [message.fields[key] for message in self.of(key)]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.address)
        self._thread.join(5)
        self._socket.close()
        self._root.cleanup()


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    made = Systemd()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def supervised(make_daemon: Callable[..., Daemon], proxy: Proxy, systemd: Systemd) -> Daemon:
    """A daemon as a unit of `systemd`, its bucket behind `proxy`."""
    return make_daemon(endpoint=proxy.endpoint, environment=systemd.environment())


def test_ready_comes_at_once_and_status_says_what_is_awaited(
    supervised: Daemon, proxy: Proxy, systemd: Systemd
) -> None:
    """Ready is the daemon: a bucket that is away holds up no boot, and systemd's watchdog watches meanwhile."""
    proxy.down()
    supervised.config["apps"]["webui"]["command"] = ["sleep", "600"]
    supervised.start()
    reason = supervised.until_reason("waiting-for-mount")
    until(lambda: any(proxy.endpoint in text for text in systemd.reported("STATUS")), 60, "a status with the outage")
    assert reason["object"] == "webui"
    assert "storage" in reason["text"]
    assert systemd.reported("READY") == ["1"]
    assert not supervised.link.is_symlink()
    until(lambda: systemd.of("WATCHDOG"), 60, "the watchdog to be fed")

    proxy.up()
    until(supervised.link.is_symlink, 60, "the link")
    # What is awaited from now on is the app.
    assert not supervised.status()["ready"]
    until(lambda: "webui" in systemd.reported("STATUS")[-1], 60, "a status with the app")
    assert supervised.stop() == 0  # while its bucket is there
    assert systemd.reported("READY") == ["1"]


def test_the_watchdog_is_fed_in_time_and_a_stop_is_reported(supervised: Daemon, systemd: Systemd) -> None:
    supervised.start_ready()
    until(lambda: "Ready: cache_hub v23 is live." in systemd.reported("STATUS"), 60, "a status that all is ready")
    fed = len(systemd.of("WATCHDOG"))
    until(lambda: len(systemd.of("WATCHDOG")) >= fed + 3, 4 * WATCHDOG_S, "the watchdog to be fed")
    times = [message.at for message in systemd.of("WATCHDOG")]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < WATCHDOG_S
    assert median(gaps[-3:]) < WATCHDOG_S / 2, "as often as systemd advises; a busy machine may delay one"
    assert systemd.of("STOPPING") == []
    assert supervised.stop(signal.SIGTERM) == 0
    until(lambda: systemd.of("STOPPING"), 60, "STOPPING=1")
    assert systemd.reported("STOPPING") == ["1"]
    (asked,) = systemd.reported("EXTEND_TIMEOUT_USEC")
    shown = supervised.cli("config", "show", "-c", str(supervised.config_file), "-o", "json").json
    assert int(asked) == shown["stop_s"] * 1_000_000
    assert systemd.reported("STATUS")[-1] == "Stopping."
    assert systemd.reported("READY") == ["1"]


@pytest.mark.thorough
def test_children_see_nothing_that_is_the_daemons_alone(supervised: Daemon, store: RcloneS3, systemd: Systemd) -> None:
    """Its secrets, by credential and by variable, work; rclone, the app and the workers have none of it."""
    (systemd.credentials / "s3-secret").write_text(f"{store.secret_access_key}\n")
    (systemd.credentials / "s3-secret").chmod(0o400)
    remote = supervised.config["remotes"]["store"]
    remote["secret_access_key"] = {"credential": "s3-secret"}
    remote["access_key_id"] = {"env": "MY_KEY_ID"}
    supervised.environment["MY_KEY_ID"] = store.access_key_id
    status = supervised.start_ready()
    assert supervised.page()["version"] == "v23"
    assert supervised.process is not None

    children = descendants(status["pid"])
    assert {status["mounts"]["storage"]["pid"], status["apps"]["webui"]["pid"]} < children.keys()
    for pid, variables in children.items():
        for name, value in variables.items():
            assert not name.startswith(PRIVATE), f"{pid} has {name}"
            assert name != "MY_KEY_ID", f"{pid} has {name}"
            assert store.secret_access_key not in value, f"{pid} has the secret in {name}"
            assert store.access_key_id not in value, f"{pid} has the key in {name}"
        assert variables.get("NOTIFY_SOCKET") != systemd.address, f"{pid} could talk to systemd"
    assert store.secret_access_key not in supervised.log_text()


@pytest.mark.thorough
def test_a_missing_credential_is_a_reason_with_what_to_do(supervised: Daemon, systemd: Systemd) -> None:
    supervised.config["remotes"]["store"]["secret_access_key"] = {"credential": "s3-secret"}
    supervised.start()
    reason = supervised.until_reason("secret-missing")
    assert "s3-secret" in reason["text"]
    assert set(reason) == {"code", "text", "layer", "object", "hint"}
    assert reason["hint"]
    (systemd.credentials / "s3-secret").write_text(supervised.secret_access_key)  # tried again by itself
    supervised.until_ready()


def descendants(pid: int) -> dict[int, dict[str, str]]:
    """The environment of everything below `pid`."""
    found: dict[int, dict[str, str]] = {}
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[child.pid] = child.environ()
    return found


def test_a_reload_by_signal_is_reported_from_its_begin_to_its_end(supervised: Daemon, systemd: Systemd) -> None:
    """Also one that fails: `Type=notify-reload` would wait for the end in vain."""
    supervised.start_ready()
    until(lambda: systemd.reported("READY"), 60, "READY")
    assert supervised.process is not None
    for number, text in enumerate(["log: {level: debug}", "no: such key"], 1):
        supervised.config_file.write_text(f"{supervised.config_file.read_text()}\n{text}\n")
        began_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        supervised.process.send_signal(signal.SIGHUP)
        until(lambda: len(systemd.reported("READY")) > number, 60, "the end of the reload")  # noqa: B023
        begin = systemd.of("RELOADING")[-1]
        assert len(systemd.of("RELOADING")) == number
        assert int(begin.fields["MONOTONIC_USEC"]) >= began_us
        assert systemd.of("READY")[-1].at >= begin.at
    assert "config-broken" in supervised.reasons()
