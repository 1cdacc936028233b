"""What doctor finds out about an app, without touching itself what may lie on a mount that hangs."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.cli import examine
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
USER = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A directory where a mount would be, with a program on it."""
    program = tmp_path / "mnt" / "app" / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path / "mnt"


def settings(mount: Path, **app: Any) -> Settings:
    given = {"command": ["bin/program"], "directory": str(mount / "app"), **app}
    text = f"""
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: {mount}}}}}
apps: {{a: {given!r}}}
"""
    return parse(text, "test.yaml", PLACES).settings


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that this process itself asks the system about."""
    paths: list[str] = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        def note(path: Any, *words: Any, **keys: Any) -> Any:
            paths.append(str(path))
            return real(path, *words, **keys)

        return note

    for name in ("stat", "lstat", "access", "listdir", "scandir"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return paths


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started may get no processor for a while."""
    for name in ("TOUCH_TIMEOUT_S", "ACCESS_TIMEOUT_S"):
        monkeypatch.setattr(examine, name, 60.0)


def on_mount(touched: list[str], mount: Path) -> list[str]:
    return [path for path in touched if path.startswith(str(mount))]


@pytest.mark.parametrize(
    ("app", "result", "named"),
    [
        ({}, "ok", "{mount}/app/bin/program"),
        ({"command": ["program"], "environment": {"PATH": "{mount}/app/bin"}}, "ok", "{mount}/app/bin/program"),
        ({"command": ["sh"]}, "ok", "/sh"),
        ({"command": ["bin/other"]}, "fail", "bin/other"),
        ({"directory": "{mount}/other"}, "fail", "{mount}/other"),
        ({"user": USER}, "ok", "{mount}/app/bin/program"),
        ({"user": "mountd-t-nobody"}, "fail", "mountd-t-nobody"),
    ],
)
async def test_an_app_is_looked_at_from_outside(
    mount: Path, touched: list[str], monkeypatch: pytest.MonkeyPatch, app: dict[str, Any], result: str, named: str
) -> None:
    def asked(_: str) -> Any:
        raise AssertionError("a directory service may hang")

    monkeypatch.setattr(pwd, "getpwnam", asked)

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(each) for key, each in value.items()}
        return value.replace("{mount}", str(mount)) if isinstance(value, str) else value

    (check,) = await examine.apps(settings(mount, **placed(app)))
    assert check.result == result
    assert named.format(mount=mount) in check.text
    assert bool(check.hint) is (result == "fail")
    assert on_mount(touched, mount) == []


async def test_a_mount_that_hangs_costs_its_deadline(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that sleeps stands for one that hangs on it."""
    monkeypatch.setattr(examine, "TOUCH_TIMEOUT_S", 0.3)
    monkeypatch.setattr(examine, "_LOOK_FOR_APP", "import time; time.sleep(600)")
    async with asyncio.timeout(60):
        (check,) = await examine.apps(settings(mount))
    assert check.result == "fail"
    assert [word in check.text for word in ("0.3 s", "bin/program", f"{mount}/app")] == [True] * 3
    assert check.hint


async def test_access_is_tried_from_outside_too(mount: Path, touched: list[str]) -> None:
    for needs in ([], ["m"]):
        (check,) = await examine.access(settings(mount, user=USER, needs=needs), running=True)
        assert check.result == "ok"
        assert on_mount(touched, mount) == []
    gone = settings(mount, user=USER, directory=str(mount / "other" / "app"))
    (check,) = await examine.access(gone, running=True)
    assert check.result == "fail"
    assert check.text.endswith(f" {mount}/other")
    assert USER in check.text
    assert on_mount(touched, mount) == []
