"""`mountd drill`, against a stand-in daemon: what it says, when it asks, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from mountd.cli.drill import show_measured
from mountd.cli.main import main
from tests.support.standin import Asked, StandIn, error

PLAN: dict[str, Any] = {
    "kind": "offline",
    "mount": "storage",
    "for_s": 30,
    "text": ["For 30s mount storage cannot reach its bucket."],
}
OPERATION = {
    "schema": 1,
    "id": 17,
    "kind": "drill",
    "model": "storage",
    "from": None,
    "to": "offline",
    "step": "detour",
}
MEASURED = {
    "id": 17,
    "kind": "offline",
    "mount": "storage",
    "for_s": 30.0,
    "detected_s": 3.4,
    "serving_again_s": 1.25,
    "ready_again_s": 1.25,
    "limits": {"detected_s": 26.0, "serving_again_s": 5.0, "ready_again_s": 5.0},
    "app_restarted": False,
    "rclone_restarted": False,
    "cached_reads": True,
    "shortfalls": [],
    "passed": True,
}
FINISHED = {"step": "restore", "finished": "2026-01-01T00:00:40.000Z", "result": "passed", "error": None}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def standin(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return standin


def accept(standin: StandIn, **ended: Any) -> None:
    """It takes a drill, which ends as `ended` says."""

    def begin(asked: Asked) -> tuple[int, object]:
        dry = asked.body.get("dry_run", False)
        return (200 if dry else 202), {
            "schema": 1,
            "plan": PLAN,
            "operation": None if dry else OPERATION,
            "timeout_s": 60.0,
        }

    standin.answers["POST /api/v1/drill"] = begin
    standin.answers["GET /api/v1/operations/17"] = lambda _: (
        200,
        {**OPERATION, **FINISHED, "drill": MEASURED, **ended},
    )


def posted(standin: StandIn) -> list[Any]:
    return [asked.body for asked in standin.asked if asked.what == "POST /api/v1/drill"]


def test_a_table_of_what_was_measured(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin)
    assert main(["drill", "offline", "--for", "30s", "--mount", "storage", "--reason", "每月", "--yes"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(PLAN["text"][0])
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "detected 3.40 s 26 s ok" in lines
    assert "serving again after its end 1.25 s 5 s ok" in lines
    assert "app restarted no ok" in lines
    assert "cached reads yes ok" in lines
    assert lines[-1] == "drill offline of storage: passed"
    assert posted(standin) == [{"kind": "offline", "mount": "storage", "for": "30s", "reason": "每月"}]


@pytest.mark.parametrize(
    ("measured", "line"),
    [
        ({"detected_s": 26.0}, "detected 26.00 s 26 s ok"),
        ({"detected_s": 26.01}, "detected 26.01 s 26 s fail"),
        ({"detected_s": None}, "detected never 26 s fail"),
        ({"ready_again_s": 5.5}, "ready again after its end 5.50 s 5 s fail"),
        ({"kind": "kill"}, "ready again 1.25 s 5 s ok"),
        ({"kind": "slow", "app_restarted": True}, "app restarted yes fail"),
        ({"rclone_restarted": True}, "rclone restarted yes fail"),
        ({"kind": "kill", "rclone_restarted": True}, "rclone restarted yes"),
        ({"kind": "hang", "app_restarted": False}, "app restarted no"),
        ({"cached_reads": False}, "cached reads no fail"),
        ({"passed": False}, "drill offline of storage: not passed"),
    ],
    ids=str,
)
def test_each_measure_is_judged(measured: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_measured({**MEASURED, **measured})
    assert line in [" ".join(row.split()) for row in capsys.readouterr().out.splitlines()]


def test_cached_reads_that_were_not_tried_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_measured({**MEASURED, "cached_reads": None})
    assert "cached" not in capsys.readouterr().out


def test_json(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin)
    assert main(["drill", "offline", "--yes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "drill": MEASURED}


@pytest.mark.parametrize("form", ["table", "json"])
def test_not_passed(standin: StandIn, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"exit": 1, "text": "the drill offline of storage has not passed: not detected", "hint": "look"}
    measured = {**MEASURED, "detected_s": None, "passed": False}
    accept(standin, result="failed", drill=measured, error=failure)
    assert main(["drill", "offline", "--yes", "-o", form]) == 1
    captured = capsys.readouterr()
    assert "has not passed: not detected\n  hint: look" in captured.err
    if form == "json":
        assert json.loads(captured.out)["drill"]["passed"] is False
    else:
        assert "never" in captured.out
        assert "not passed" in captured.out


def test_interrupted_before_anything_was_measured(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"exit": 1, "text": "mountd was stopped", "hint": ""}
    accept(standin, result="interrupted", drill=None, error=failure)
    assert main(["drill", "offline", "--yes", "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert "mountd was stopped" in captured.err
    assert json.loads(captured.out)["error"]["text"] == "mountd was stopped"


def test_off_a_terminal_nothing_is_asked_and_nothing_done(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin)
    assert main(["drill", "kill"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert posted(standin) == []


@pytest.mark.parametrize(("answer", "code", "posts"), [("y\n", 0, 2), ("n\n", 1, 1), ("\n", 1, 1), ("", 130, 1)])
def test_on_a_terminal_it_says_what_will_happen_and_asks(
    standin: StandIn,
    answer: str,
    code: int,
    posts: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    accept(standin)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["drill", "offline"]) == code
    captured = capsys.readouterr()
    assert PLAN["text"][0] in captured.err
    assert captured.err.count(PLAN["text"][0]) == 1
    sent = posted(standin)
    assert len(sent) == posts
    assert sent[0] == {"kind": "offline", "dry_run": True}


def test_no_wait(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin)
    assert main(["drill", "offline", "--yes", "--no-wait"]) == 0
    reported = capsys.readouterr()
    assert (reported.out, "operation 17 has begun" in reported.err) == ("17\n", True)
    assert main(["drill", "offline", "--yes", "--no-wait", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == OPERATION
    assert not [asked for asked in standin.asked if asked.what.startswith("GET")]


def test_interrupted_by_the_user_it_says_that_the_fault_ends_by_itself(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(standin)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mountd.cli.follow.ProgressLine.show", interrupt)
    assert main(["drill", "offline", "--yes"]) == 130
    assert "operation 17 (drill offline of storage)" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(400, 2), (404, 3), (409, 6), (422, 7)])
def test_not_taken(standin: StandIn, status: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["POST /api/v1/drill"] = error(status, code, "cannot drill: no", "try x")
    assert main(["drill", "offline", "--yes"]) == code
    assert capsys.readouterr().err == "mountd: cannot drill: no\n  hint: try x\n"
