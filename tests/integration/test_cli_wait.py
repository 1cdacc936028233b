"""`wait`, `logs` and `restart`, against a stand-in daemon."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mountd.cli import follow
from mountd.cli.main import main
from tests.support.standin import OPERATION, STATUS, Answer, Asked, StandIn


def test_wait_until_ready(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.status = {**STATUS, "ready": False}
    threading.Timer(0.3, setattr, [standin, "status", STATUS]).start()
    assert main(["wait", "--for", "ready"]) == 0
    assert capsys.readouterr().out == "ready\n"
    assert standin.asked[0].query == {"wait": "20.0", "for": "ready"}


def test_wait_for_a_daemon_that_is_still_to_start(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.stop()
    threading.Timer(0.3, standin.start).start()
    assert main(["wait", "--for", "ready", "--timeout", "10s", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_wait_for_a_version_waits_for_the_end_of_the_operation(standin: StandIn) -> None:
    live = {**STATUS["models"]["cache_hub"], "current": "v23"}
    standin.status = {**STATUS, "models": {"cache_hub": live}, "operations": [OPERATION]}
    assert main(["wait", "--for", "version=v23", "--timeout", "100ms"]) == 4
    standin.status = {**standin.status, "operations": []}
    assert main(["wait", "--for", "version=v23", "--timeout", "100ms"]) == 0


def test_wait_for_a_version_waits_for_a_link_that_somebody_has_changed(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    drifted = {"code": "link-drifted", "text": "it was removed", "layer": "link", "object": "cache_hub", "hint": ""}
    standin.status = {**STATUS, "reasons": [drifted]}
    assert main(["wait", "--for", "version=v22", "--timeout", "100ms"]) == 4
    assert "it was removed" in capsys.readouterr().err
    standin.status = {**STATUS, "reasons": [{**drifted, "object": "other"}]}
    assert main(["wait", "--for", "version=v22", "--timeout", "100ms"]) == 0


def test_a_version_that_only_loads_is_live(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    warm = {**OPERATION, "kind": "warm"}
    standin.status = {**STATUS, "operations": [warm, {**OPERATION, "model": "other"}]}
    assert main(["wait", "--for", "version=v22", "--timeout", "0"]) == 0
    assert capsys.readouterr().out == "v22 is live\n"


@pytest.mark.parametrize("change", [{"stage": "warmed"}, {"current": "v21"}, {"current": None}], ids=str)
def test_a_version_that_is_not_live_yet(
    standin: StandIn, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    standin.status = {**STATUS, "models": {"cache_hub": {**STATUS["models"]["cache_hub"], **change}}}
    assert main(["wait", "--for", "version=v22", "--timeout", "0"]) == 4
    err = capsys.readouterr().err
    assert f"the live version is {change.get('current', 'v22') or 'none'}" in err
    assert "cannot list 存储桶: refused" in err
    assert standin.asked[0].query == {"wait": "0.0", "for": "version=v22"}


FAILED = {
    **OPERATION, "finished": "2026-01-01T00:01:00.000Z", "result": "rolled-back", "to": "v23", "id": 18,
    "error": {"exit": 5, "text": "the app crashed; v22 is live again", "hint": "v23 is refused until it changes"},
}  # fmt: skip
REFUSED = {**FAILED, "result": "refused", "error": {"exit": 7, "text": "v23 is incomplete", "hint": ""}}


def past(standin: StandIn, *operations: dict[str, object]) -> None:
    """The history is these, the newest one of each kind first."""

    def answer(asked: Asked) -> tuple[int, object]:
        found = [each for each in operations if each["kind"] == asked.query["kind"]]
        return 200, {"schema": 1, "history": found[:1], "next": None}

    standin.answers["GET /api/v1/history"] = answer


def recently(operation: dict[str, object], seconds: float = 5.0) -> dict[str, object]:
    finished = datetime.now(UTC) - timedelta(seconds=seconds)
    return {**operation, "finished": finished.isoformat().replace("+00:00", "Z")}


@pytest.mark.parametrize(("failed", "code"), [(FAILED, 5), (REFUSED, 7)], ids=["rolled back", "refused"])
def test_a_version_that_has_just_failed_is_not_waited_for(
    standin: StandIn, failed: dict[str, object], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    past(standin, recently(failed), {**OPERATION, "kind": "rollback", "id": 3, "to": "v21"})
    assert main(["wait", "--for", "version=v23", "--timeout", "1m"]) == code
    err = capsys.readouterr().err
    assert "v23 does not become live: operation 18 (switch cache_hub v22 → v23)" in err
    assert str(dict(failed["error"])["text"]) in err  # type: ignore[call-overload]


def test_a_version_that_fails_meanwhile_is_not_waited_for(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    standin.status = {**STATUS, "operations": [{**OPERATION, "id": 18}]}

    def fail() -> None:
        past(standin, FAILED)  # by the clock of that machine long ago
        standin.status = STATUS

    threading.Timer(0.3, fail).start()
    assert main(["wait", "--for", "version=v23", "--timeout", "1m"]) == 5


MODEL = STATUS["models"]["cache_hub"]


GIVEN_UP = {"code": "switch-failed", "text": "it is given up", "layer": "link", "object": "cache_hub", "hint": ""}


def test_a_declared_version_that_was_given_up_is_not_waited_for(standin: StandIn) -> None:
    """However long ago: mountd does not try it again by itself."""
    models = {"cache_hub": {**MODEL, "desired": "v23"}}
    standin.status = {**STATUS, "models": models, "reasons": [GIVEN_UP]}
    past(standin, FAILED)
    assert main(["wait", "--for", "version=v23", "--timeout", "1m"]) == 5


@pytest.mark.parametrize(
    ("change", "operations"),
    [
        ({}, [FAILED]),
        ({"reasons": [GIVEN_UP]}, [FAILED]),
        ({}, [recently({**FAILED, "to": "v24"})]),
        ({}, [recently(FAILED), {**OPERATION, "kind": "rollback", "id": 19, "to": "v21"}]),
        ({}, [recently({**FAILED, "result": "committed", "error": None})]),
        ({}, [{**FAILED, "finished": None, "result": None}]),
        ({"models": {"cache_hub": {**MODEL, "pending": "v23"}}}, [recently(FAILED)]),
        ({"operations": [{**OPERATION, "id": 20}]}, [recently(FAILED)]),
        ({"scheduled": [{"id": 20, "model": "cache_hub", "version": "v23"}]}, [recently(FAILED)]),
    ],
    ids=[
        "long ago",
        "another one is given up",
        "another version",
        "another since",
        "it was live",
        "runs",
        "tried again",
        "another runs",
        "planned",
    ],
)
def test_a_version_that_may_still_become_live_is_waited_for(
    standin: StandIn, change: dict[str, object], operations: list[dict[str, object]]
) -> None:
    standin.status = {**STATUS, **change}
    past(standin, *operations)
    assert main(["wait", "--for", "version=v23", "--timeout", "100ms"]) == 4


def test_wait_that_ran_out_says_why(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.status = {**STATUS, "ready": False}
    assert main(["wait", "--for", "ready", "--timeout", "0"]) == 4
    assert "cannot list 存储桶: refused" in capsys.readouterr().err
    standin.stop()
    assert main(["wait", "--for", "ready", "--timeout", "0"]) == 8


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["wait", "--for", "version=v23", "--model", "nope"], 3),
        (["wait", "--for", "later"], 2),
        (["wait", "--for", "version="], 2),
        (["wait", "--for", "version=latest", "--timeout", "0"], 2),
        (["wait", "--for", "ready=now", "--timeout", "0"], 2),
        (["wait", "--for", "ready", "--timeout", "soon"], 2),
        (["wait"], 2),
        (["switch"], 2),
        (["status", "-o", "yaml"], 2),
        (["status", "--nope", "-o", "json"], 2),
    ],
)
def test_wrong_usage(
    standin: StandIn, arguments: list[str], exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == exit_code
    captured = capsys.readouterr()
    assert captured.err
    assert ("json" in arguments) == bool(captured.out)


def test_wait_with_several_models_needs_one(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    model = STATUS["models"]["cache_hub"]
    standin.status = {**STATUS, "models": {"a": model, "b": model}}
    assert main(["wait", "--for", "version=v23"]) == 2
    assert "one of a, b" in capsys.readouterr().err


# logs, restart --------------------------------------------------------------------------------------------------------

LINE = {"name": "webui", "time": "2026-01-01T00:00:00Z", "text": "你好"}


def test_logs(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["GET /api/v1/logs"] = lambda _: (200, {"schema": 1, "logs": [LINE, LINE]})
    assert main(["logs", "webui", "--lines", "5"]) == 0
    assert capsys.readouterr().out == "2026-01-01T00:00:00Z webui: 你好\n" * 2
    assert standin.asked[0].query == {"name": "webui", "lines": "5"}


def test_which_lines_are_asked_for(standin: StandIn) -> None:
    standin.answers["GET /api/v1/logs"] = lambda _: (200, {"schema": 1, "logs": []})
    assert main(["logs", "storage", "--since", "1m30s", "--previous"]) == 0
    assert main(["logs", "-n", "0"]) == 0
    wanted = [{"name": "storage", "since": "90.0", "previous": "1"}, {"lines": "0"}]
    assert [asked.query for asked in standin.asked] == wanted
    assert main(["logs", "-n", "-1"]) == 2


def test_lines_as_json(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"schema": 1, "logs": [LINE]}
    standin.answers["GET /api/v1/logs"] = lambda _: (200, document)
    assert main(["logs", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_logs_follow(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["GET /api/v1/logs"] = lambda _: (200, [{"schema": 1, **LINE}] * 3)
    assert main(["logs", "--follow"]) == 0
    assert capsys.readouterr().out.count("你好") == 3
    assert main(["logs", "-f", "-o", "json"]) == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["webui"] * 3
    assert standin.asked[0].query == {"follow": "1"}


def restarted(standin: StandIn, **then: object) -> Answer:
    def answer(asked: Asked) -> tuple[int, object]:
        def change(**values: object) -> None:
            standin.status = {**STATUS, "apps": {"webui": {**STATUS["apps"]["webui"], **values}}}

        change(state="starting", pid=902)
        threading.Timer(0.5, change, kwargs={"pid": 902, **then}).start()
        return 202, {"schema": 1, "name": asked.body["name"]}

    return answer


def later(standin: StandIn, *statuses: dict[str, object], section: str = "apps", name: str = "webui") -> None:
    """After a restart was asked for, each look finds the next of these, and then for ever the last."""
    left = list(statuses)

    def look(_: Asked) -> tuple[int, object]:
        if not any(asked.what.startswith("POST") for asked in standin.asked):
            return 200, standin.status
        now = dict(left.pop(0) if len(left) > 1 else left[0])
        reasons = now.pop("reasons", standin.status["reasons"])
        return 200, {**standin.status, "reasons": reasons, section: {name: {**STATUS[section][name], **now}}}

    standin.answers["GET /api/v1/status"] = look
    standin.answers["POST /api/v1/restart"] = lambda asked: (202, {"schema": 1, "name": asked.body["name"]})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RESTART_POLL_S", 0.01)


def test_restart_returns_once_it_runs_again(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["POST /api/v1/restart"] = restarted(standin, state="running")
    assert main(["restart", "webui"]) == 0
    assert capsys.readouterr().out == "webui is running, pid 902\n"


@pytest.mark.usefixtures("at_once")
def test_the_process_that_ran_before_is_not_taken_for_the_new_one(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """It still runs for a moment."""
    changes: list[dict[str, object]] = [{"pid": 902}, {"restarts": 1}, {"since": "2026-01-01T00:00:09Z"}]
    for change in changes:
        standin.asked.clear()
        later(standin, {}, {}, change)
        assert main(["restart", "webui", "-o", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["schema"], document["name"]) == (1, "webui")
        assert change.items() <= document["status"].items()
        assert len(standin.asked) == 2 + 3
    standin.asked.clear()
    later(standin, {})
    assert main(["restart", "webui", "--timeout", "100ms"]) == 4, "the old one goes on"


@pytest.mark.usefixtures("at_once")
def test_a_mount_runs_again_once_it_is_ready(standin: StandIn) -> None:
    stages = ("mounted", "answering", "ready")
    later(standin, *({"pid": 9, "stage": stage} for stage in stages), section="mounts", name="storage")
    assert main(["restart", "storage"]) == 0
    assert [asked.body for asked in standin.asked if asked.body] == [{"name": "storage"}]
    assert len(standin.asked) == 2 + len(stages)


@pytest.mark.usefixtures("at_once")
def test_a_restart_that_fails_says_why_in_the_words_of_the_daemon(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = [
        {"code": "x", "text": "of another", "layer": "app", "object": "other", "hint": "no"},
        {"code": "app-backoff", "text": "webui exited with 1", "layer": "app", "object": "webui", "hint": "look"},
    ]
    later(standin, {"state": "backoff", "reasons": reasons})
    assert main(["restart", "webui"]) == 1
    assert capsys.readouterr().err == "mountd: cannot restart webui: webui exited with 1\n  hint: look\n"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("comes_back", "code"), [(True, 0), (False, 8)])
def test_a_restart_is_waited_for_through_a_restart_of_the_daemon(standin: StandIn, comes_back: bool, code: int) -> None:
    def come_back() -> None:
        standin.status = {**STATUS, "apps": {"webui": {**STATUS["apps"]["webui"], "pid": 902}}}
        standin.start()

    def go_away() -> None:
        standin.stop()
        if comes_back:
            back.start()

    back, away = threading.Timer(0.1, come_back), threading.Thread(target=go_away)

    def take(asked: Asked) -> tuple[int, object]:
        Path(standin.path).unlink()  # the next question reaches nobody
        away.start()
        return 202, {"schema": 1, "name": asked.body["name"]}

    standin.answers["POST /api/v1/restart"] = take
    assert main(["restart", "webui", "--timeout", "30s" if comes_back else "500ms"]) == code
    away.join()


@pytest.mark.parametrize("state", ["failed", "backoff"])
def test_restart_that_does_not_come_up(standin: StandIn, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["POST /api/v1/restart"] = restarted(standin, state=state)
    assert main(["restart", "webui"]) == 1
    assert "mountd logs webui" in capsys.readouterr().err


def test_restart_of_what_is_not_there(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart", "nope"]) == 3
    assert "one of webui, storage" in capsys.readouterr().err
