"""What a real rclone reads, lists and obscures, against what mountd believes of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import CannotStart
from mountd.rclone import binary, conf
from mountd.rclone.binary import obscure
from mountd.rclone.conf_file import ConfFile, SecretChange
from mountd.settings import profiles
from mountd.settings.schema import Settings
from tests.support.s3 import RCLONE

VALUES = [
    *("plain", " lead", "trail ", " ", "a#b", "#a", "a;b", ";a", "a=b", "=a", "a:b", ":a", "[x]", "-", ""),
    *('"q"', '"', '""', '"""', '"""a', '"""a"""', '""""""', "'q'", "`", "`a", "a`", "``", "`a`", "`a`b`", "``a``"),
    *("%", "%%", "100%", "%s", "%(", "%()s", "%(a)d", "\\", "a\\", "a\\nb", "$HOME", "${HOME}", "~/x", "{a}", "(a)"),
    *("ключ 声音", "\u00a0nbsp\u00a0", "\u3000x\u3000", "\u2028x", "x\u2029", "\ufeffx", "é", "e\u0301", "👍", "a  b"),
    "!@#$%^&*()_+-={}[]|\\:\";'<>?,./`~",
    "x" * 5000,
]


def run(path: Path, *words: str) -> str:
    argv = [str(path), *words]
    return subprocess.run(
        argv, env=binary.clean_environment(), capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_rclone_reads_back_exactly_what_went_in(tmp_path: Path) -> None:
    remotes = {f"r{number}": {"type": "s3", "secret_access_key": each, "zz": "z"} for number, each in enumerate(VALUES)}
    file = tmp_path / "rclone.conf"
    file.write_text(conf.render(remotes), "utf-8")
    assert json.loads(run(RCLONE, "--config", str(file), "config", "dump")) == remotes


def test_what_is_refused_is_really_changed(tmp_path: Path) -> None:
    file = tmp_path / "rclone.conf"
    for written in ("%(type)s", "`%(type)s`", '"""%(type)s"""'):
        file.write_text(f"[r]\ntype = s3\nx = {written}\n")
        assert json.loads(run(RCLONE, "--config", str(file), "config", "dump"))["r"]["x"] == "s3"


def test_features() -> None:
    found = binary.find(RCLONE)
    assert found.version >= binary.OLDEST
    common = {
        "s3-no-check-bucket",
        "vfs-cache-mode",
        "devname",
        "use-json-log",
        "log-level",
        "config",
        "rc-addr",
        "uid",
        "vfs-cache-min-free-space",
    }
    assert common | {"ca-cert", "cache-dir", "read-only", "allow-other", "verbose"} <= found.flags
    names = {name for each in profiles.PROFILES for name in profiles.flags(each, "s3")}
    assert names - profiles.MAY_LACK <= found.flags
    assert not {"group", "help", "no-such-flag"} & found.flags
    assert found.password_options["sftp"] == {"pass", "key_file_pass"}
    assert found.password_options["s3"] == frozenset()
    assert {"access_key_id", "env_auth"} <= found.known_options["s3"]


async def test_a_password_survives_obscuring() -> None:
    for password in ("hunter2", " spaced ", "-dash", "ключ", 'a"b\\c'):
        hidden = await obscure(binary.find(RCLONE), password)
        assert password not in hidden
        assert (await asyncio.to_thread(run, RCLONE, "reveal", "--", hidden)) == password + "\n"


def settings(remotes: dict[str, Any]) -> Settings:
    mount = {"remote": "s:bkt", "path": "/mnt/x", "cache": {"dir": "/var/x"}}
    own: dict[str, Any] = {"control": {"socket": "/run/x/s"}, "state": "/var/y", "runtime": "/run/x"}
    return Settings.model_validate(own | {"remotes": remotes, "mounts": {"m": mount}})


async def test_the_file_follows_the_secrets(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    given = settings(
        {
            "s": {"type": "swift", "user": "me", "key": {"file": str(secret)}},
            "f": {"type": "sftp", "host": "h", "pass": {"file": str(secret)}},
        },
    )
    file = ConfFile(tmp_path / "private" / "rclone.conf", binary.find(RCLONE))
    written = await file.write(given)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    text, identity, has = file.path.read_text(), file.path.stat().st_ino, written["s"]
    assert "first" not in repr(has)
    assert text.count("first") == 1, "the password is obscured, the key is not"
    assert "first" in file.secrets
    assert len(file.secrets) == 2

    await file.write(given)
    assert file.path.stat().st_ino == identity
    assert (await file.refresh(given, "s", has)).change is SecretChange.NOTHING

    secret.write_text("second\n")
    assert (await file.refresh(given, "s", has)).change is SecretChange.REMOUNT
    await file.write(given)
    dump = json.loads(await asyncio.to_thread(run, RCLONE, "--config", str(file.path), "config", "dump"))
    assert dump["s"]["key"] == "second"
    assert await asyncio.to_thread(run, RCLONE, "reveal", "--", dump["f"]["pass"]) == "second\n"
    assert sorted(os.listdir(file.path.parent)) == ["rclone-written.json", "rclone.conf"]

    file.path.chmod(0o644)
    await file.write(given)
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.unlink()
    await file.write(given)
    assert file.path.exists()


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = ConfFile(tmp_path / "file" / "rclone.conf", binary.find(RCLONE))
    with pytest.raises(CannotStart, check=lambda error: error.code == "conf-unwritable"):
        await file.write(settings({"s": {"type": "local"}}))


async def test_an_obscure_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.rclone.binary.DEADLINE_S", 0.2)
    sleeper = tmp_path / "rclone"
    sleeper.write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 60\n")
    sleeper.chmod(0o755)
    with pytest.raises(CannotStart, match=r"0\.2 s$") as failed:
        await obscure(binary.Binary(sleeper, (1, 75, 2), frozenset()), "x")
    assert failed.value.code == "rclone-unusable"
