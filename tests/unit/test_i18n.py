"""The language of texts for people: chosen by the environment, free in English, never a reason to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mountd import i18n
from mountd.errors import MountdError
from mountd.i18n import M_, Message, _, shown

KNOWN = "Configuration file."


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.GB18030"}, "zh_CN"),
        ({"LANG": "zh_SG"}, "zh_CN"),
        ({"LANG": "zh"}, "zh_CN"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh_CN"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en:zh_CN"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LANGUAGE": "de:zh_CN"}, "zh_CN"),
        ({"LANG": "C", "LANGUAGE": "zh_CN"}, "en"),
        ({"LANGUAGE": "zh_CN"}, "en"),
        ({"LANG": "zh_CN.UTF-8@x", "LANGUAGE": "../../etc"}, "en"),
    ],
    ids=str,
)
def test_the_language_follows_the_environment(environ: dict[str, str], language: str) -> None:
    assert i18n.language_of(environ) == language


@pytest.mark.parametrize(
    ("name", "language"),
    [("zh_CN", "zh_CN"), ("zh-CN", "zh_CN"), ("zh-Hans-CN", "zh_CN"), ("ZH", "zh_CN"), ("en", "en"), ("en-US", "en")]
    + [(name, "en") for name in ("", "fr", "../zh_CN", "zhx", "x" * 100_000)],
    ids=lambda value: value[:12],
)
def test_any_name_of_a_language_gives_a_translation(name: str, language: str) -> None:
    assert i18n.translation(name).language == language


def test_texts_in_both_languages() -> None:
    assert i18n.translation("en").text(KNOWN) == KNOWN
    assert i18n.translation("zh_CN").text(KNOWN) == "配置文件。"
    assert i18n.translation("zh_CN").text("in no catalogue") == "in no catalogue"
    assert i18n.translation("zh_CN").text("") == ""
    assert i18n.translation("en").messages() == {}
    messages = i18n.translation("zh_CN").messages()
    assert messages[KNOWN] == "配置文件。"
    assert "" not in messages


def test_the_command_line_speaks_the_language_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert _(KNOWN) == "配置文件。"
    monkeypatch.setenv("LC_ALL", "C")
    assert _(KNOWN) == KNOWN


@pytest.mark.parametrize("content", [None, b"", b"\xde\x12\x04\x95", b"not a catalogue at all, not even by its size"])
def test_without_a_catalogue_it_is_english(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(i18n, "DIRECTORY", str(tmp_path))
    if content is not None:
        path = Path(i18n.catalogue_path("zh_CN"))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert i18n.Translation("zh_CN").text(KNOWN) == KNOWN


def test_a_message_is_english_until_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    where = M_("disk of {name}", name="results")
    text = M_("{place}: {free:.1f} GiB free", place="/srv", free=1.25)
    line = M_("{name}: {text}", name=where, text=text)
    assert (line, json.dumps(line)) == ("disk of results: /srv: 1.2 GiB free", f'"{line}"')
    assert shown(line) == f"{shown(where)}：{shown(text)}"
    assert "disk" not in shown(line)
    assert [shown(each) for each in ("disk of {name}", "", Path("/srv"))] == ["disk of {name}", "", "/srv"]
    monkeypatch.setenv("LC_ALL", "C")
    assert shown(line) == line


def test_an_error_keeps_its_message() -> None:
    error = MountdError(M_("cannot write {file}: {cause}", file="/srv/模型", cause="x"), hint=M_("run it as root"))
    assert isinstance(error.text, Message)
    assert isinstance(error.hint, Message)
    cut = MountdError(M_("cannot write {file}: {cause}", file="/srv/\udcff", cause="x"))
    assert (type(cut.text), cut.text) == (str, "cannot write /srv/\\udcff: x"), "what cannot be stored is not kept"


OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, what: opened.append(what[0]) if event == "open" else None)
before = set(sys.modules)
from mountd.i18n import _
text = _("Configuration file.")
print("gettext" in set(sys.modules) - before, any(str(name).endswith(".mo") for name in opened), text)
"""


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        ("C", "False False Configuration file."),
        ("en_US.UTF-8", "False False Configuration file."),
        ("zh_CN.UTF-8", "True True 配置文件。"),
    ],
)
def test_english_costs_nothing(locale: str, said: str) -> None:
    environment = {"LC_ALL": locale, "PYTHONUTF8": "1"}
    top = Path(i18n.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", OPENED], env=environment, cwd=top, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == said
