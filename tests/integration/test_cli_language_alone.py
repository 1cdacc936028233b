"""In a Chinese terminal the commands that need no daemon speak Chinese; what programs read stays English."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.cli import publish
from mountd.cli.main import main
from mountd.cli.wrap import columns
from tests.support.chinese import english
from tests.unit.test_cli_publish import PUBLISHED

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


# -- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [GIVEN, DOUBTFUL, (*GIVEN, "--secrets", "env"), (*GIVEN, "--secrets", "credential")])
def test_init_says_what_it_wrote_what_it_doubts_and_what_is_next(file: Path, cli: Cli, words: tuple[str, ...]) -> None:
    out, err = cli("init", *words, "-c", file)
    assert english(out + err) == []
    assert err.count("警告：") == (2 if words is DOUBTFUL else 0)
    assert "下一步：" in out
    assert f"  mountd doctor -c {file}" in out.splitlines()
    out, _err = cli("init", *words, "-c", file, "--force")
    assert f"原来的文件保留为 {file}.before-init" in out.splitlines()
    out, _err = cli("init", "--undo", "-c", file)
    assert english(out) == []
    assert str(file) in out


ANSWERS = ("nowhere", "aliyun-oss", "oss-cn-x", "cn-hangzhou", "", "/", "hub", "", "", "", "", "", "", "", "")


def test_init_asks(file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(ANSWERS)))
    out, err = cli("init", "-c", file)
    assert english(out + err) == []
    assert "存储服务（aliyun-oss, " in err
    assert "  不要写 'oss-'，应为 cn-x" in err
    assert "（回车：无）" in err
    assert "（回车：以后再填）" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (GIVEN[:-2], 2),
        ((*GIVEN[:-1], "oss-x"), 2),
        ((*GIVEN, "--secrets", "env", "--keys", "x"), 2),
        ((*GIVEN, "--keys", "/nonexistent"), 2),
        (GIVEN[1:], 2),
        (("--undo",), 1),
    ],
    ids=str,
)
def test_init_refuses(file: Path, cli: Cli, words: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    _out, err = cli("init", *words, "-c", file, code=code)
    assert english(err) == []
    assert "\n  建议：" in err
    found, other = in_both(cli, monkeypatch, "init", *words, "-c", file, code=code)
    assert found == other, "programs read English"


def test_what_a_program_reads_of_init_is_english(file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found, other = in_both(cli, monkeypatch, "init", "--dry-run", *GIVEN, "-c", file)
    assert found == other


# -- install ----------------------------------------------------------------------------------------------------------


def test_install(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "etc/mountd/mountd.yaml"
    there.parent.mkdir(parents=True)
    there.write_text("x")
    out, err = cli("install", "--root", tmp_path, "--dry-run")
    assert english(out + err) == []
    assert "保留     /etc/mountd/mountd.yaml：已存在" in out.splitlines()
    starts = {columns(line) - columns(line.split(maxsplit=1)[1]) for line in out.splitlines()}
    assert starts == {9}, "the paths stand below each other"
    found, other = in_both(cli, monkeypatch, "install", "--root", tmp_path, "--dry-run")
    assert found == other
    unit = tmp_path / "etc/systemd/system/mountd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("x")
    _out, err = cli("install", "--root", tmp_path, "--dry-run", code=7)
    assert english(err) == []
    assert english(cli("install", "--root", tmp_path, "--uninstall")[1]) == []
    assert english(cli("install", "--purge", code=2)[1]) == []


# -- publish ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["published", "would-publish", "already-published"])
def test_publish(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = replace(PUBLISHED, result=result, deleted=("x",), left_out=("a", "b", "c", "d"))
    publish._show("v1", "s:b/v1", found, 1.25)
    captured = capsys.readouterr()
    assert english(captured.out + captured.err) == []
    assert all(re.search("[一-龥]", line) for line in (captured.out + captured.err).splitlines())
    assert ("\n摘要 sha256:22\n" in captured.out) is (result == "published")


# -- doctor and config check ------------------------------------------------------------------------------------------


@pytest.fixture
def configuration() -> Iterator[Path]:
    """With one thing wrong of each kind: an app that is not there, a link that is a file, an outbox without keys."""
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # pytest's would not fit into a Unix socket's address
    (root / "link").touch()
    path = root / "mountd.yaml"
    path.write_text(
        f"""
remotes: {{s: {{type: s3, endpoint: "http://127.0.0.1:1", access_key_id: {{env: X}}}}}}
mounts: {{m: {{remote: "s:b", path: {root}/m, cache: {{dir: {root}/cache, min_free: 1M}}}}}}
models: {{hub: {{mount: m, directory: "hub_{{version}}", link: {root}/link, version: v1}}}}
apps: {{webui: {{command: [nothing-of-this-name], directory: {root}, needs: [hub]}}}}
outbox: {{results: {{directory: {root}/outputs, remote: "s:r"}}}}
rclone: {{binary: /nonexistent/rclone}}
state: {root}/state
runtime: {root}/run
"""
    )
    try:
        yield path
    finally:
        shutil.rmtree(root, ignore_errors=True)


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


# -- the host ---------------------------------------------------------------------------------------------------------


def test_a_command_of_this_machine_takes_no_host(cli: Cli) -> None:
    _out, err = cli("-H", "gpu-1", "doctor", code=2)
    assert english(err) == []
    assert "错误：doctor 只在本机上工作，不能用 -H。" in err
