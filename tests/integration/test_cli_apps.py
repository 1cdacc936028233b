"""Start, stop and signal of an app, a switch for later, a rollback to an operation, logs: against a stand-in daemon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mountd.cli import follow
from mountd.cli.main import main
from tests.support.standin import COMMITTED, OPERATION, STATUS, Asked, StandIn, accept, error

SCHEDULED: dict[str, Any] = {
    **OPERATION, "kind": "schedule", "from": None, "step": "waits", "due": "2099-01-31T03:00:00Z", "schedule": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RESTART_POLL_S", 0.01)


def states(standin: StandIn, *apps: Mapping[str, object], reasons: tuple[object, ...] = ()) -> None:
    """The app is at each of these in turn, for ever at the last."""
    left = [{**STATUS["apps"]["webui"], **app} for app in apps]

    def answer(_: Asked) -> tuple[int, object]:
        app = left.pop(0) if len(left) > 1 else left[0]
        return 200, {**STATUS, "apps": {"webui": app}, "reasons": [*reasons]}

    standin.answers["GET /api/v1/status"] = answer


def takes(standin: StandIn, path: str, **answer: object) -> None:
    standin.answers[f"POST /api/v1/{path}"] = lambda _: (202, {"schema": 1, "name": "webui", **answer})


# -- stop and start ---------------------------------------------------------------------------------------------------


def test_a_stop_is_waited_for(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    takes(standin, "stop", changed=True)
    states(standin, {"state": "stopping"}, {"state": "cleaning"}, {"state": "stopped", "pid": None})
    assert main(["stop", "webui", "--reason", "training"]) == 0
    assert "mountd start webui" in capsys.readouterr().out
    assert standin.asked[0].body == {"name": "webui", "reason": "training"}
    assert main(["stop", "webui", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["state"] == "stopped"


def test_a_stop_that_takes_too_long(standin: StandIn) -> None:
    takes(standin, "stop", changed=True)
    states(standin, {"state": "stopping"})
    assert main(["stop", "webui", "--timeout", "50ms"]) == 4


def test_a_start_is_waited_for(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    takes(standin, "start", changed=True)
    stopped = {"state": "stopped", "pid": None}
    states(standin, stopped, stopped, {"state": "starting", "pid": 7}, {"state": "running", "pid": 7})
    assert main(["start", "webui"]) == 0
    assert capsys.readouterr().out == "webui is running, pid 7\n"


def test_a_start_of_what_runs_is_done(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    takes(standin, "start", changed=False)
    states(standin, {"state": "running", "pid": 7})
    assert main(["start", "webui", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["pid"] == 7


def test_a_start_that_fails_says_why(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    reason = {"code": "app-exited", "text": "it ended with exit code 1", "layer": "app", "object": "webui", "hint": "x"}
    takes(standin, "start", changed=True)
    failed = {"state": "failed", "since": "1"}
    states(standin, failed, failed, {"state": "starting", "since": "2"}, {**failed, "since": "3"}, reasons=(reason,))
    assert main(["start", "webui"]) == 1
    assert "cannot start webui: it ended with exit code 1" in capsys.readouterr().err
    states(standin, {"state": "stopped"}, reasons=(reason,))
    assert main(["start", "webui", "--timeout", "50ms"]) == 4
    assert "it ended with exit code 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["start", "stop", "signal"])
@pytest.mark.parametrize(("status", "exit_code"), [(404, 3), (409, 6), (422, 7)])
def test_what_is_refused(standin: StandIn, command: str, status: int, exit_code: int) -> None:
    standin.answers[f"POST /api/v1/{command}"] = error(status, exit_code, "cannot: no")
    assert main([command, "webui", *(["HUP"] if command == "signal" else [])]) == exit_code


def test_a_signal(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    takes(standin, "signal", signal="SIGHUP", pid=901)
    assert main(["signal", "webui", "HUP"]) == 0
    assert capsys.readouterr().out == "SIGHUP was sent to webui, pid 901\n"
    assert standin.asked[0].body == {"name": "webui", "signal": "HUP"}
    assert main(["signal", "webui"]) == 2


# -- later and back ---------------------------------------------------------------------------------------------------


def test_a_switch_for_a_later_time_prints_its_id(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["POST /api/v1/switch"] = lambda _: (202, {"schema": 1, "operation": SCHEDULED})
    assert main(["switch", "v23", "--at", "2099-01-31T03:00:00Z", "--reason", "nightly"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "17\n"
    assert all(words in captured.err for words in ("v23", "2099-01-31T03:00:00Z", "`mountd cancel 17`"))
    assert standin.asked[0].body == {"version": "v23", "reason": "nightly", "at": "2099-01-31T03:00:00Z"}
    assert main(["switch", "v23", "--at", "+30m", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEDULED
    assert standin.asked[1].body == {"version": "v23", "at": "+30m"}
    assert len(standin.asked) == 2, "it waits for nothing"
    assert main(["switch", "v23", "--at", "tomorrow"]) == 2
    assert len(standin.asked) == 2


def test_a_scheduled_switch_is_waited_for_to_its_end(standin: StandIn) -> None:
    failure = {"exit": 5, "text": "cannot switch to v23: it crashed", "hint": ""}
    ended = {**COMMITTED, "kind": "schedule", "due": SCHEDULED["due"], "result": "rolled-back", "error": failure}
    accept(standin, SCHEDULED, ended)
    assert main(["wait", "--for", "operation=17"]) == 5


def test_a_scheduled_switch_is_dropped(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    dropped = {**SCHEDULED, "finished": "2026-01-01T00:00:00Z", "result": "cancelled"}
    standin.answers["POST /api/v1/cancel"] = lambda _: (202, {"schema": 1, "operation": dropped})
    assert main(["cancel", "17"]) == 0
    assert standin.asked[0].body == {"id": 17}
    assert "2099-01-31T03:00:00Z" in capsys.readouterr().out
    assert main(["cancel", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == "cancelled"


def test_a_rollback_to_an_operation(standin: StandIn) -> None:
    accept(standin, {**COMMITTED, "kind": "rollback"}, path="/api/v1/rollback")
    assert main(["rollback", "--to", "7"]) == 0
    assert standin.asked[0].body == {"to": 7}
    assert main(["rollback", "--to", "x"]) == 2


def test_the_history_shows_what_is_scheduled(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {**SCHEDULED, "finished": None}
    standin.answers["GET /api/v1/history"] = lambda _: (200, {"schema": 1, "history": [entry], "next": None})
    assert main(["history"]) == 0
    assert "switch cache_hub → v23 at 2099-01-31T03:00:00Z" in capsys.readouterr().out


# -- logs and status --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("since", "seconds"), [("10m", "600.0"), ("1m30s", "90.0"), ("2099-01-31T03:00:00Z", "0.0")])
def test_logs_since(standin: StandIn, since: str, seconds: str) -> None:
    standin.answers["GET /api/v1/logs"] = lambda _: (200, {"schema": 1, "logs": []})
    assert main(["logs", "webui", "--previous", "--since", since]) == 0
    assert standin.asked[0].query == {"name": "webui", "previous": "1", "since": seconds}
    assert main(["logs", "--since", "then"]) == 2


def test_the_status_shows_last_lines_and_what_is_scheduled(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"time": "t", "text": f"line {number} \x1b[2J"} for number in range(3)]
    app = {**STATUS["apps"]["webui"], "state": "failed", "said": said}
    mount = {**STATUS["mounts"]["storage"], "said": [{"time": "t", "text": "rclone says no"}]}
    waiting = {
        "id": 18, "model": "cache_hub", "version": "v23", "due": "2099-01-31T03:00:00Z", "operator": "root",
        "reason": "nightly", "asked": "t", "waits": "",
    }  # fmt: skip
    standin.status = {**STATUS, "apps": {"webui": app}, "mounts": {"storage": mount}, "scheduled": [waiting]}
    assert main(["status"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("│")] == [
        "│ rclone says no",
        *(f"│ line {number} \\x1b[2J" for number in range(3)),
    ]
    assert any(line.startswith("scheduled 18: cache_hub → v23, at 2099-01-31T03:00:00Z") for line in lines)
