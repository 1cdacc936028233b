"""`history` and `events`, against a stand-in daemon: what is asked for, in pages, and from one daemon to the next."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mountd.cli import history
from mountd.cli.main import main
from tests.support.standin import Asked, StandIn, error

# history --------------------------------------------------------------------------------------------------------------


def operation(id_: int, **changes: object) -> dict[str, Any]:
    return {
        "id": id_,
        "kind": "switch",
        "model": "hub",
        "from": "v22",
        "to": "v23",
        "operator": "tina",
        "source": "cli",
        "reason": "",
        "step": "commit",
        "started": "2026-01-02T03:04:05.678Z",
        "finished": "2026-01-02T03:04:15.678Z",
        "result": "committed",
        "cause": "",
        "hint": "",
        "duration_s": 10.0,
        **changes,
    }


def keep(standin: StandIn, count: int) -> None:
    """It has operations with the ids from 1 to `count`."""

    def page(asked: Asked) -> tuple[int, object]:
        newest = int(asked.query.get("before", count + 1)) - 1
        ids = range(newest, max(0, newest - int(asked.query["limit"])), -1)
        more = ids[-1] if ids and ids[-1] > 1 else None
        return 200, {"schema": 1, "history": [operation(id_) for id_ in ids], "next": more}

    standin.answers["GET /api/v1/history"] = page


@pytest.mark.parametrize(
    ("count", "limit", "pages"),
    [
        (9, 5, [{"limit": "2"}, {"limit": "2", "before": "8"}, {"limit": "1", "before": "6"}]),
        (9, 2, [{"limit": "2"}]),
        (9, 1, [{"limit": "1"}]),
        (3, 9, [{"limit": "2"}, {"limit": "2", "before": "2"}]),
        (0, 9, [{"limit": "2"}]),
    ],
)
def test_a_long_history_is_asked_for_in_pages(
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    limit: int,
    pages: list[dict[str, str]],
) -> None:
    monkeypatch.setattr(history, "PAGE", 2)
    keep(standin, count)
    assert main(["history", "--limit", str(limit), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert [each["id"] for each in document["history"]] == list(range(count, max(0, count - limit), -1))
    assert [asked.query for asked in standin.asked] == pages


def test_the_history_of_what_is_asked_for(standin: StandIn) -> None:
    keep(standin, 9)
    words = ["--model", "hub", "--kind", "switch", "--result", "committed", "--before", "5"]
    assert main(["history", *words]) == 0
    wanted = {"limit": "20", "before": "5", "model": "hub", "kind": "switch", "result": "committed"}
    assert standin.asked[0].query == wanted
    assert main(["history", "--limit", "0"]) == 2
    assert main(["history", "x"]) == 2
    standin.answers["GET /api/v1/history/7"] = error(404, 3, "cannot find operation 7")
    assert main(["history", "7"]) == 3


def test_each_operation_on_its_line(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        operation(4, source="api", **{"from": None}),
        operation(3, kind="warm", result="done", reason="tonight", cause="it was slow"),
        operation(2, kind="drill", model="storage", to="kill", result="passed", duration_s=None),
        operation(1, result=None, finished=None, step="flip", duration_s=None, source="config", operator="mountd"),
    ]
    standin.answers["GET /api/v1/history"] = lambda _: (200, {"schema": 1, "history": rows, "next": None})
    assert main(["history"]) == 0
    when = "2026-01-02T03:04:05Z"
    assert [line.split("  ") for line in map(_squeezed, capsys.readouterr().out.splitlines()[1:])] == [
        ["4", when, "tina (api)", "switch hub nothing → v23", "committed", "10.0"],
        ["3", when, "tina", "warm hub v23", "done", "10.0", "tonight; it was slow"],
        ["2", when, "tina", "drill kill storage", "passed"],
        ["1", when, "mountd", "switch hub v22 → v23", "runs: flip"],
    ]


def _squeezed(line: str) -> str:
    """With two spaces between columns, however wide they are."""
    return "  ".join(part.strip() for part in line.split("  ") if part.strip())


# events ---------------------------------------------------------------------------------------------------------------


def event(id_: int, text: str = "webui is running", object_: str = "webui") -> dict[str, Any]:
    return {"id": id_, "time": "2026-01-02T03:04:05.678Z", "code": "running", "object": object_, "text": text}


def sent(*ids: int) -> bytes:
    """As server-sent events, after which the daemon ends the stream."""
    lines = (f"id: {id_}\ndata: {json.dumps(event(id_, f'event {id_}'))}\n\n" for id_ in ids)
    return ("retry: 1000\n\n" + "".join(lines) + ":\n\n").encode()


def test_events(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"schema": 1, "events": [event(1), event(2, "it started", "mountd")]}
    standin.answers["GET /api/v1/events"] = lambda _: (200, document)
    assert main(["events", "--object", "webui", "--code", "running", "--after", "0", "-n", "7"]) == 0
    time_ = "2026-01-02T03:04:05.678Z"
    assert capsys.readouterr().out == f"{time_} running: webui is running\n{time_} running: mountd: it started\n"
    assert main(["events", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert [asked.query for asked in standin.asked] == [
        {"object": "webui", "code": "running", "after": "0", "limit": "7"},
        {"limit": "50"},
    ]
    assert main(["events", "-n", "1001"]) == 2


def test_events_are_followed_from_one_daemon_to_the_next(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([(200, sent(7, 8)), (0, None), (0, None), (200, sent(9)), (0, None), (200, sent(10))])
    standin.answers["GET /api/v1/events"] = lambda _: next(answers)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    assert main(["events", "--follow", "--code", "running", "-o", "json"]) == 130
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == [7, 8, 9, 10]
    assert captured.err.count("retrying") == 2, "once each time that it is away"
    assert pauses == [history.RETRY_S] * 6
    first, *rest = (asked.query for asked in standin.asked)
    assert first == {"follow": "1", "limit": "50", "code": "running"}
    assert [query.pop("after") for query in rest] == ["8", "8", "8", "9", "9"]
    assert rest == [first] * 5


def test_without_a_daemon_there_is_nothing_to_follow(standin: StandIn) -> None:
    standin.stop()
    assert main(["events", "--follow"]) == 8
    standin.start()
    standin.answers["GET /api/v1/events"] = error(503, 1, "cannot read the journal")
    assert main(["events", "--follow"]) == 1
