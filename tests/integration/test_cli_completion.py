"""What a shell offers behind each command, from a stand-in daemon; a Tab never fails, nor waits for long."""

from __future__ import annotations

import time

import pytest
from click.shell_completion import BashComplete

from mountd.cli import completion
from mountd.cli.main import cli
from mountd.cli.options import Options
from tests.support.standin import STATUS, Asked, StandIn, error

PRODUCT_S = completion.ASK_TIMEOUT_S


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine has longer to answer than a user waits."""
    for name in ("ASK_TIMEOUT_S", "LISTED_S"):
        monkeypatch.setattr(completion, name, 30.0)
    defaults = completion._Asked.get.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "limit_s", 30.0)


@pytest.fixture
def standin(standin: StandIn) -> StandIn:
    """With three versions, two models, an operation that runs, one that waits, and two that were committed."""
    versions = [{"version": version} for version in ("v22", "v23", "w1")]
    standin.answers["GET /api/v1/versions"] = lambda _: (200, {"schema": 1, "versions": versions})
    model = STATUS["models"]["cache_hub"]
    standin.status = {**STATUS, "models": {"cache_hub": model, "voices": model}}
    standin.status |= {"operations": [{"id": 17}], "scheduled": [{"id": 18}]}
    past = [{"id": 13, "kind": "drill", "to": "kill"}, {"id": 12, "kind": "switch", "to": "v21"}]

    def history(asked: Asked) -> tuple[int, object]:
        wanted = [{"id": 12}, {"id": 7}] if asked.query == {"result": "committed"} else past
        return 200, {"schema": 1, "history": wanted}

    standin.answers["GET /api/v1/history"] = history
    events = [{"code": code} for code in ("app-ready", "app-exited", "app-ready")]
    standin.answers["GET /api/v1/events"] = lambda _: (200, {"schema": 1, "events": events})
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
        (["history"], "", ["13", "12"]),
        (["history", "--before"], "13", ["13"]),
        (["history", "--kind"], "s", ["switch", "schedule"]),
        (["history", "--result"], "ro", ["rolled-back"]),
        (["events", "--code"], "", ["app-exited", "app-ready"]),
        (["events", "--object"], "", ["compshare", "storage", "cache_hub", "voices", "webui", "mountd"]),
        (["wait", "--for"], "", ["ready", "version=", "operation="]),
        (["wait", "--for"], "version=v2", ["version=v22", "version=v23"]),
        (["wait", "--for"], "operation=", ["operation=17", "operation=18"]),
        (["wait", "--for"], "operation=13", ["operation=13"]),
        (["wait", "--for"], "other=", []),
        (["warm", "v23", "--level"], "", ["metadata", "data", "pin"]),
        (["publish", ".", "v9", "--model"], "c", ["cache_hub"]),
        ([], "dr", ["drill"]),
        ([], "--so", ["--socket"]),
        (["config"], "", ["check", "render", "schema", "show"]),
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


def test_without_a_list_of_the_bucket_the_versions_that_are_known_are_offered(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.status["models"]["voices"] = {"current": "w7", "previous": None, "desired": "w8"}
    standin.answers["GET /api/v1/versions"] = error(503, 1, "cannot list it")
    assert offered("switch") == ["v22", "w7", "w8", "v21"]
    assert offered("switch", "--model", "voices") == ["w7", "w8", "v21"]

    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(1.0)
        return 200, {"schema": 1, "versions": [{"version": "v99"}]}

    monkeypatch.setattr(completion, "LISTED_S", 0.05)
    standin.answers["GET /api/v1/versions"] = slowly
    assert offered("switch", incomplete="v") == ["v22", "v21"]


@pytest.mark.parametrize(
    ("words", "at", "whole", "cursor", "done"),
    [
        (["mountd", "wait", "--for", "ver"], 3, ["mountd", "wait", "--for", "ver"], 3, ""),
        (
            ["mountd", "wait", "--for", "version", "=", "v2"],
            5,
            ["mountd", "wait", "--for", "version=v2"],
            3,
            "version=",
        ),
        (["mountd", "wait", "--for", "version", "="], 4, ["mountd", "wait", "--for", "version="], 3, "version="),
        (["mountd", "switch", "--model", "=", "hub", "v2"], 5, ["mountd", "switch", "--model=hub", "v2"], 3, ""),
        (["mountd", "switch", "--model", "=", "h", "v2"], 4, ["mountd", "switch", "--model=h", "v2"], 2, "--model="),
        (["mountd", "="], 1, ["mountd", "="], 1, ""),
        ([], 0, [], 0, ""),
    ],
    ids=str,
)
def test_words_that_bash_has_parted(words: list[str], at: int, whole: list[str], cursor: int, done: str) -> None:
    assert completion.whole_words(words, at) == (whole, cursor, done)


def test_a_slow_answer_is_not_waited_for(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, STATUS

    assert PRODUCT_S <= 2.0
    monkeypatch.setattr(completion, "ASK_TIMEOUT_S", 0.05)
    standin.answers["GET /api/v1/status"] = slowly
    assert offered("restart") == []
