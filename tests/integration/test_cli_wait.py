"""`wait`, `logs` and `restart`, against a stand-in daemon."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.cli.main import main
from tests.integration.test_cli_standin import OPERATION, STATUS, Answer, Asked, Daemon


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "mountd.sock")
    monkeypatch.setenv("MOUNTD_SOCKET", made.path)
    made.start()
    yield made
    made.stop()


def test_wait_until_ready(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.status = {**STATUS, "ready": False}
    threading.Timer(0.3, setattr, [daemon, "status", STATUS]).start()
    assert main(["wait", "--for", "ready"]) == 0
    assert capsys.readouterr().out == "ready\n"
    assert daemon.asked[0].query == {"wait": "20.0", "for": "ready"}


def test_wait_for_a_daemon_that_is_still_to_start(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.stop()
    threading.Timer(0.3, daemon.start).start()
    assert main(["wait", "--for", "ready", "--timeout", "10s", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_wait_for_a_version_waits_for_the_end_of_the_operation(daemon: Daemon) -> None:
    live = {**STATUS["models"]["cache_hub"], "current": "v23"}
    daemon.status = {**STATUS, "models": {"cache_hub": live}, "operations": [OPERATION]}
    assert main(["wait", "--for", "version=v23", "--timeout", "100ms"]) == 4
    daemon.status = {**daemon.status, "operations": []}
    assert main(["wait", "--for", "version=v23", "--timeout", "100ms"]) == 0


def test_wait_for_a_version_waits_for_a_link_that_somebody_has_changed(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    drifted = {"code": "link-drifted", "text": "it was removed", "layer": "link", "object": "cache_hub", "hint": ""}
    daemon.status = {**STATUS, "reasons": [drifted]}
    assert main(["wait", "--for", "version=v22", "--timeout", "100ms"]) == 4
    assert "it was removed" in capsys.readouterr().err
    daemon.status = {**STATUS, "reasons": [{**drifted, "object": "other"}]}
    assert main(["wait", "--for", "version=v22", "--timeout", "100ms"]) == 0


def test_wait_that_ran_out_says_why(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.status = {**STATUS, "ready": False}
    assert main(["wait", "--for", "ready", "--timeout", "0"]) == 4
    assert "cannot list 存储桶: refused" in capsys.readouterr().err
    daemon.stop()
    assert main(["wait", "--for", "ready", "--timeout", "0"]) == 8


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["wait", "--for", "version=v23", "--model", "nope"], 3),
        (["wait", "--for", "later"], 2),
        (["wait", "--for", "version="], 2),
        (["wait", "--for", "ready", "--timeout", "soon"], 2),
        (["wait"], 2),
        (["switch"], 2),
        (["status", "-o", "yaml"], 2),
        (["status", "--nope", "-o", "json"], 2),
    ],
)
def test_wrong_usage(daemon: Daemon, arguments: list[str], exit_code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.err
    assert ("json" in arguments) == bool(captured.out)


def test_wait_with_several_models_needs_one(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    model = STATUS["models"]["cache_hub"]
    daemon.status = {**STATUS, "models": {"a": model, "b": model}}
    assert main(["wait", "--for", "version=v23"]) == 2
    assert "one of a, b" in capsys.readouterr().err


# logs, restart --------------------------------------------------------------------------------------------------------

LINE = {"name": "webui", "time": "2026-01-01T00:00:00Z", "text": "你好"}


def test_logs(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET /api/v1/logs"] = lambda _: (200, {"schema": 1, "logs": [LINE, LINE]})
    assert main(["logs", "webui", "--lines", "5"]) == 0
    assert capsys.readouterr().out == "2026-01-01T00:00:00Z webui: 你好\n" * 2
    assert daemon.asked[0].query == {"name": "webui", "lines": "5"}


def test_logs_follow(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET /api/v1/logs"] = lambda _: (200, [{"schema": 1, **LINE}] * 3)
    assert main(["logs", "--follow"]) == 0
    assert capsys.readouterr().out.count("你好") == 3
    assert main(["logs", "-f", "-o", "json"]) == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["webui"] * 3
    assert daemon.asked[0].query == {"follow": "1"}


def restarted(daemon: Daemon, **then: object) -> Answer:
    def answer(asked: Asked) -> tuple[int, object]:
        def change(**values: object) -> None:
            daemon.status = {**STATUS, "apps": {"webui": {**STATUS["apps"]["webui"], **values}}}

        change(state="starting", pid=902)
        threading.Timer(0.5, change, kwargs={"pid": 902, **then}).start()
        return 202, {"schema": 1, "name": asked.body["name"]}

    return answer


def test_restart_returns_once_it_runs_again(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST /api/v1/restart"] = restarted(daemon, state="running")
    assert main(["restart", "webui"]) == 0
    assert capsys.readouterr().out == "webui is running, pid 902\n"


@pytest.mark.parametrize("state", ["failed", "backoff"])
def test_restart_that_does_not_come_up(daemon: Daemon, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["POST /api/v1/restart"] = restarted(daemon, state=state)
    assert main(["restart", "webui"]) == 1
    assert "mountd logs webui" in capsys.readouterr().err


def test_restart_of_what_is_not_there(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart", "nope"]) == 3
    assert "one of webui, storage" in capsys.readouterr().err
