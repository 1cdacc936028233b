"""What is said where no daemon answers: by the unit, the configuration, the table of mounts and the log."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from mountd.cli import unit_facts
from mountd.cli.main import main
from mountd.client import api

GOOD = """\
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: {0}/m}}}}
state: {0}/state
"""
SYSTEMCTL = """#!/bin/sh
cat <<'END'
LoadState=loaded
ActiveState={state}
SubState={substate}
Result=exit-code
ExecMainStatus=20
NRestarts=5
StateChangeTimestamp=Mon 2026-11-30 16:00:00 UTC
END
"""
JOURNALCTL = """#!/bin/sh
echo 'bug in mountd: stopping in order'
echo 'get https://me:hunter2@example.com/'
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD.format(tmp_path) + f"control: {{socket: {tmp_path}/s}}\n")
    return path


def explained(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["explain", "-c", str(config), "-o", "json"]) == 8
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (document["ready"], document["health"]) == (False, "Unknown")
    assert [each["code"] for each in document["chain"]] == ["no-daemon", document["root"]["code"]]
    return document


def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, substate: str) -> None:
    """Programs that answer as systemd's do."""
    for name, script in (("systemctl", SYSTEMCTL.format(state=state, substate=substate)), ("journalctl", JOURNALCTL)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / name
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(unit_facts, "SYSTEMD", str(tmp_path))


def test_without_systemd(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_facts, "SYSTEMD", "/nonexistent")
    found = explained(config, capsys)
    assert (found["root"]["code"], found["others"]) == ("not-running", [])


def test_a_file_that_is_not_valid_is_why(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + "mounst: x\n")
    found = explained(config, capsys)
    assert (found["root"]["code"], found["root"]["command"]) == ("config-invalid", "mountd config check")
    assert "mounst" in found["root"]["evidence"][0]
    assert [each["code"] for each in found["others"]] == ["not-running"]


@pytest.mark.parametrize(
    ("state", "substate", "code"),
    [
        ("failed", "failed", "unit-failed"),
        ("activating", "start", "unit-starting"),
        ("activating", "auto-restart", "unit-failed"),
        ("inactive", "dead", "not-running"),
    ],
)
def test_the_unit_says_more(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    substate: str,
    code: str,
) -> None:
    systemd(tmp_path, monkeypatch, state, substate)
    root = explained(config, capsys)["root"]
    assert root["code"] == code
    facts = " ".join(root["evidence"])
    assert f"{state} ({substate}), result exit-code, exit code 20" in facts
    assert "bug in mountd: stopping in order" in facts
    assert "hunter2" not in facts


def test_one_that_listens_and_never_answers(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = api.get
    monkeypatch.setattr(api, "get", lambda path, where, **given: ask(path, where, **{**given, "timeout_s": 0.3}))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert explained(config, capsys)["root"]["code"] == "daemon-silent"
