"""`config` and `doctor` of files that need no rclone and no bucket: what they read, print, and exit with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.cli.main import main
from mountd.daemon.shutdown import stop_times
from mountd.settings.load import load

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MOUNTD_CONFIG", raising=False)
    mount = {"remote": "r:/", "options": {"uid": "5"}}  # which is ignored, with a warning
    mounts = {
        name: {**mount, "path": f"{tmp_path}/{name}", "cache": {"dir": f"{tmp_path}/c{name}", "min_free": "1M"}}
        for name in "mn"
    }
    places = {"state": f"{tmp_path}/state", "runtime": f"{tmp_path}/run"}
    rclone = {"binary": "/nonexistent/rclone"}
    return yaml.safe_dump({"remotes": {"r": {"type": "local"}}, "mounts": mounts, "rclone": rclone, **places})


@pytest.fixture
def file(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "mountd.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def piped() -> Iterator[Callable[[str], str]]:
    """Makes a pipe that holds a text, as a shell's `<(…)` does → its path."""
    with ExitStack() as stack:

        def make(text: str) -> str:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            os.write(writer, text.encode())
            os.close(writer)
            return f"/dev/fd/{reader}"

        yield make


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_file_may_come_through_a_pipe(text: str, piped: Callable[[str], str], cli: Cli) -> None:
    code, out, err = cli("config", "check", "-c", path := piped(text))
    assert (code, out) == (0, f"{path} is valid: 1 remote, 2 mounts, 0 models, 0 apps\n"), err
    code, out, err = cli("config", "show", "-c", piped(text))
    assert (code, [*yaml.safe_load(out)["mounts"]]) == (0, ["m", "n"]), err
    code, out, err = cli("config", "render", "-c", piped(text))
    assert (code, out, "/nonexistent/rclone" in err) == (1, "", True), "it was read, and rclone is not there"
    code, out, err = cli("config", "check", "-c", piped("mounts: 5\n"))
    assert (code, out) == (2, "")


def test_warnings_of_a_valid_file(file: Path, cli: Cli) -> None:
    for command in ("check", "show"):
        code, out, err = cli("config", command, "-c", file)
        assert (code, "warning: " in out) == (0, False)
        assert err.count("warning: line ") == 2
        assert "mounts.n.options.uid: is ignored" in err
    code, out, err = cli("config", "check", "-c", file, "-o", "json")
    document = json.loads(out)
    assert (code, err, document["schema"], document["source"]) == (0, "", 1, str(file))
    assert document["problems"] == []
    uid, other, rclone = sorted(document["warnings"], key=lambda each: -each["line"])
    assert {uid["path"], other["path"]} == {"mounts.m.options.uid", "mounts.n.options.uid"}
    assert "/nonexistent/rclone" in rclone["text"]


def test_the_effective_configuration_as_json(file: Path, cli: Cli) -> None:
    code, out, err = cli("config", "show", "-c", file, "-o", "json")
    document = json.loads(out)
    assert (code, err, document["schema"], document["source"]) == (0, "", 1, str(file))
    assert document["stop_s"] == stop_times(load(file).settings).total_s
    assert document["config"]["mounts"]["m"]["options"] == {}
    _, out, _ = cli("config", "show", "-c", file)
    assert f"at most {document['stop_s']:g} s" in out.splitlines()[0]
    assert yaml.safe_load(out) == document["config"]


@pytest.mark.parametrize("content", [None, "mounts: [\n", "mounts: 5\n"], ids=str)
def test_problems_as_json_are_one_document(tmp_path: Path, cli: Cli, content: str | None) -> None:
    file = tmp_path / "m.yaml"
    if content is not None:
        file.write_text(content)
    code, out, err = cli("config", "check", "-c", file, "-o", "json")
    document = json.loads(out)
    assert (code, document["source"]) == (2, str(file))
    assert document["problems"]
    assert all(set(each) == {"path", "line", "text"} for each in document["problems"])
    assert document["problems"][0]["text"] in err
    code, out, err = cli("config", "show", "-c", file, "-o", "json")
    assert (code, json.loads(out)["error"]["exit"]) == (2, 2)


def checks(out: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(out)["checks"]}


def test_doctor_of_a_file_that_is_not_there(tmp_path: Path, cli: Cli) -> None:
    code, out, err = cli("doctor", "-c", tmp_path / "none.yaml", "-o", "json")
    assert (code, err) == (1, "")
    assert {"fuse", "fusermount"} < checks(out).keys(), "the machine is looked at all the same"
    assert (checks(out)["config"]["result"], bool(checks(out)["config"]["hint"])) == ("fail", True)


def test_doctor_without_rclone_looks_at_all_the_rest(file: Path, cli: Cli) -> None:
    code, out, _ = cli("doctor", "-c", file, "-o", "json")
    found = checks(out)
    assert (code, found["rclone"]["result"]) == (1, "fail")
    assert found["rclone"]["hint"]
    assert found["config"]["result"] == "warn", "the last of it is the warning"
    wanted = {"secrets": "ok", "state": "ok", "cache of m": "ok", "mount point of n": "ok", "daemon": "warn"}
    assert {name: found[name]["result"] for name in wanted} == wanted
    assert not {"bucket of m", "mounting"} & found.keys(), "which need it"
    assert sorted(os.listdir(file.parent)) == ["mountd.yaml"], "nothing was made"


def test_doctor_names_each_secret_that_cannot_be_read(file: Path, text: str, cli: Cli) -> None:
    data = yaml.safe_load(text)
    for option in ("pass", "token"):
        data["remotes"]["r"][option] = {"file": f"/nonexistent/{option}"}
    file.write_text(yaml.safe_dump(data))
    code, out, _ = cli("doctor", "-c", file, "-o", "json")
    secrets = [each["text"] for each in json.loads(out)["checks"] if each["name"] == "secrets"]
    assert (code, len(secrets)) == (1, 2)
    assert all(f"/nonexistent/{option}" in text for option, text in zip(("pass", "token"), secrets, strict=True))


def test_a_hint_is_shown_only_where_something_is_to_do(file: Path, cli: Cli) -> None:
    code, out, err = cli("doctor", "-c", file)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    hinted = [lines[at - 1] for at, line in enumerate(lines) if line.startswith("        → ")]
    assert any(line.startswith("fail  rclone: ") for line in hinted)
    assert not any(line.startswith("ok") for line in hinted)
