"""What a shell offers behind each command, from a stand-in daemon; a Tab never fails, nor waits for long."""

from __future__ import annotations

import time

import pytest
from click.shell_completion import BashComplete

from mountd.cli import completion
from mountd.cli.main import cli
from mountd.cli.options import Options
from tests.support.standin import STATUS, Asked, StandIn, error


@pytest.fixture
def standin(standin: StandIn) -> StandIn:
    """With three versions, two models, an operation that runs, one that waits, and two that were committed."""
    versions = [{"version": version} for version in ("v22", "v23", "w1")]
    standin.answers["GET /api/v1/versions"] = lambda _: (200, {"schema": 1, "versions": versions})
    model = STATUS["models"]["cache_hub"]
    standin.status = {**STATUS, "models": {"cache_hub": model, "voices": model}}
    standin.status |= {"operations": [{"id": 17}], "scheduled": [{"id": 18}]}
    committed = [{"id": 12}, {"id": 7}]
    standin.answers["GET /api/v1/history"] = lambda asked: (
        200,
        {"schema": 1, "history": committed if asked.query == {"result": "committed"} else []},
    )
    return standin


def offered(*words: str, incomplete: str = "") -> list[str]:
    shell = BashComplete(cli, {"obj": Options()}, "mountd", "_MOUNTD_COMPLETE")
    return [item.value for item in shell.get_completions([*words], incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "names"),
    [
        (["switch"], "", ["v22", "v23", "w1"]),
        (["switch"], "v", ["v22", "v23"]),
        (["warm"], "w", ["w1"]),
        (["profile"], "v23", ["v23"]),
        (["switch", "--model"], "", ["cache_hub", "voices"]),
        (["versions", "--model"], "v", ["voices"]),
        (["restart"], "", ["storage", "webui"]),
        (["logs"], "w", ["webui"]),
        (["drill", "kill", "--mount"], "", ["storage"]),
        (["drill"], "o", ["offline"]),
        (["stop"], "", ["webui"]),
        (["start"], "w", ["webui"]),
        (["signal"], "", ["webui"]),
        (["signal", "webui"], "U", ["USR1", "USR2"]),
        (["signal", "webui"], "sigh", ["HUP"]),
        (["rollback", "--to"], "", ["12", "7"]),
        (["rollback", "--to"], "1", ["12"]),
        (["cancel"], "", ["17", "18"]),
    ],
    ids=str,
)
def test_names_of_what_there_is(standin: StandIn, words: list[str], incomplete: str, names: list[str]) -> None:
    assert offered(*words, incomplete=incomplete) == names


def test_the_daemon_that_the_line_names_is_asked(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_SOCKET", "/nonexistent/mountd.sock")
    assert offered("--socket", standin.path, "restart") == ["storage", "webui"]


def test_without_an_answer_nothing_is_offered(standin: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    standin.answers["GET /api/v1/status"] = lambda _: (200, {"schema": 1})
    assert offered("restart") == []
    standin.answers["GET /api/v1/status"] = error(500, 20, "it is broken")
    assert offered("restart") == []
    standin.stop()
    assert offered("restart") == offered("switch") == offered("switch", "--model") == []
    assert "".join(capfd.readouterr()) == ""


def test_a_slow_answer_is_not_waited_for(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, STATUS

    assert completion.ASK_TIMEOUT_S <= 2.0
    monkeypatch.setattr(completion, "ASK_TIMEOUT_S", 0.05)
    standin.answers["GET /api/v1/status"] = slowly
    assert offered("restart") == []
