"""`switch`, `rollback`, `cancel`, `pause`, `resume` and waiting for an operation, against a stand-in daemon."""

import io
import json
import sys
import threading
from collections.abc import Callable

import pytest

from mountd.cli.main import main
from mountd.cli.terminal import ERASED
from tests.support.standin import COMMITTED, OPERATION, Answer, Asked, StandIn, accept, error

DONE = {**COMMITTED, "percent": None, "eta_s": None}
PICK_UP = ("operation 17 (switch cache_hub v22 → v23)", "`mountd wait --for operation=17`", "`mountd cancel`")


def test_switch_shows_each_step_and_the_end(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    flip = {"step": "flip", "percent": None, "eta_s": None}
    accept(standin, {"step": "warm"}, {"step": "warm", "percent": 80, "eta_s": 1.2}, flip, flip, DONE)
    assert main(["switch", "v23", "--model", "cache_hub", "--reason", "更新"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "cache_hub is at v23 (12.3 s)\n"
    steps = [line.rpartition(": ")[2] for line in captured.err.splitlines()]
    assert steps == ["warm 40 %, about 3 s left", "warm 80 %, about 1 s left", "flip", "commit"]
    assert standin.asked[0].body == {"version": "v23", "model": "cache_hub", "reason": "更新"}
    assert standin.asked[1].query == {"wait": "20.0", "step": "warm"}


def test_switch_as_json_ends_with_the_operation(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, COMMITTED)
    assert main(["switch", "v23", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**OPERATION, **COMMITTED}


def test_switch_to_the_live_version(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"schema": 1, "operation": None, "unchanged": True, "timeout_s": 0.0}
    standin.answers["POST /api/v1/switch"] = lambda _: (200, answer)
    assert main(["switch", "v22"]) == 0
    assert "v22" in capsys.readouterr().out
    assert main(["switch", "v22", "--no-wait"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, "v22" in captured.err) == ("", True)


@pytest.mark.parametrize("words", [["switch", "v23"], ["rollback"]], ids=" ".join)
def test_a_dry_run_prints_the_plan(standin: StandIn, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    plan = {"model": "cache_hub", "steps": [], "text": ["switch cache_hub v22 → v23", "  verify  …"]}
    answer = {"schema": 1, "dry_run": True, "plan": plan}
    standin.answers[f"POST /api/v1/{words[0]}"] = lambda _: (200, answer)
    assert main([*words, "--dry-run", "--force", "--digests"]) == 0
    assert capsys.readouterr().out == "switch cache_hub v22 → v23\n  verify  …\n"
    version = {"version": "v23"} if words[0] == "switch" else {}
    assert standin.asked[0].body == {**version, "dry_run": True, "force": True, "digests": True}
    assert main([*words, "--dry-run", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert len(standin.asked) == 2, "it waits for nothing"


def test_no_wait_prints_the_id_and_how_to_pick_it_up(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, {"step": "warm"})
    assert main(["switch", "v23", "--no-wait"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "17\n"
    assert "`mountd wait --for operation=17`" in captured.err
    assert "`mountd cancel`" in captured.err
    assert main(["switch", "v23", "--no-wait", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == OPERATION


@pytest.mark.parametrize(("exit_code", "result"), [(1, "failed"), (5, "rolled-back"), (7, "refused")])
def test_switch_that_does_not_commit(
    standin: StandIn, exit_code: int, result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = {"exit": exit_code, "text": "cannot switch cache_hub to v23: it crashed", "hint": "look at `mountd logs`"}
    accept(standin, {**COMMITTED, "result": result, "error": failure})
    assert main(["switch", "v23"]) == exit_code
    assert "mountd: cannot switch cache_hub to v23: it crashed\n  hint: look" in capsys.readouterr().err
    assert main(["switch", "v23", "-o", "json"]) == exit_code
    assert json.loads(capsys.readouterr().out)["result"] == result


@pytest.mark.parametrize(("status", "exit_code"), [(400, 2), (404, 3), (409, 6), (422, 7), (503, 1)])
def test_switch_that_is_not_taken(
    standin: StandIn, status: int, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.answers["POST /api/v1/switch"] = error(status, exit_code, "cannot switch: no", "try x", "alice, v24, 3 s")
    assert main(["switch", "v23", "-o", "json"]) == exit_code
    captured = capsys.readouterr()
    holder = "alice, v24, 3 s" if exit_code == 6 else ""
    wanted = {"exit": exit_code, "text": "cannot switch: no", "hint": "try x", "holder": holder}
    assert json.loads(captured.out) == {"schema": 1, "error": wanted}
    assert captured.err == "mountd: cannot switch: no\n  hint: try x\n"


def test_switch_that_outlasts_the_timeout_names_the_operation(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(standin, {"step": "warm"})
    assert main(["switch", "v23", "--timeout", "200ms"]) == 4
    err = capsys.readouterr().err
    assert all(words in err for words in (*PICK_UP, "step warm")), err


def test_a_daemon_that_answers_at_once_with_nothing_new_is_not_asked_all_the_time(standin: StandIn) -> None:
    accept(standin, {"step": "warm"})
    assert main(["switch", "v23", "--timeout", "1200ms"]) == 4
    assert len(standin.asked) <= 4


def test_switch_uses_the_timeout_that_the_daemon_names(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, {"step": "warm"}, timeout_s=0.2)
    assert main(["switch", "v23", "-o", "json"]) == 4
    assert json.loads(capsys.readouterr().out)["id"] == 17


def test_switch_goes_on_when_the_daemon_restarts_meanwhile(standin: StandIn) -> None:
    accept(standin, COMMITTED)
    committed = standin.answers["GET /api/v1/operations/17"]

    def come_back() -> None:
        standin.answers["GET /api/v1/operations/17"] = committed
        standin.start()

    timer = threading.Timer(0.5, come_back)
    standin.answers["GET /api/v1/operations/17"] = leave(standin, timer.start)
    assert main(["switch", "v23"]) == 0
    timer.join()


def leave(standin: StandIn, then: Callable[[], None] = lambda: None) -> Answer:
    leaving: list[threading.Thread] = []

    def end() -> None:
        standin.stop()
        then()

    def answer(_: Asked) -> tuple[int, object]:
        if not leaving:  # it may be asked again before it is gone
            leaving.append(threading.Thread(target=end))
            leaving[0].start()
        return 0, None

    return answer


def test_switch_whose_daemon_stays_away(standin: StandIn) -> None:
    accept(standin, COMMITTED)
    standin.answers["GET /api/v1/operations/17"] = leave(standin)
    assert main(["switch", "v23", "--timeout", "1s"]) == 8


def test_interrupted_switch_says_that_it_goes_on(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(standin, COMMITTED)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mountd.cli.follow.ProgressLine.show", interrupt)
    assert main(["switch", "v23"]) == 130
    err = capsys.readouterr().err
    assert all(words in err for words in PICK_UP), err


def test_progress_on_a_terminal_is_one_line(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError

    accept(standin, {"step": "warm"}, COMMITTED)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["switch", "v23"]) == 0
    assert "\n" not in terminal.getvalue()
    assert "━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 %  about 3 s left" in terminal.getvalue()
    assert terminal.getvalue().endswith(ERASED), "the line is free for what comes next"
    assert standin.asked[1].query["wait"] == "1.0"


def test_progress_says_what_it_waits_for_and_who_had_to_be_killed(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = "webui was killed: it ignored SIGINT for 30 s (apps.webui.stop)"
    slow = {"step_s": 12.4, "limit_s": 930.0, "waits_for": "webui", "said": "loading\x1b[2J 40 %", "killed": [killed]}
    accept(standin, {"step": "ready", "percent": None, "eta_s": None, **slow}, COMMITTED)
    assert main(["switch", "v23"]) == 0
    err = capsys.readouterr().err
    assert err.count(killed) == 1
    assert "ready  webui, 12 of at most 930 s: loading" in err
    assert "\x1b" not in err


def test_the_first_switch_comes_from_nothing(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    cancelled(standin, result="cancelled", **{"from": None})
    assert main(["cancel"]) == 0
    assert capsys.readouterr().out.endswith(" was undone: cache_hub is at nothing\n")


def test_rollback(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, {**COMMITTED, "kind": "rollback", "from": "v23", "to": "v22"}, path="/api/v1/rollback")
    assert main(["rollback"]) == 0
    assert capsys.readouterr().out.startswith("cache_hub is at v22")
    assert standin.asked[0].body == {}


# cancel ---------------------------------------------------------------------------------------------------------------


def cancelled(standin: StandIn, **end: object) -> None:
    accept(standin, {"step": "flip-back"}, {**DONE, **end}, path="/api/v1/cancel")


@pytest.mark.parametrize("result", ["cancelled", "rolled-back"])
def test_cancel_is_done_once_it_is_undone(standin: StandIn, result: str, capsys: pytest.CaptureFixture[str]) -> None:
    cancelled(standin, result=result, error={"exit": 5, "text": "cancelled by root", "hint": ""})
    assert main(["cancel", "--model", "cache_hub"]) == 0
    wanted = "operation 17 (switch cache_hub v22 → v23) was undone: cache_hub is at v22\n"
    assert capsys.readouterr().out == wanted
    assert standin.asked[0].body == {"model": "cache_hub"}
    cancelled(standin, result=result)
    assert main(["cancel", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == result
    assert main(["cancel", "--no-wait"]) == 0
    assert capsys.readouterr().out == "17\n"


def test_cancel_that_came_too_late_or_fails(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the daemon or the command was the first to see it, the answer is the same."""
    cancelled(standin)
    assert main(["cancel"]) == 7
    err = capsys.readouterr().err
    assert "cannot cancel operation 17 (switch cache_hub v22 → v23): " in err
    assert "mountd rollback" in err
    cancelled(standin, result="failed", error={"exit": 1, "text": "v22 is gone, too", "hint": "look"})
    assert main(["cancel"]) == 1
    assert "mountd: v22 is gone, too\n  hint: look" in capsys.readouterr().err
    for status, exit_code in ((404, 3), (409, 6), (422, 7)):
        standin.answers["POST /api/v1/cancel"] = error(status, exit_code, "cannot cancel: no")
        assert main(["cancel"]) == exit_code


# wait for an operation ------------------------------------------------------------------------------------------------


def test_wait_picks_an_operation_up(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, {"step": "warm"}, DONE)
    standin.stop()
    timer = threading.Timer(0.3, standin.start)
    timer.start()
    assert main(["wait", "--for", "operation=17"]) == 0
    timer.join()
    captured = capsys.readouterr()
    assert captured.out == "cache_hub is at v23 (12.3 s)\n"
    assert captured.err.splitlines()[-1].endswith(": commit")


@pytest.mark.parametrize(("exit_code", "result"), [(1, "failed"), (5, "rolled-back"), (7, "refused")])
def test_wait_exits_as_the_operation_did(
    standin: StandIn, exit_code: int, result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(standin, {**DONE, "result": result, "error": {"exit": exit_code, "text": "cannot switch: no", "hint": ""}})
    assert main(["wait", "--for", "operation=17", "-o", "json"]) == exit_code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["result"] == result
    assert captured.err.endswith("mountd: cannot switch: no\n")


def test_wait_for_other_operations(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    accept(standin, {"step": "warm"})
    assert main(["wait", "--for", "operation=17", "--timeout", "200ms"]) == 4
    assert "hint: `mountd wait --for operation=17`" in capsys.readouterr().err
    drill = {"kind": "drill", "model": "storage", "to": "kill", "result": "passed"}
    accept(standin, {**DONE, **drill})
    assert main(["wait", "--for", "operation=17"]) == 0
    assert capsys.readouterr().out == "drill kill of storage passed (12.3 s)\n"
    standin.answers["GET /api/v1/operations/18"] = error(404, 3, "cannot find operation 18")
    assert main(["wait", "--for", "operation=18"]) == 3
    standin.stop()
    assert main(["wait", "--for", "operation=17", "--timeout", "0"]) == 8
    for wrong in ("operation=", "operation=x", "operation=-1"):
        assert main(["wait", "--for", wrong]) == 2


# pause and resume -----------------------------------------------------------------------------------------------------


def test_pause_and_resume(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    paused = {"model": "cache_hub", "suspended": "root: 维护", "changed": True}
    going_on = {"model": "other", "suspended": None, "changed": False}
    standin.answers["POST /api/v1/pause"] = lambda _: (200, {"schema": 1, "models": [paused]})
    standin.answers["POST /api/v1/resume"] = lambda _: (200, {"schema": 1, "models": [going_on]})
    assert main(["pause", "--reason", "维护"]) == 0
    assert main(["resume", "--model", "other"]) == 0
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines()] == ["cache_hub", "other"]
    assert "root: 维护" in out
    assert [asked.body for asked in standin.asked] == [{"reason": "维护"}, {"model": "other"}]
    assert main(["pause", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == [paused]
