"""Text is UTF-8 whatever the locale of the process that starts mountd, and the app gets that locale as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.publishing import at, publish
from tests.support.s3 import RcloneS3

# Everywhere, when there is no GBK to be made.
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
SAY = (
    "import os; print('locale', os.environb.get(b'LC_ALL'), 'utf8' if b'PYTHONUTF8' in os.environb else '', flush=True)"
)


def foreign(charset: str, place: Path) -> dict[str, str]:
    """The environment of such a locale, made for the test."""
    if charset == "ASCII" or not shutil.which("localedef"):
        return ASCII
    name = f"zh_CN.{charset}" if charset == "GBK" else f"de_DE.{charset}"
    made = subprocess.run(
        ["localedef", "-i", name.partition(".")[0], "-f", charset, str(place / name)], check=False, capture_output=True
    )
    return {"LOCPATH": str(place), "LC_ALL": name} if made.returncode in (0, 1) and (place / name).exists() else ASCII


SPEAKS = """
import os, sys
from mountd.cli import utf8
utf8.insist()
print(sys.getfilesystemencoding(), os.fsencode(sys.argv[1]).hex(), os.environ.get("LC_ALL"), os.getpid())
print("PYTHONUTF8" in os.environ, open(sys.argv[1]).read())
"""


@pytest.mark.parametrize("charset", ["GBK", pytest.param("ISO-8859-1", marks=pytest.mark.thorough), "ASCII"])
def test_the_process_speaks_utf8_and_hands_the_locale_on(tmp_path: Path, charset: str) -> None:
    locale = foreign(charset, tmp_path)
    file = tmp_path / "配置 é.yaml"
    file.write_text("数据", "utf-8")
    command = [sys.executable, "-c", SPEAKS, str(file)]
    with subprocess.Popen(command, env={**os.environ, **locale}, stdout=subprocess.PIPE) as process:
        out = process.communicate(timeout=30)[0].decode()
    first, second = out.splitlines()
    assert first == f"utf-8 {str(file).encode().hex()} {locale['LC_ALL']} {process.pid}"
    assert second == f"{'PYTHONUTF8' in locale} 数据"


@pytest.mark.fuse
@pytest.mark.thorough
@pytest.mark.parametrize("charset", ["GBK", "ISO-8859-1", "ASCII"])
def test_all_text_is_utf8(
    make_daemon: Callable[..., Daemon], store: RcloneS3, tmp_path: Path, charset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locale = foreign(charset, tmp_path)
    daemon = make_daemon(environment=locale)
    directory = daemon.root / "应用 é"
    directory.mkdir()
    daemon.config["models"]["cache_hub"]["link"] = str(directory / "模型")
    daemon.config["mounts"]["storage"]["path"] = str(daemon.root / "挂载点")
    app = daemon.config["apps"]["webui"]
    start = f"{SAY}; import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    app["command"] = [sys.executable, "-I", "-c", start, *app["command"][1:-1], "./模型"]
    app["directory"] = str(directory)
    daemon.start_ready()
    names = os.listdir(os.fsencode(daemon.root))
    assert "挂载点".encode() in names
    assert all(name.decode() for name in names), "no second directory in the locale's encoding"
    assert os.readlink(directory / "模型") == f"{daemon.root}/挂载点/cache_hub_v23"
    assert f"locale {locale['LC_ALL'].encode()!r} {'utf8' if 'PYTHONUTF8' in locale else ''}".rstrip() in [
        event["text"].rstrip() for event in daemon.events("app says")
    ]
    status = daemon.cli("status", environment=locale)
    assert (status.code, "挂载点" in status.out) == (0, True), status

    source = daemon.root / "来源"
    shutil.copytree(store.directory / hub.BUCKET / "cache_hub_v22", source)
    (source / "声音 é.txt").write_text("试")
    for key, value in locale.items():
        monkeypatch.setenv(key, value)
    done = publish(daemon, source, "v24")
    assert done.code == 0, done
    assert (at(store, "v24") / "声音 é.txt").read_text() == "试"
    assert daemon.cli("switch", "v24", "--reason", "试一试").code == 0
    assert "试一试" in daemon.cli("history").out
