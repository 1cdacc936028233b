"""rclone.conf while secrets are being rotated: what counts, how long it is waited for, and what is behind a remote."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.rclone import conf_file, private_file
from mountd.rclone.conf_file import SecretChange, record_path
from tests.unit.test_conf_file import DRIVE, Written, written

__all__ = ["written"]

LOOK_S = 0.1


class Turning:
    """A clock that a look at the two parts of a key moves by LOOK_S, and what happens in between."""

    def __init__(self, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._root, self._lock = written.root, threading.Lock()
        self._read = written.conf.read_secrets
        written.conf.read_secrets = self._look
        monkeypatch.setattr(conf_file, "SETTLED_S", 1.0)
        monkeypatch.setattr(conf_file, "time", SimpleNamespace(monotonic=lambda: self.now))

    async def _look(self, secrets: Any) -> dict[str, str]:
        self.now += LOOK_S / 2
        await asyncio.to_thread(self.happen)
        return await self._read(secrets)

    def happen(self) -> None:
        """At each look."""

    def put(self, name: str, value: str) -> None:
        """As a whole, while it may be read."""
        with self._lock:
            (self._root / "new").write_text(value)
            (self._root / "new").rename(self._root / name)


async def test_a_pair_whose_parts_change_one_after_the_other_counts_once_both_lie_still(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = await written.write()
    written.put("id", "second-id")
    clock = Turning(written, monkeypatch)

    def happen() -> None:
        if clock.now > 0.85:
            clock.put("secret", "second-secret")

    monkeypatch.setattr(clock, "happen", happen)
    found = await written.conf.refresh(written.settings(), "s", has["s"])
    assert (found.change, written.keys) == (SecretChange.LIVE, ("second-id", "second-secret"))
    assert clock.now > 1.85, "a second after the last change"


async def test_what_changes_all_the_time_holds_up_neither_a_look_nor_a_start(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = await written.write()
    clock, count = Turning(written, monkeypatch), 0

    def happen() -> None:
        nonlocal count
        count += 1
        clock.put("secret", f"secret-{count}")

    monkeypatch.setattr(clock, "happen", happen)
    found = await written.conf.refresh(written.settings(), "s", has["s"])
    assert (found.change, found.has, written.keys[1]) == (SecretChange.NOTHING, has["s"], "first-secret")
    assert conf_file.SETTLING_LIMIT_S < clock.now < conf_file.SETTLING_LIMIT_S + 1.0
    began = clock.now
    await written.write()
    assert clock.now - began < conf_file.SETTLING_LIMIT_S + 1.0
    assert written.keys[1] != "first-secret", "the newest there is"


async def test_a_start_writes_at_last_over_what_rclone_writes_all_the_time(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written.write(d=DRIVE)
    replace, careful = private_file.replace, list[bool]()

    def write(path: Path, text: str, *, expected: str | None = None) -> bool:
        if path.name == "rclone.conf":
            careful.append(expected is not None)
            if expected is not None:
                raise BlockingIOError
        return replace(path, text, expected=expected)

    monkeypatch.setattr(conf_file, "replace", write)
    await written.write(d=DRIVE | {"scope": "drive"})
    assert careful == [True] * conf_file.TRIES + [False]
    assert written.remotes["d"]["scope"] == "drive"


async def test_a_secret_that_stands_in_the_configuration_itself_is_hidden_as_well(written: Written) -> None:
    await written.write(p={"type": "s3", "secret_access_key": "plain-secret-value", "region": "eu-west-1"})
    assert "plain-secret-value" in written.conf.secrets
    assert "eu-west-1" not in written.conf.secrets


async def test_that_a_secret_cannot_be_read_is_logged_once_until_it_can(written: Written) -> None:
    await written.write()
    with capture_logs() as logs:
        for there in (False, False, True, False):
            if there:
                written.put("secret", "first-secret")
            else:
                (written.root / "secret").unlink(missing_ok=True)
            await written.write()
    assert [each["log_level"] for each in logs] == ["warning", "warning"]


async def test_the_secrets_of_a_remote_are_those_of_what_it_wraps_as_well(written: Written) -> None:
    wrapping = {"type": "crypt", "remote": "s:b", "password": {"file": str(written.root / "pass")}}
    settings = written.settings(c=wrapping)
    has = (await written.conf.write(settings))["c"]
    written.put("secret", "second-secret")
    written.put("id", "second-id")
    found = await written.conf.refresh(settings, "c", has)
    assert (found.change, written.keys) == (SecretChange.LIVE, ("second-id", "second-secret"))
    written.put("pass", "second-pass")
    assert (await written.conf.refresh(settings, "c", found.has)).change is SecretChange.REMOUNT


def test_where_tokens_are_remembered_stays_the_same_over_versions_of_mountd() -> None:
    assert record_path(Path("/var/lib/mountd")) == Path("/var/lib/mountd/private/rclone-written.json")
