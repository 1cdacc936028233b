"""`status`, `versions` and what ends any command, against a stand-in daemon."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mountd.cli import main as main_module
from mountd.cli.main import main
from mountd.client import api
from tests.support.standin import OPERATION, STATUS, StandIn, error

ROOT = Path(__file__).parents[2]


def test_status_as_json_is_the_document(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_as_a_table(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "● ready, Degraded    mountd 0.1.0, pid 812, up 1 h 2 m"
    assert [line.split()[0] for line in lines[3:4] + lines[5:9]] == ["bucket", "rclone", "mount", "link", "app"]
    assert "cannot list 存储桶: refused" in lines[3]
    assert lines[4].strip() == "→ check the network"
    assert "cache 1.5 KiB" in lines[6]
    assert lines[9] == "x: something of no layer"
    assert not any(line.endswith(" ") or "\x1b" in line for line in lines)


def test_status_exits_1_when_not_ready(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.status = {**STATUS, "ready": False}
    assert main(["status"]) == 1
    assert main(["status", "-o", "json"]) == 1
    assert '"error"' not in capsys.readouterr().out


def test_status_shows_the_operation_and_no_control_characters(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.status = {**STATUS, "operation": OPERATION, "remotes": {"a\x1b[31m": {"health": "Healthy"}}}
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "operation 17: switch cache_hub, v22 → v23, step warm, 40 %, about 3 s left, by root" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("place", [["--socket", "S", "status"], ["status", "--socket", "S"], ["-o", "json", "status"]])
def test_options_stand_before_or_after_the_command(
    standin: StandIn, place: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "S" in place:
        monkeypatch.delenv("MOUNTD_SOCKET")
    assert main([standin.path if word == "S" else word for word in place]) == 0


def test_status_without_a_daemon(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.stop()
    assert main(["status"]) == 8
    captured = capsys.readouterr()
    assert captured.err.startswith(f"mountd: cannot reach mountd at {standin.path}: no such file")
    assert "\n  hint: " in captured.err
    assert captured.out == ""
    assert main(["status", "-o", "json"]) == 8
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["error"]["exit"]) == (1, 8)


def test_socket_of_the_configuration(standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOUNTD_SOCKET")
    config = tmp_path / "mountd.yaml"
    parts = "remotes: {r: {type: memory}}\nmounts: {m: {remote: 'r:b', path: /mnt/m}}\n"
    config.write_text(f"{parts}control: {{socket: {standin.path}}}\n")
    assert main(["status", "-c", str(config)]) == 0
    monkeypatch.setenv("MOUNTD_CONFIG", str(config))
    assert main(["status"]) == 0


def test_watch_draws_again_until_interrupted(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        if len(standin.asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("mountd.cli.follow.time.sleep", interrupt)
    assert main(["status", "--watch"]) == 130
    assert capsys.readouterr().out.count("● ready") == 3


def test_watch_goes_on_while_the_daemon_restarts(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses = iter([standin.stop, standin.start])

    def pause(_: float) -> None:
        try:
            next(pauses)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("mountd.cli.follow.time.sleep", pause)
    assert main(["status", "--watch"]) == 130
    out = capsys.readouterr().out
    assert out.count("● ready") == 2
    assert out.count(f"cannot reach mountd at {standin.path}") == 1


def test_watch_as_json_is_a_document_a_line(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        if len(standin.asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("mountd.cli.follow.time.sleep", interrupt)
    assert main(["status", "--watch", "-o", "json"]) == 130
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [STATUS] * 2


# versions -------------------------------------------------------------------------------------------------------------


def test_versions(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {
        "version": "v23",
        "complete": True,
        "verified": True,
        "bytes": 5 * 1024**3,
        "files": 11,
        "level": "metadata",
        "warmed_percent": 40,
        "in_bucket": True,
        "role": "current",
        "digest": "sha256:0123456789abcdef",
        "quarantined": False,
    }
    bad = {**entry, "version": "bad", "complete": False, "role": "", "quarantined": True, "warmed_percent": None}
    pinned = {**entry, "version": "v22", "role": "previous", "level": "pin", "warmed_percent": None, "in_bucket": False}
    document = {"schema": 1, "model": "cache_hub", "versions": [entry, bad, pinned]}
    standin.answers["GET /api/v1/versions"] = lambda _: (200, document)
    assert main(["versions", "--model", "cache_hub"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[1].split()) == "v23 current yes yes 5.0 GiB 11 metadata 40 % 0123456789ab"
    assert lines[2].split()[:2] == ["bad", "no"]
    assert lines[2].endswith("quarantined")
    assert lines[3].split()[:8] == ["v22", "previous", "yes", "yes", "5.0", "GiB", "11", "pin"]
    assert lines[3].endswith("not in the bucket")
    assert standin.asked[0].query == {"model": "cache_hub"}
    document |= {"versions": [{**pinned, "in_bucket": None}], "unlisted": "cannot list store: no route to host"}
    for words in (["versions"], ["versions", "-o", "json"]):
        assert main(words) == 1
        captured = capsys.readouterr()
        assert ("v22" in captured.out, "not in the bucket" in captured.out) == (True, False)
        assert "no route to host" in captured.out + captured.err


def test_versions_wait_for_a_slow_bucket(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_: object) -> tuple[int, object]:
        time.sleep(0.5)
        return 200, {"schema": 1, "model": "cache_hub", "versions": []}

    standin.answers["GET /api/v1/versions"] = slowly
    defaults = api.get.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 0.1)
    assert main(["versions"]) == 0


def test_versions_of_an_unknown_model(standin: StandIn) -> None:
    standin.answers["GET /api/v1/versions"] = error(404, 3, "there is no model nope")
    assert main(["versions", "--model", "nope"]) == 3


# what ends a command --------------------------------------------------------------------------------------------------


def test_unexpected_failure_is_a_bug(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(main_module, "_invoke", fail)
    assert main(["status", "-o", "json"]) == 20
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert "this is a bug in mountd" in captured.err
    assert json.loads(captured.out)["error"]["exit"] == 20


def test_closed_pipe_is_quiet(standin: StandIn) -> None:
    line = {"name": "webui", "time": "2026-01-01T00:00:00Z", "text": "a"}
    standin.answers["GET /api/v1/logs"] = lambda _: (200, {"schema": 1, "logs": [line] * 50_000})
    command = f"set -o pipefail; {sys.executable} -m mountd logs | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.count("\n") == 1


def test_old_locale(standin: StandIn) -> None:
    environment = {"MOUNTD_SOCKET": standin.path, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["status"], ["status", "-o", "json"]):
        command = [sys.executable, "-m", "mountd", *arguments]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)
        assert done.returncode == 0, done.stderr
