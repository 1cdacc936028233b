"""An rclone that signs with the old secret of its key: when a new one is needed, and when it has to wait."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from mountd.mount.engine import Engine
from mountd.process.instance import Instance
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile, SecretChange
from mountd.settings.schema import Settings
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.wait import until

API = "operation error S3: GetObject, https response error StatusCode: 403, RequestID: , HostID: , api error {}"
SIGNATURE = API.format("SignatureDoesNotMatch: The request signature we calculated does not match")
OTHERS = (
    "v1/a.bin: vfs cache: failed to open cache file: open /cache/vfs/a.bin: permission denied",
    f"v1/secret.bin: ReadFileHandle.Read error: {API.format('AccessDenied: Access Denied')}",
)

Says = Callable[[str], Coroutine[Any, Any, None]]


@pytest_asyncio.fixture
async def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An Engine whose program logs what it is given, after its key id got another secret."""
    monkeypatch.setattr("mountd.rclone.conf_file.SETTLED_S", 0.0)
    monkeypatch.setattr("mountd.mount.engine.RESIGNED_S", 0.0)
    monkeypatch.setattr(binary, "DEADLINE_S", 60.0)
    program, log, secret = tmp_path / "rclone", tmp_path / "log", tmp_path / "secret"
    program.write_text(f"#!/bin/sh\nexec tail -n +1 -f {log} >&2\n")
    program.chmod(0o755)
    log.touch()
    secret.write_text("the-first-secret")
    settings = Settings.model_validate(
        {
            "remotes": {
                "r": {
                    "type": "s3",
                    "provider": "Other",
                    "endpoint": "http://127.0.0.1:1",
                    "access_key_id": "AKID",
                    "secret_access_key": {"file": str(secret)},
                }
            },
            "mounts": {"m": {"remote": "r:bkt", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    found = replace(binary.find(BUNDLED_RCLONE), path=program)
    instance = Instance.of(settings.state, settings.runtime)
    instance.private.mkdir(parents=True, mode=0o700)
    settings.state.mkdir(exist_ok=True)
    engine = Engine("m", settings, instance, found, ConfFile(tmp_path / "rclone.conf", found))
    heard: list[str] = []
    engine.follow(heard.append)

    async def says(text: str) -> None:
        with log.open("a") as file:
            file.write(f"2026/11/29 12:00:00 ERROR : {text}\n")
        await asyncio.to_thread(until, lambda: text in heard, 60.0, text)

    child = await engine.spawn()
    try:
        secret.write_text("another-secret")
        assert await engine.refresh_secrets() is SecretChange.LIVE
        yield engine, says
    finally:
        child.signal(signal.SIGKILL)
        await child.wait()
        await engine.close()


async def test_a_refused_signature_needs_a_new_rclone_once_the_bucket_answers(rclone: tuple[Engine, Says]) -> None:
    engine, says = rclone
    assert not engine.signs_with_old_secret(usable=True)
    await says(SIGNATURE)
    assert engine.signs_with_old_secret(usable=True)
    assert not engine.signs_with_old_secret(usable=False), "an outage: a new one could not serve what is cached"


async def test_what_is_forbidden_for_another_reason_needs_none(rclone: tuple[Engine, Says]) -> None:
    engine, says = rclone
    for each in OTHERS:
        await says(each)
    assert not engine.signs_with_old_secret(usable=True)


async def test_the_time_that_rclone_may_need_for_a_new_secret_is_counted_once(
    rclone: tuple[Engine, Says], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the store's refusal makes mountd look again meanwhile."""
    engine, _ = rclone
    assert engine._resigned_at is not None
    now = engine._resigned_at
    monkeypatch.setattr("mountd.mount.engine.RESIGNED_S", 60.0)
    monkeypatch.setattr("mountd.mount.engine.time", SimpleNamespace(monotonic=lambda: now))
    seen = []
    for _ in range(4):
        now += 25.0
        seen.append(await engine.has_stale_secrets())
    assert seen == [False, False, True, True]


async def test_a_new_rclone_has_nothing_to_do_with_what_the_one_before_was_refused(rclone: tuple[Engine, Says]) -> None:
    """Else it would be replaced repeatedly."""
    engine, says = rclone
    await says(SIGNATURE)
    assert engine.signs_with_old_secret(usable=True)
    assert engine.child is not None
    engine.child.signal(signal.SIGKILL)
    await engine.child.wait()
    child = await engine.spawn()
    try:
        assert not engine.signs_with_old_secret(usable=True)
        assert not await engine.has_stale_secrets()
    finally:
        child.signal(signal.SIGKILL)
        await child.wait()
