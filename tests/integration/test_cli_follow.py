"""Commands that wait for an operation, against a stand-in daemon: how long, what they show, and `warm`."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from mountd.cli import follow, progress
from mountd.cli.main import main
from mountd.client import api
from tests.integration.test_cli_switch import leave
from tests.support.standin import COMMITTED, OPERATION, Asked, StandIn, accept, error


def test_a_switch_is_waited_for_only_so_long_without_its_daemon(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RETRY_S", 0.05)
    monkeypatch.setattr(follow, "AWAY_S", 0.2)
    accept(standin, COMMITTED)
    standin.answers["GET /api/v1/operations/17"] = leave(standin)
    began = time.monotonic()
    assert main(["switch", "v23", "--timeout", "60s"]) == 8
    assert 0.2 < time.monotonic() - began < 30


def test_a_daemon_that_came_back_is_away_no_more(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a second time that it is away only that time counts."""
    now = 0.0
    monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None))
    gone: tuple[int, object] = (0, None)
    answers = iter([gone, *((200, {**OPERATION, "step": f"s{number}"}) for number in range(4)), gone])

    def poll(_: Asked) -> tuple[int, object]:
        nonlocal now
        now += follow.AWAY_S / 3
        return next(answers, (200, {**OPERATION, **COMMITTED}))

    accept(standin, {}, timeout_s=3600)
    standin.answers["GET /api/v1/operations/17"] = poll
    assert main(["switch", "v23"]) == 0


def test_an_answer_may_come_a_little_after_the_time_it_was_to_wait(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LONG_POLL_S", 0.1)

    def late(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, {**OPERATION, **COMMITTED}

    accept(standin)
    standin.answers["GET /api/v1/operations/17"] = late
    assert main(["switch", "v23"]) == 0
    assert [asked.query.get("wait") for asked in standin.asked] == [None, "0.1"]


def test_a_dry_run_is_waited_for_like_a_look_at_the_bucket(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, {"schema": 1, "dry_run": True, "plan": {"text": []}}

    standin.answers["POST /api/v1/switch"] = slowly
    monkeypatch.setattr(api, "POST_TIMEOUT_S", 0.1)
    assert main(["switch", "v23", "--dry-run"]) == 0
    assert main(["switch", "v23", "--dry-run", "--timeout", "100ms"]) == 8


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"percent": None, "eta_s": None}, "warm"),
        ({"percent": 0, "eta_s": None}, "warm"),
        ({"percent": 40, "eta_s": None, "bytes_per_s": 87_600_000}, "warm 40 %  88 MB/s"),
        ({"percent": None, "eta_s": 0.4}, "warm, about 0 s left"),
        ({"percent": None, "eta_s": None, "waits_for": "webui", "step_s": 1.9, "limit_s": 9.0}, "warm"),
        ({"percent": None, "eta_s": None, "waits_for": "webui", "step_s": 2.0}, "warm  webui, 2 s"),
        ({"percent": None, "eta_s": None, "waits_for": None, "step_s": 5.0, "limit_s": 9.0}, "warm"),
    ],
)
def test_a_line_of_progress(now: dict[str, object], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    line_of_progress = progress.ProgressLine()
    for _ in range(2):
        line_of_progress.show({**OPERATION, **now})
    line_of_progress.end()
    assert capsys.readouterr().err == f"switch cache_hub v22 → v23: {line}\n", "once"


# warm -----------------------------------------------------------------------------------------------------------------

WARM = {"kind": "warm", "step": "warm"}


def test_warm_waits_until_it_is_done(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    done = {**COMMITTED, **WARM, "percent": None, "eta_s": None, "result": "done"}
    accept(standin, WARM, done, path="/api/v1/warm", operation={**OPERATION, **WARM})
    assert main(["warm", "v23", "--level", "data", "--model", "cache_hub", "--reason", "更新"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "warm cache_hub v23 done (12.3 s)\n"
    assert captured.err.splitlines()[-1].startswith("warm cache_hub v23: warm")
    assert standin.asked[0].body == {"version": "v23", "model": "cache_hub", "level": "data", "reason": "更新"}
    assert main(["warm", "v23", "--no-wait"]) == 0
    assert standin.asked[-1].body == {"version": "v23"}
    captured = capsys.readouterr()
    assert captured.out == "17\n"
    assert "`mountd cancel`" not in captured.err, "nothing is to be undone"


def test_warm_that_ends_badly(standin: StandIn) -> None:
    accept(standin, WARM, path="/api/v1/warm")
    assert main(["warm", "v23", "--timeout", "100ms"]) == 4
    failure = {"exit": 7, "text": "cannot warm: a wrong digest", "hint": ""}
    accept(standin, {**COMMITTED, **WARM, "result": "refused", "error": failure}, path="/api/v1/warm")
    assert main(["warm", "v23"]) == 7
    assert main(["warm", "v23", "--level", "all"]) == 2
    standin.answers["POST /api/v1/warm"] = error(409, 6, "cannot warm: busy")
    assert main(["warm", "v23"]) == 6
