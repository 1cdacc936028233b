"""What a container lacks is named by the flag that gives it, and only there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd import container
from mountd.cache import guard
from mountd.errors import ConfigError, MountdError
from mountd.model import link
from mountd.model.drift import LinkBlocked
from mountd.process import directories, way
from mountd.process.instance import Instance
from mountd.settings.load import load

INSIDE = pytest.mark.parametrize("inside", [True, False])


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(container, "MARKS", ())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("container", raising=False)
    if "inside" not in request.fixturenames or request.getfixturevalue("inside"):
        monkeypatch.setenv("container", "oci")


@pytest.mark.parametrize(
    ("number", "volume", "words"),
    [
        (errno.EROFS, "", ["read-only", "--tmpfs /run/mountd"]),
        (errno.EROFS, "mountd-state", ["--volume mountd-state:/run/mountd"]),
        (errno.EACCES, "", [f"uid {os.geteuid()}", "--user 0", "--tmpfs /run/mountd"]),
        (errno.EPERM, "mountd-state", ["fsGroup", "--volume mountd-state:/run/mountd"]),
        (errno.ENOSPC, "", []),
    ],
)
def test_a_directory(number: int, volume: str, words: list[str]) -> None:
    hint = container.for_directory(Path("/run/mountd"), OSError(number, os.strerror(number)), volume=volume)
    assert [word for word in words if word not in hint] == []
    assert bool(hint) == bool(words)


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@INSIDE
def test_state_and_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    monkeypatch.setattr(directories, "make", failing(errno.EROFS))
    with pytest.raises(MountdError) as refused:
        Instance.create(tmp_path / "state", tmp_path / "run")
    assert refused.value.exit_code == 1
    assert (f"--tmpfs {tmp_path / 'run'}" in refused.value.hint) is inside
    (tmp_path / "run" / "private").mkdir(parents=True)
    monkeypatch.setattr(directories, "make", lambda path, _: failing(errno.EROFS)() if path.name == "state" else None)
    with pytest.raises(MountdError) as refused:
        Instance.create(tmp_path / "state", tmp_path / "run")
    assert (f"--volume mountd-state:{tmp_path / 'state'}" in refused.value.hint) is inside


@INSIDE
def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    monkeypatch.setattr(directories, "make", failing(errno.EROFS))
    with pytest.raises(MountdError) as refused:
        guard.lock_cache(tmp_path / "cache")
    assert refused.value.code == "cache-not-writable"
    assert (f"--volume mountd-cache:{tmp_path / 'cache'}" in refused.value.hint) is inside


@INSIDE
def test_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    monkeypatch.setattr(way, "open_directory", failing(errno.EROFS))
    with pytest.raises(LinkBlocked) as refused:
        link.prove(tmp_path / "cache_hub", "/mnt")
    assert ("--tmpfs" in refused.value.hint) is inside


@INSIDE
def test_configuration(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / "mountd.yaml"
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert refused.value.exit_code == 2
    assert (f":{tmp_path}:ro" in refused.value.hint) is inside
    with pytest.raises(ConfigError) as refused:
        load(tmp_path)
    assert ":ro" not in refused.value.hint, "it is there, and no file"
