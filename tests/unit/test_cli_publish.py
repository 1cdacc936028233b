"""`mountd publish` before rclone is asked, the line of its progress, and what it says at its end."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.cli import publish
from mountd.cli.main import main
from mountd.cli.terminal import ERASED
from mountd.errors import NotFound, UsageError
from mountd.publish.run import Progress, Published
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

PUBLISHED = Published("published", "sha256:22", 3, 2048, 2, 1024, (), (), "hash")


def text(root: Path, *models: str) -> str:
    made = "".join(
        f"  {name}: {{mount: m, directory: '{name}_{{version}}', link: {root}/{name}, version: v1, required: [a]}}\n"
        for name in models
    )
    return f"""
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /mnt/m}}}}
rclone: {{binary: /nonexistent/rclone}}
state: {root}/state
runtime: {root}/run
models:
{made}"""


def settings(*models: str) -> Settings:
    return parse(text(Path("/r"), *models), "x.yaml", Places(Path("/s"), Path("/c"), Path("/r"))).settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MOUNTD_CONFIG", raising=False)
    path = tmp_path / "mountd.yaml"
    path.write_text(text(tmp_path, "hub"))
    return path


# -- what is meant ----------------------------------------------------------------------------------------------------


def test_which_model_is_meant() -> None:
    assert publish._model(settings("hub"), None) == "hub"
    assert publish._model(settings("hub", "voices"), "voices") == "voices"
    for models, asked, error in (
        (("hub", "voices"), None, UsageError),
        ((), None, UsageError),
        (("hub",), "voices", NotFound),
        ((), "voices", NotFound),
    ):
        with pytest.raises(error) as refused:
            publish._model(settings(*models), asked)
        assert all(model in refused.value.hint for model in models)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{root}/full", "latest"], 2),
        (["{root}/full", "../v1"], 2),
        (["{root}/full", "v1", "--model", "voices"], 3),
        (["{root}/none", "v1"], 3),
        (["{root}/mountd.yaml", "v1"], 2),
        (["{root}/empty", "v1"], 7),
        (["{root}/full", "v1"], 1),  # rclone is asked for, and is not there
        (["{root}/full", "v1", "--jobs", "0"], 2),
        (["{root}/full", "v1", "--jobs", "65"], 2),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else str(given),
)
def test_what_is_refused_before_anything_is_sent(
    file: Path, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root = file.parent
    for name, wanted in (("full", "a"), ("empty", "b")):
        (root / name).mkdir()
        (root / name / wanted).write_text("1")
    assert main(["publish", *(word.format(root=root) for word in words), "-c", str(file), "-o", "json"]) == code
    assert json.loads(capsys.readouterr().out)["error"]["exit"] == code
    left = [*(root / "state" / "publish").rglob("*")] if (root / "state").exists() else []
    assert not [path for path in left if path.name == "rclone.conf"]


def test_where_the_record_of_a_run_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "own"))
    (tmp_path / "file").touch()
    for state, kept in (("state", "state"), ("file/state", "own")):
        written = text(tmp_path, "hub").replace(f"{tmp_path}/state", f"{tmp_path}/{state}")
        found = parse(written, "x.yaml", Places(tmp_path, tmp_path, tmp_path)).settings
        assert publish._state(found) == tmp_path / kept


# -- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


READING = Progress("reading", 512, 1024)


FULL, HALF = "━" * 20, "━" * 10 + "╌" * 10


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (READING, f"reading 1.0 KiB: {HALF} 50 %"),
        (Progress("reading", 0, 0), f"reading 0 B: {FULL} 100 %"),
        (Progress("sending", 2048, 1024), f"sending 1.0 KiB: {FULL} 100 %"),
        (Progress("sending", 10, 1024, 2048.0), "sending 1.0 KiB: ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0 %, 2.0 KiB/s"),
        (
            Progress("sending", 512, 1024, 1024.0, 65.4),
            f"sending 1.0 KiB: {HALF} 50 %, 1.0 KiB/s, 1m05s left",
        ),
        (Progress("reading back", 1024, 1024, 1024.0, 0.0), f"reading back 1.0 KiB: {FULL} 100 %, 1.0 KiB/s"),
    ],
)
def test_the_line_of_progress(monkeypatch: pytest.MonkeyPatch, progress: Progress, line: str) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("NO_COLOR", "1")
    bar = publish.Bar()
    for _ in range(2):
        bar.show(progress)
    assert shown.getvalue() == f"{ERASED}{line}", "once"
    bar.end()
    bar.end()
    assert shown.getvalue() == f"{ERASED}{line}\n"


def test_off_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = publish.Bar()
    bar.show(READING)
    assert capsys.readouterr().err == "", "it may be over in a moment"
    monkeypatch.setattr(publish, "LINE_S", 0.0)
    bar = publish.Bar()
    for done in (0, 0, 512):
        bar.show(Progress("reading", done, 1024))
    bar.end()
    assert capsys.readouterr().err == "reading 1.0 KiB: 0 %\nreading 1.0 KiB: 50 %\n"


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "out", "err"),
    [
        ({}, ["v1 is published to s:b/v1: 3 files, 2.0 KiB; 2 of them (1.0 KiB) sent in", "digest sha256:22\n"], []),
        ({}, ["s, sizes and hashes compared"], []),
        ({"checked": "size"}, ["s, sizes compared"], []),
        ({"checked": "download"}, ["every byte compared"], []),
        ({"result": "already-published", "digest": ""}, ["v1 is already published", "nothing was changed"], []),
        ({"result": "would-publish"}, ["would be published to s:b/v1", "2 of them (1.0 KiB) would be sent"], []),
        ({"deleted": ("x", "y")}, ["is published"], ["deleted", "2 files"]),
        ({"result": "would-publish", "deleted": ("x",)}, ["would be"], ["would be deleted", "1 files"]),
        ({"left_out": ("a", "b", "c")}, ["is published"], ["left out: a, b, c\n"]),
        ({"left_out": ("a", "b", "c", "d")}, ["is published"], ["left out: a, b, c …\n"]),
    ],
    ids=lambda given: str(given)[:40],
)  # fmt: skip
def test_what_it_says_at_its_end(
    changes: dict[str, Any], out: list[str], err: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    publish._show("v1", "s:b/v1", replace(PUBLISHED, **changes), 1.25)
    captured = capsys.readouterr()
    assert [words for words in out if words not in captured.out] == []
    assert [words for words in err if words not in captured.err] == []
    assert bool(captured.err) is bool(err)
    assert ("digest" in captured.out) is (changes.get("result", "published") == "published")
