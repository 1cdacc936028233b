"""What must hold whenever bad input keeps mountd from being ready, whatever the input was."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.support.daemon import ANSWER_S, READY_S, Daemon, Result
from tests.support.wait import until


def readyz(daemon: Daemon) -> tuple[int, dict[str, Any]]:
    """What Kubernetes would see, once the port is open: just after a start only the socket may be."""

    def answer() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/readyz", timeout=ANSWER_S) as answered:
                return answered.status, json.load(answered)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return until(answer, READY_S, "an answer of /readyz")


def until_not_ready(daemon: Daemon, code: str, *words: str, timeout_s: float = READY_S) -> dict[str, str]:
    """The reason `code`, once it is shown: in plain words (each of `words` among them), with a hint, the same in every
    place, while the app was never started."""
    reason = daemon.until_reason(code, timeout_s)
    for word in words:
        assert word in reason["text"]
    assert reason["hint"]
    assert reason["layer"]
    assert reason["object"]
    status = daemon.status()
    assert not status["ready"]
    assert status["health"] != "Healthy"
    answer, document = readyz(daemon)
    assert (answer, document["ready"]) == (503, False)
    assert code in [each["code"] for each in document["reasons"]]
    shown = daemon.cli("status")
    assert shown.code == 1
    assert reason["text"] in shown.out
    assert reason["hint"] in shown.out
    assert_silent(daemon, json.dumps(status), shown.out)
    return reason


def assert_app_never_started(daemon: Daemon) -> None:
    """It was not even tried: its gate is shut."""
    app = daemon.status()["apps"]["webui"]
    assert (app["state"], app["pid"], app["restarts"]) == ("stopped", None, 0)
    assert daemon.events("app says") == []


def assert_silent(daemon: Daemon, *outputs: str) -> None:
    """No traceback of its own in its log, no secret there nor in `outputs`."""
    for text in (daemon.own_log_text(), *outputs):
        assert "Traceback" not in text
    for text in (daemon.log_text(), *outputs):
        assert daemon.secret_access_key not in text


def assert_refuses_to_start(daemon: Daemon, code: int, *words: str) -> str:
    """`mountd run` ends by itself with this exit code, says why, and leaves nothing; its words."""
    before = len(daemon.log_text()) if daemon.log.exists() else 0
    daemon.start()
    assert daemon.wait_exit() == code
    said = daemon.log_text()[before:]
    for word in words:
        assert word in said
    assert "hint: " in said
    assert_silent(daemon)
    assert daemon.mounts() == []
    return said


def assert_refused(result: Result, code: int, *words: str) -> None:
    """A command that ended with `code`, the reason and a hint on stderr and nothing on stdout."""
    assert result.code == code, result
    for word in words:
        assert word in result.err
    assert "hint: " in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
