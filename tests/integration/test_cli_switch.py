"""`switch` and `rollback`, against a stand-in daemon."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.cli.main import main
from tests.integration.test_cli_standin import COMMITTED, OPERATION, Answer, Asked, Daemon, accept, error


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "mountd.sock")
    monkeypatch.setenv("MOUNTD_SOCKET", made.path)
    made.start()
    yield made
    made.stop()


def test_switch_shows_each_step_and_the_end(daemon: Daemon, capsys) -> None:
    accept(daemon, {"step": "warm"}, {"step": "flip"}, COMMITTED)
    assert main(["switch", "v23", "--model", "cache_hub", "--reason", "更新"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "cache_hub is at v23 (12.3 s)\n"
    steps = [line.rpartition(": ")[2] for line in captured.err.splitlines()]
    assert steps == ["warm", "flip", "commit"]
    assert daemon.asked[0].body == {"version": "v23", "model": "cache_hub", "reason": "更新"}
    assert daemon.asked[1].query == {"wait": "20.0", "step": "warm"}


def test_switch_as_json_ends_with_the_operation(daemon: Daemon, capsys) -> None:
    accept(daemon, COMMITTED)
    assert main(["switch", "v23", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**OPERATION, **COMMITTED}


def test_switch_to_the_live_version(daemon: Daemon, capsys) -> None:
    answer = {"schema": 1, "operation": None, "unchanged": True, "timeout_s": 0.0}
    daemon.answers["POST /api/v1/switch"] = lambda _: (200, answer)
    assert main(["switch", "v22"]) == 0
    assert "v22 is live already" in capsys.readouterr().out


@pytest.mark.parametrize(("exit_code", "result"), [(1, "failed"), (5, "rolled-back"), (7, "refused")])
def test_switch_that_does_not_commit(daemon: Daemon, exit_code: int, result: str, capsys) -> None:
    failure = {"exit": exit_code, "text": "cannot switch cache_hub to v23: it crashed", "hint": "look at `mountd logs`"}
    accept(daemon, {**COMMITTED, "result": result, "error": failure})
    assert main(["switch", "v23"]) == exit_code
    assert "mountd: cannot switch cache_hub to v23: it crashed\n  hint: look" in capsys.readouterr().err
    assert main(["switch", "v23", "-o", "json"]) == exit_code
    assert json.loads(capsys.readouterr().out)["result"] == result


@pytest.mark.parametrize(("status", "exit_code"), [(400, 2), (404, 3), (409, 6), (422, 7), (503, 1)])
def test_switch_that_is_not_taken(daemon: Daemon, status: int, exit_code: int, capsys) -> None:
    daemon.answers["POST /api/v1/switch"] = error(status, exit_code, "cannot switch: no", "try x", "alice, v24, 3 s")
    assert main(["switch", "v23", "-o", "json"]) == exit_code
    captured = capsys.readouterr()
    holder = "alice, v24, 3 s" if exit_code == 6 else ""
    wanted = {"exit": exit_code, "text": "cannot switch: no", "hint": "try x", "holder": holder}
    assert json.loads(captured.out) == {"schema": 1, "error": wanted}
    assert captured.err == "mountd: cannot switch: no\n  hint: try x\n"


def test_switch_that_outlasts_the_timeout_names_the_operation(daemon: Daemon, capsys) -> None:
    accept(daemon, {"step": "warm"})
    assert main(["switch", "v23", "--timeout", "200ms"]) == 4
    assert "operation 17 (switch cache_hub v22 → v23) goes on" in capsys.readouterr().err


def test_switch_uses_the_timeout_that_the_daemon_names(daemon: Daemon, capsys) -> None:
    accept(daemon, {"step": "warm"}, timeout_s=0.2)
    assert main(["switch", "v23", "-o", "json"]) == 4
    assert json.loads(capsys.readouterr().out)["id"] == 17


def test_switch_goes_on_when_the_daemon_restarts_meanwhile(daemon: Daemon, capsys) -> None:
    accept(daemon, COMMITTED)
    daemon.answers["GET /api/v1/operations/17"], committed = leave(daemon), daemon.answers["GET /api/v1/operations/17"]
    timer = threading.Timer(0.5, come_back, [daemon, committed])
    timer.start()
    assert main(["switch", "v23"]) == 0
    timer.join()


def leave(daemon: Daemon) -> Answer:
    def answer(_: Asked) -> tuple[int, object]:
        threading.Thread(target=daemon.stop).start()
        return 0, None

    return answer


def come_back(daemon: Daemon, answer: Answer) -> None:
    daemon.answers["GET /api/v1/operations/17"] = answer
    daemon.start()


def test_switch_whose_daemon_stays_away(daemon: Daemon, capsys) -> None:
    accept(daemon, COMMITTED)
    daemon.answers["GET /api/v1/operations/17"] = leave(daemon)
    assert main(["switch", "v23", "--timeout", "1s"]) == 8


def test_interrupted_switch_says_that_it_goes_on(daemon: Daemon, monkeypatch, capsys) -> None:
    accept(daemon, COMMITTED)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mountd.cli.follow.Progress.show", interrupt)
    assert main(["switch", "v23"]) == 130
    assert "operation 17 (switch cache_hub v22 → v23) goes on" in capsys.readouterr().err


def test_progress_on_a_terminal_is_one_line(daemon: Daemon, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError

    accept(daemon, {"step": "warm"}, COMMITTED)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["switch", "v23"]) == 0
    assert "\n" not in terminal.getvalue()
    assert "━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 %  about 3 s left" in terminal.getvalue()


def test_rollback(daemon: Daemon, capsys) -> None:
    accept(daemon, {**COMMITTED, "kind": "rollback", "from": "v23", "to": "v22"}, path="/api/v1/rollback")
    assert main(["rollback"]) == 0
    assert capsys.readouterr().out.startswith("cache_hub is at v22")
    assert daemon.asked[0].body == {}
