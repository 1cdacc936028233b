"""In a Chinese terminal the commands that need no daemon speak Chinese; what programs read stays English."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.cli.main import main
from tests.support.chinese import english

Cli = Callable[..., tuple[str, str]]
GIVEN = ("--yes", "--store", "aliyun-oss", "--bucket", "hub", "--region", "cn-hangzhou")
DOUBTFUL = (
    *("--yes", "--store", "tencent-cos", "--bucket", "hub", "--region", "ap-guangzhou"),
    *("--results", "/srv/tts/outputs", "--results-to", "hub/outputs"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.delenv("LANGUAGE", raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str | Path, code: int = 0) -> tuple[str, str]:
        assert main([*map(str, words)]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "mountd.yaml"


def in_both(cli: Cli, monkeypatch: pytest.MonkeyPatch, *words: str | Path, code: int = 0) -> tuple[Any, Any]:
    """The document that it prints in Chinese, and in English."""
    found = json.loads(cli(*words, "-o", "json", code=code)[0])
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    other = json.loads(cli(*words, "-o", "json", code=code)[0])
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    return found, other


def test_english_is_found() -> None:
    assert english("/srv/x is not a directory\n") == ["{place} is not a directory"]
    assert english("/srv/x 不是目录：mountd status, no such file or directory\n") == []


# -- doctor and config check ------------------------------------------------------------------------------------------


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """With one thing wrong of each kind: an app that is not there, a link that is a file, an outbox without keys."""
    (tmp_path / "link").touch()
    path = tmp_path / "mountd.yaml"
    path.write_text(
        f"""
remotes: {{s: {{type: s3, endpoint: "http://127.0.0.1:1", access_key_id: {{env: X}}}}}}
mounts: {{m: {{remote: "s:b", path: {tmp_path}/m, cache: {{dir: {tmp_path}/cache, min_free: 1M}}}}}}
models: {{hub: {{mount: m, directory: "hub_{{version}}", link: {tmp_path}/link, version: v1}}}}
apps: {{webui: {{command: [nothing-of-this-name], directory: {tmp_path}, needs: [hub]}}}}
outbox: {{results: {{directory: {tmp_path}/outputs, remote: "s:r"}}}}
rclone: {{binary: /nonexistent/rclone}}
state: {tmp_path}/state
runtime: {tmp_path}/run
"""
    )
    return path


def test_doctor(configuration: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X", raising=False)
    out, err = cli("doctor", "-c", configuration, code=1)
    assert english(out + err) == []
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert {line.split("  ")[0] for line in lines} == {"正常", "警告", "失败"}
    assert "m 的缓存：" in out
    assert "hub 的软链接：" in out
    assert re.search("^        → [^a-z]*把它移走", out, re.MULTILINE)


def test_what_a_program_reads_of_doctor_is_english(configuration: Path, cli: Cli) -> None:
    found = json.loads(cli("doctor", "-c", configuration, "-o", "json", code=1)[0])["checks"]
    assert {"cache of m", "link of hub", "disk of results"} <= {each["name"] for each in found}
    assert [each for each in found if not json.dumps(each, ensure_ascii=False).replace("→", "").isascii()] == []


def test_config_check(configuration: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "secret")
    configuration.write_text(configuration.read_text().replace("rclone: {binary: /nonexistent/rclone}\n", ""))
    out, err = cli("config", "check", "-c", configuration)
    assert english(out + err) == []
    assert out.splitlines()[-1] == f"{configuration} 有效：1 个 remote，1 个挂载点，1 个模型，1 个应用"
