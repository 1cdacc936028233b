"""The command line in both languages, against a stand-in daemon; what programs read stays as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from mountd.api.documents.operations import drill_plan as drill_plan_document
from mountd.cli import drill, labels
from mountd.cli import help as cli_help
from mountd.cli.main import COMMANDS, cli, main
from mountd.cli.wrap import columns
from mountd.i18n import translation
from mountd.operation import drill_plan
from mountd.operation.drill_plan import DrillKind, DrillLimits, DrillPlan
from tests.support.chinese import english
from tests.support.standin import OPERATION, STATUS, StandIn
from tests.unit.test_cli_help import commands

ROOT = Path(__file__).parents[2]
CHINESE = translation("zh_CN").text


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.delenv("LANGUAGE", raising=False)


def out_of(words: Sequence[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main([*words]) == code
    return capsys.readouterr().out


VERSION = {
    "version": "v23",
    "role": "current",
    "complete": True,
    "verified": False,
    "bytes": 5 << 30,
    "files": 11,
    "level": "metadata",
    "warmed_percent": 40,
    "in_bucket": True,
    "digest": "sha256:0123456789abcdef",
    "quarantined": True,
}
PAST = {**OPERATION, "result": "rolled-back", "finished": "2026-01-01T00:01:00.000Z", "duration_s": 60.0, "cause": "门"}


@pytest.mark.usefixtures("chinese")
def test_status_in_chinese(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.status = {**STATUS, "operation": {**OPERATION, "percent": 40}, "operations": [OPERATION]}
    out = out_of(["status"], capsys)
    lines = out.splitlines()
    assert lines[0].startswith("● 就绪，降级")
    assert "切换 cache_hub，v22 → v23，步骤 预热，40 %" in lines[1]
    assert lines[3].split() == ["层", "名称", "健康", "状态"]
    cells = {line.split()[0]: line.split()[1:3] for line in lines[4:]}
    assert cells["存储桶"] == ["compshare", "降级"]
    assert cells["软链接"] == ["cache_hub", "健康"]
    assert cells["应用"] == ["webui", "健康"]
    assert "bucket-unreachable: cannot list 存储桶: refused" in out, "codes, and what the daemon says, stay"


@pytest.mark.usefixtures("chinese")
def test_columns_stand_below_each_other(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(["status"], capsys).splitlines()
    at = [columns(line.partition(name)[0]) for line, name in zip(lines[2:4], ("名称", "compshare"), strict=True)]
    assert len(set(at)) == 1
    document = {"schema": 1, "model": "m", "versions": [VERSION, {**VERSION, "version": "v9", "role": "previous"}]}
    standin.answers["GET /api/v1/versions"] = lambda _: (200, document)
    heading, first, second = out_of(["versions"], capsys).splitlines()
    words = (("摘要", heading), ("0123456789ab", first), ("0123456789ab", second))
    assert len({columns(line.partition(word)[0]) for word, line in words}) == 1
    assert first.split()[:4] == ["v23", "当前", "是", "否"]
    assert "已隔离" in first


@pytest.mark.usefixtures("chinese")
def test_history_and_events_in_chinese(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["GET /api/v1/history"] = lambda _: (200, {"schema": 1, "history": [PAST], "next": None})
    steps = [{"step": "warm", "began": "2026-01-01T00:00:00Z", "outcome": "failed", "duration_s": 1.0}]
    standin.answers["GET /api/v1/history/17"] = lambda _: (200, {"schema": 1, **PAST, "steps": steps})
    heading, row = out_of(["history"], capsys).splitlines()
    assert heading.split() == ["编号", "时间", "操作者", "内容", "结果", "秒", "原因"]
    assert "切换 cache_hub v22 → v23" in row
    assert "已回滚" in row
    out = out_of(["history", "17"], capsys)
    assert "结果       已回滚，用时 60.0 秒" in out
    assert out.splitlines()[-1].split()[0] == "预热"


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("words", [["status"], ["history"], ["versions"]], ids=" ".join)
def test_json_is_the_same_in_each_language(
    standin: StandIn, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.answers["GET /api/v1/history"] = lambda _: (200, {"schema": 1, "history": [PAST], "next": None})
    standin.answers["GET /api/v1/versions"] = lambda _: (200, {"schema": 1, "model": "m", "versions": [VERSION]})
    found = out_of([*words, "-o", "json"], capsys)
    monkeypatch.setenv("LC_ALL", "C")
    assert found == out_of([*words, "-o", "json"], capsys)


@pytest.mark.usefixtures("chinese")
def test_a_failure_in_chinese_is_said_as_the_daemon_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--socket", "/nonexistent", "status", "-o", "json"]) == 8
    captured = capsys.readouterr()
    assert captured.err.startswith("mountd: cannot reach mountd at /nonexistent: ")
    assert "\n  建议：" in captured.err
    assert json.loads(captured.out)["error"]["exit"] == 8


PLAN: dict[str, Any] = {
    "kind": "switch", "model": "cache_hub", "from": "v22", "to": "v23", "link": "/srv/hub", "target": "/mnt/v23",
    "apps": ["webui"], "stopped": [], "gates": ["ask {x}"], "watch": {"for_s": 90.0, "crashes": 1}, "digests": True,
    "force": False, "undo": ["stop-new", "flip-back"], "limit_s": 1.0, "text": ["in English"],
    "steps": [
        {"step": step, "text": "{as it is}", "limit_s": 90.0}
        for step in ("preflight", "warm", "verify", "stop", "flip", "start", "ready", "gates", "watch", "commit", "new")
    ],
}  # fmt: skip


@pytest.mark.parametrize(("locale", "lines"), [("C", 1), ("zh_CN.UTF-8", 14)])
def test_a_plan(
    standin: StandIn, locale: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    standin.answers["POST /api/v1/switch"] = lambda _: (200, {"schema": 1, "dry_run": True, "plan": PLAN})
    found = out_of(["switch", "v23", "--dry-run"], capsys).splitlines()
    assert len(found) == lines
    if lines > 1:
        assert found[1].split()[0] == "预检"
        assert "1 分 30 秒" in found[1]
        assert found[11].split(maxsplit=1) == ["new", "{as it is}"], "a step that only the daemon knows"
        starts = [columns(line) - columns(line.lstrip().partition(" ")[2].lstrip()) for line in found[1:11]]
        assert len(set(starts)) == 1, "the texts stand below each other"
        assert found[-1].endswith("停止新版本，切回软链接。")


@pytest.mark.parametrize("apps", [(), ("webui",), ("webui", "other")], ids=str)
@pytest.mark.parametrize("kind", DrillKind)
def test_the_plan_of_a_drill(kind: DrillKind, apps: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert drill.DELAY_S == drill_plan.DELAY_S
    plan: Any = drill_plan_document(
        DrillPlan(kind, "storage", "/mnt/storage", 90.0, apps, apps, DrillLimits(26.5, 5.0, 5.0))
    )
    assert drill.plan_lines(plan) == plan["text"]
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    lines = drill.plan_lines(plan)
    assert len(lines) == len(plan["text"])
    assert english("\n".join(lines)) == []
    assert "storage" in lines[0]
    assert "，".join(apps) in lines[-1]
    assert ("27 秒" in lines[1]) is (kind is DrillKind.HANG)
    assert ("1 分 30 秒" in lines[0]) is not kind.breaks_rclone


@pytest.mark.usefixtures("chinese")
def test_what_differs_in_chinese(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    compared = [
        ("version", "none", "v23"),
        ("link", "/srv/hub → /mnt/v23", "/srv/hub → none"),
        ("flags", "--transfers=4", "not set"),
        ("flags", "as configured", "as configured"),
        ("process", "running with v23", "backoff"),
        ("process", "running with unknown", "failed"),
    ]
    items = [
        {"kind": kind, "object": "x", "wanted": wanted, "live": live, "differs": wanted != live}
        for kind, wanted, live in compared
    ]
    models = [{"model": "hub", "sync": "OutOfSync", "differs": True, "compared": items}]
    standin.answers["GET /api/v1/diff"] = lambda _: (200, {"schema": 1, "differs": True, "models": models})
    lines = [" ".join(line.split()) for line in out_of(["diff", "--all"], capsys, 1).splitlines()]
    assert [line.split(" x ")[1] for line in lines[1:]] == [
        "无 v23",
        "/srv/hub → /mnt/v23 /srv/hub → 无",
        "--transfers=4 未设置",
        "与配置一致 与配置一致",
        "运行中，版本 v23 等待重启",
        "运行中，版本 未知 失败",
    ]


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize(("path", "command"), list(commands(cli)), ids=str)
def test_help_in_chinese(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = out_of([*path, "--help"], capsys)
    assert f"用法： mountd {' '.join(path)}" in out
    assert CHINESE((command.help or "").splitlines()[0])[:12] in out
    assert "示例：" in out
    assert max(columns(line) for line in out.splitlines() if "--store [" not in line) <= 80
    assert "Options:" not in out


def test_click_says_what_the_catalogue_has_of_it() -> None:
    """Else click has changed one of the messages, and it is shown in English."""
    said = "".join(path.read_text("utf-8") for path in Path(click.__file__).parent.glob("*.py"))
    assert [each for each in cli_help.CLICK if json.dumps(each) not in said] == []


def test_each_word_has_a_translation() -> None:
    assert {word for word in labels.KNOWN if CHINESE(word) == word} == {"rclone"}
    assert all(CHINESE(text) != text for *_where, text in COMMANDS.values())


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "zh_CN.UTF-8"},
        {"LC_ALL": "zh_CN.GB18030", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C.UTF-8", "LANGUAGE": "zh_CN"},
    ],
    ids=str,
)
def test_what_goes_into_a_pipe_is_utf8_without_colours(standin: StandIn, locale: dict[str, str]) -> None:
    environment = {"MOUNTD_SOCKET": standin.path, "PATH": os.environ["PATH"], **locale}
    command = [sys.executable, "-m", "mountd", "status"]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    is_chinese = locale.get("LC_ALL", "").startswith("zh")
    assert ("● 就绪，降级" if is_chinese else "● ready, Degraded") in done.stdout.decode("utf-8")
    assert b"\x1b" not in done.stdout


@pytest.mark.usefixtures("chinese")
def test_no_help_is_half_english(capsys: pytest.CaptureFixture[str]) -> None:
    for path, _command in commands(cli):
        out = out_of([*path, "--help"], capsys)
        words = [line for line in out.splitlines() if line.startswith("  ") and not line.startswith("    ")]
        english = [line for line in words if line.isascii() and not re.match(r"  (-|\w+$)", line)]
        assert english == [], path
