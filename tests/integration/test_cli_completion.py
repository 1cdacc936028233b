"""What a shell offers behind each command, from a stand-in daemon; a Tab never fails, nor waits for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from mountd.cli import completion
from mountd.cli.main import cli
from mountd.cli.options import Options
from tests.integration.test_cli_standin import STATUS, Asked, Daemon, error


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "mountd.sock")
    monkeypatch.setenv("MOUNTD_SOCKET", made.path)
    versions = [{"version": version} for version in ("v22", "v23", "w1")]
    made.answers["GET /api/v1/versions"] = lambda _: (200, {"schema": 1, "versions": versions})
    model = STATUS["models"]["cache_hub"]
    made.status = {**STATUS, "models": {"cache_hub": model, "voices": model}}
    made.start()
    yield made
    made.stop()


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
    ],
    ids=str,
)
def test_names_of_what_there_is(daemon: Daemon, words: list[str], incomplete: str, names: list[str]) -> None:
    assert offered(*words, incomplete=incomplete) == names


def test_the_daemon_that_the_line_names_is_asked(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOUNTD_SOCKET", "/nonexistent/mountd.sock")
    assert offered("--socket", daemon.path, "restart") == ["storage", "webui"]


def test_without_an_answer_nothing_is_offered(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET /api/v1/status"] = lambda _: (200, {"schema": 1})
    assert offered("restart") == []
    daemon.answers["GET /api/v1/status"] = error(500, 20, "it is broken")
    assert offered("restart") == []
    daemon.stop()
    assert offered("restart") == offered("switch") == offered("switch", "--model") == []
    assert "".join(capfd.readouterr()) == ""


def test_a_slow_answer_is_not_waited_for(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, STATUS

    assert completion.ASK_TIMEOUT_S <= 2.0
    monkeypatch.setattr(completion, "ASK_TIMEOUT_S", 0.05)
    daemon.answers["GET /api/v1/status"] = slowly
    assert offered("restart") == []
