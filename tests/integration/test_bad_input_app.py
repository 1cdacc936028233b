"""An app that cannot be started, and ports that are taken: said which and by whom, and tried again."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import hold_port
from tests.support.daemon import Daemon
from tests.support.not_ready import assert_refuses_to_start, assert_silent, until_not_ready
from tests.support.wait import until

pytestmark = pytest.mark.fuse

REPAIRED_S = 60.0
"""Attempts come after 1, 2, 4 and 8 s."""


@pytest.fixture
def port() -> Iterator[int]:
    """It is the test's own all the time, whichever process listens there."""
    with hold_port() as held:
        yield held.getsockname()[1]


def stranger(port: int) -> socket.socket:
    """A program that is none of mountd's listens there: this one."""
    return socket.create_server(("127.0.0.1", port))


def assert_nothing_runs(daemon: Daemon, app: dict[str, Any] | None = None) -> None:
    """`app`: its status, when it must not be that of this moment."""
    app = app or daemon.status()["apps"]["webui"]
    assert (app["pid"], app["restarts"], app["health"]) == (None, 0, "Degraded")
    assert not any(
        "--model_dir" in event["text"] or "Running on" in event["text"] for event in daemon.events("app says")
    )


def between_tries(daemon: Daemon) -> dict[str, Any]:
    """The status of the app then: during a try the process exists that was to become the app."""

    def waits() -> dict[str, Any] | None:
        app: dict[str, Any] = daemon.status()["apps"]["webui"]
        return app if app["state"] == "backoff" else None

    found = until(waits, REPAIRED_S, "the app to wait for its next try")
    assert found is not None
    return found


@pytest.mark.thorough
def test_a_command_that_does_not_exist(daemon: Daemon) -> None:
    program = daemon.root / "python-of-the-app"
    daemon.config["apps"]["webui"]["command"][0] = str(program)
    daemon.start()
    reason = until_not_ready(daemon, "app-command-not-found", str(program))
    assert "apps.webui.command" in reason["hint"]
    assert (reason["layer"], reason["object"]) == ("app", "webui")
    assert_nothing_runs(daemon, between_tries(daemon))
    status = daemon.status()
    assert status["mounts"]["storage"]["health"] == status["models"]["cache_hub"]["health"] == "Healthy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    daemon.until_ready(REPAIRED_S)
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_command_that_may_not_be_executed(daemon: Daemon) -> None:
    program = daemon.root / "no-program"
    program.write_text("just text\n")
    daemon.config["apps"]["webui"]["command"] = [str(program)]
    daemon.start()
    until_not_ready(daemon, "app-cannot-execute", str(program), os.strerror(errno.EACCES).lower())
    assert_nothing_runs(daemon, between_tries(daemon))


def test_a_command_that_is_missing_within_the_app_is_not_the_app(daemon: Daemon) -> None:
    """A shell ends with 127 then, and `docker run` with 125 when it fails: these codes are the program's own."""
    program = daemon.root / "start.sh"
    program.write_text("#!/bin/sh\nno-such-tool --serve\n")
    program.chmod(0o755)
    daemon.config["apps"]["webui"]["command"] = ["./start.sh"]
    daemon.config["apps"]["webui"]["directory"] = str(daemon.root)
    daemon.start()
    until_not_ready(daemon, "app-exited", "127", "no-such-tool: not found")


@pytest.mark.thorough
def test_a_directory_that_does_not_exist(daemon: Daemon) -> None:
    missing = daemon.root / "nowhere"
    daemon.config["apps"]["webui"]["directory"] = str(missing)
    daemon.start()
    until_not_ready(daemon, "app-cannot-execute", str(missing))
    assert_nothing_runs(daemon, between_tries(daemon))
    assert not missing.exists()


@pytest.mark.thorough
@pytest.mark.root
def test_a_user_that_does_not_exist(daemon: Daemon) -> None:
    daemon.config["apps"]["webui"]["user"] = "mountd-t-nobody"
    daemon.start()
    reason = until_not_ready(daemon, "no-user", "mountd-t-nobody")
    assert "useradd" in reason["hint"]
    assert_nothing_runs(daemon)


@pytest.mark.slow
def test_a_secret_of_the_app_that_comes_later(daemon: Daemon) -> None:
    token = daemon.root / "token"
    daemon.config["apps"]["webui"]["environment"]["HF_TOKEN"] = {"file": str(token)}
    daemon.start()
    until_not_ready(daemon, "secret-missing", str(token))
    assert_nothing_runs(daemon)
    token.write_text("hf_mountd-test-token")
    daemon.until_ready(REPAIRED_S)
    assert "hf_mountd-test-token" not in daemon.log_text()


def test_the_port_of_the_app_is_taken(daemon: Daemon, port: int) -> None:
    with stranger(port):
        command = daemon.config["apps"]["webui"]["command"]
        command[command.index("--port") + 1] = str(port)
        daemon.config["apps"]["webui"]["ready"]["http"] = f"http://127.0.0.1:{port}/config"
        daemon.start()
        reason = until_not_ready(daemon, "port-taken", str(port))
        assert f"(pid {os.getpid()})" in reason["text"]
        assert_nothing_runs(daemon)
    daemon.until_ready(REPAIRED_S)
    assert_silent(daemon)


@pytest.mark.thorough
def test_the_port_of_mountd_itself_is_taken(daemon: Daemon, port: int) -> None:
    with stranger(port):
        daemon.config["http"]["listen"] = f"127.0.0.1:{port}"
        said = assert_refuses_to_start(daemon, 1, f"127.0.0.1:{port}")
        assert f"(pid {os.getpid()})" in said
        assert "http.listen" in said
        assert not daemon.socket.exists()
    daemon.http_port = port
    daemon.start_ready()


@pytest.mark.thorough
def test_a_group_that_does_not_exist(daemon: Daemon) -> None:
    daemon.config["control"]["group"] = "mountd-t-nobody"
    assert_refuses_to_start(daemon, 1, "groupadd --system mountd-t-nobody")
    until(lambda: not daemon.processes(), 60, "nothing to be left")


def test_an_rclone_that_does_not_exist(daemon: Daemon) -> None:
    daemon.config["rclone"]["binary"] = "/nonexistent/rclone"
    assert_refuses_to_start(daemon, 1, "/nonexistent/rclone")


@pytest.mark.thorough
def test_a_flag_that_this_rclone_does_not_know(daemon: Daemon) -> None:
    daemon.config["mounts"]["storage"]["options"] = {"no-such-flag": "1"}
    daemon.start()
    until_not_ready(daemon, "rclone-usage", "mounts.storage.options.no-such-flag", "--no-such-flag")
    assert daemon.status()["mounts"]["storage"]["state"] == "failed", "no retry can change it"
    assert daemon.events("app says") == []


LOGIN = """
import http.server, sys
class Login(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404 if self.path == "/nowhere" else 200 if self.path == "/open" else 401)
    def log_message(self, *_): ...
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Login).serve_forever()
"""


def test_a_readiness_page_that_asks_for_a_login_is_reported_while_it_is_awaited(daemon: Daemon) -> None:
    app = daemon.config["apps"]["webui"]
    app |= {"command": [sys.executable, "-c", LOGIN, str(daemon.web_port)], "needs": []}
    daemon.start()
    asked = f"http://127.0.0.1:{daemon.web_port}"

    def reported(path: str, status: int) -> dict[str, str]:
        def shown() -> dict[str, str] | None:
            reason = daemon.reasons()["app-starting"]
            return reason if reason["text"].endswith(f"{asked}{path} answers {status}") else None

        found = until(shown, 60, f"the answer {status} of {path} in the status")
        assert found is not None
        return found

    assert "login" in reported("/config", 401)["hint"]
    app["ready"]["http"] = f"{asked}/nowhere"
    daemon.write_config()
    assert "ready.http" in reported("/nowhere", 404)["hint"]
    app["ready"]["http"] = f"{asked}/open"
    daemon.write_config()
    until(lambda: daemon.status()["apps"]["webui"]["state"] == "running", 60, "the app to be ready")
    assert "app-starting" not in daemon.reasons()
