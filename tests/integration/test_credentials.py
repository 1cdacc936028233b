"""S3 keys change under a mount that goes on: rclone reads with the new ones without a remount."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mountd.demo import hub
from mountd.errors import CannotStart
from mountd.rclone import credentials
from mountd.rclone.conf_file import SecretChange
from tests.support.daemon import Daemon
from tests.support.keyed_mount import FILES, TAKEN_S, Mounted, cat, conf_file, mounted, put, s3, settings
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

NEW = ("ROTATEDKEY0000002", "a-second-secret-0002")
STILL_S = 8.0
"""For how long a change has to stay the same here, so that a busy machine gets there in time."""


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[RcloneS3]:
    """A store with many small files: each can be read uncached once."""
    root = tmp_path / "data" / "bkt"
    root.mkdir(parents=True)
    for number in range(FILES):
        (root / f"f{number:02}").write_text(f"content {number}")
    with RcloneS3(root.parent) as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path, bucket: RcloneS3) -> Path:
    """A directory with a file for each part of the key, as secrets are mounted."""
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    put(directory, bucket.access_key_id, bucket.secret_access_key)
    return directory


async def test_rotated_keys_are_taken_by_a_running_mount(tmp_path: Path, bucket: RcloneS3, keys: Path) -> None:
    async with mounted(tmp_path, settings(tmp_path, {"store": s3(bucket.endpoint, keys)})) as mount:
        assert await asyncio.to_thread(mount.read)
        assert await mount.refresh() is SecretChange.NOTHING
        text = mount.conf.path.read_text()
        assert bucket.secret_access_key not in text

        await asyncio.to_thread(bucket.set_keys, *NEW)
        with pytest.raises(subprocess.CalledProcessError):
            await asyncio.to_thread(mount.read)
        put(keys, *NEW)
        assert await mount.refresh() is SecretChange.LIVE
        await mount.reads_again(time.monotonic())
        assert await mount.refresh() is SecretChange.NOTHING
        assert mount.conf.path.read_text() == text, "rclone.conf is as it was"

        log = mount.log.read_text()
        for secret in (NEW[1], "mountd-test-secret-0001"):
            assert secret not in mount.argv + log
            assert secret in mount.conf.secrets
        for path in mount.conf.path.parent.iterdir():
            if path != mount.log:
                assert path.stat().st_mode & 0o777 == 0o600, path
        assert mount.conf.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.thorough
async def test_parts_of_a_key_that_are_rotated_one_after_the_other(
    tmp_path: Path, bucket: RcloneS3, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mountd.rclone.conf_file.SETTLED_S", STILL_S)
    monkeypatch.setattr("mountd.rclone.conf_file.SETTLING_LIMIT_S", 2 * STILL_S)
    async with mounted(tmp_path, settings(tmp_path, {"store": s3(bucket.endpoint, keys)})) as mount:
        assert await asyncio.to_thread(mount.read)
        before = mount.conf.path.with_name(credentials.keys_name("store")).read_text()
        (keys / "id").write_text(NEW[0])
        refreshing = asyncio.create_task(mount.refresh())
        await asyncio.sleep(0.5)  # well within the time that a change has to stay the same
        assert mount.conf.path.with_name(credentials.keys_name("store")).read_text() == before
        assert await asyncio.to_thread(mount.read), "the old pair is used as long as the new one is not whole"
        (keys / "secret").write_text(NEW[1])
        assert await refreshing is SecretChange.LIVE
        await asyncio.to_thread(bucket.set_keys, *NEW)
        await mount.reads_again(time.monotonic())

        monkeypatch.undo()
        # Too slow to be seen as one change: a moment without access, repaired by the next look.
        third = ("ROTATEDKEY0000003", "a-third-secret-00003")
        (keys / "id").write_text(third[0])
        assert await mount.refresh() is SecretChange.LIVE
        await asyncio.to_thread(bucket.set_keys, *third)
        (keys / "secret").write_text(third[1])
        assert await mount.refresh() is SecretChange.LIVE
        await mount.reads_again(time.monotonic())


@pytest.mark.thorough
async def test_the_start_of_another_mount_gives_nobody_half_a_rotated_key(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both mounts are on the store, and rclone of the one that runs takes what stands in its file."""
    monkeypatch.setattr("mountd.rclone.conf_file.SETTLED_S", STILL_S)
    monkeypatch.setattr("mountd.rclone.conf_file.SETTLING_LIMIT_S", 2 * STILL_S)
    conf, given = conf_file(tmp_path), settings(tmp_path, {"store": s3("http://127.0.0.1:1", keys)})
    file = conf.path.with_name(credentials.keys_name("store"))
    before = (await conf.write(given))["store"]
    text = file.read_text()
    began = time.monotonic()
    await conf.write(given)
    assert file.read_text() == text
    assert time.monotonic() - began < STILL_S, "nothing has changed: there is nothing to wait for"
    (keys / "id").write_text(NEW[0])
    starting = asyncio.create_task(conf.write(given))
    await asyncio.sleep(0.5)  # well within the time that a change has to stay the same
    assert file.read_text() == text
    (keys / "secret").write_text(NEW[1])
    written = await starting
    assert (NEW[0] in file.read_text(), NEW[1] in file.read_text()) == (True, True)
    refreshed = await conf.refresh(given, "store", before)  # the one that runs gets them as well
    assert (refreshed.change, refreshed.has) == (SecretChange.LIVE, written["store"])


async def test_a_secret_that_is_away_for_a_moment_changes_nothing(tmp_path: Path, bucket: RcloneS3, keys: Path) -> None:
    given = settings(tmp_path, {"store": s3(bucket.endpoint, tmp_path / "current")})
    versions = [tmp_path / "v1", tmp_path / "v2"]
    for version, pair in zip(versions, ((bucket.access_key_id, bucket.secret_access_key), NEW), strict=True):
        version.mkdir()
        put(version, *pair)
    (tmp_path / "current").symlink_to("v1")
    async with mounted(tmp_path, given) as mount:
        secret = versions[0] / "secret"
        for spoil in (secret.unlink, lambda: secret.write_text(""), lambda: secret.write_bytes(b"\xff\xfe")):
            spoil()
            with pytest.raises(CannotStart, check=lambda error: error.code == "secret-missing"):
                await mount.refresh()
            assert await asyncio.to_thread(mount.read)
        # A new rclone starts with what was known, as the secret may be back in a moment.
        file = mount.conf.path.with_name(credentials.keys_name("store"))
        before = file.read_text()
        await mount.conf.write(given)
        assert file.read_text() == before
        put(versions[0], bucket.access_key_id, bucket.secret_access_key)
        assert await mount.refresh() is SecretChange.NOTHING

        # As Kubernetes does: another directory behind the link, all parts at once.
        await asyncio.to_thread(bucket.set_keys, *NEW)
        (tmp_path / "next").symlink_to("v2")
        os.replace(tmp_path / "next", tmp_path / "current")
        assert await mount.refresh() is SecretChange.LIVE
        await mount.reads_again(time.monotonic())


async def test_a_session_token_appears_changes_and_goes(tmp_path: Path, bucket: RcloneS3, keys: Path) -> None:
    (keys / "token").write_text("STS-TOKEN-1")
    with Proxy(bucket.endpoint) as proxy:
        without = settings(tmp_path, {"store": s3(proxy.endpoint, keys)})
        token = {"file": str(keys / "token")}
        with_token = settings(tmp_path, {"store": s3(proxy.endpoint, keys, session_token=token)})

        def sends(mount: Mounted, expected: str | None) -> Callable[[], bool]:
            def sent() -> bool:
                proxy.reset_counts()
                assert mount.read()
                said = [
                    {name.lower(): value for name, value in each.headers.items()}.get("x-amz-security-token")
                    for each in proxy.counts.exchanges
                ]
                return bool(said) and set(said) == {expected}

            return sent

        async with mounted(tmp_path, without) as mount:
            await asyncio.to_thread(until, sends(mount, None), TAKEN_S, "no token", 0.5)
            mount.settings = with_token
            assert await mount.refresh() is SecretChange.LIVE
            await asyncio.to_thread(until, sends(mount, "STS-TOKEN-1"), TAKEN_S, "the token", 0.5)
            (keys / "token").write_text("STS-TOKEN-2")
            assert await mount.refresh() is SecretChange.LIVE
            await asyncio.to_thread(until, sends(mount, "STS-TOKEN-2"), TAKEN_S, "the next token", 0.5)
            mount.settings = without
            assert await mount.refresh() is SecretChange.LIVE
            await asyncio.to_thread(until, sends(mount, None), TAKEN_S, "no token again", 0.5)


async def test_wrapped_remotes_and_secrets_that_need_a_remount(tmp_path: Path, bucket: RcloneS3, keys: Path) -> None:
    """A union over two S3 remotes with keys of their own, beside keys and profiles of others in the environment."""
    second = tmp_path / "second"
    second.mkdir()
    put(second, bucket.access_key_id, bucket.secret_access_key)
    (tmp_path / "key").write_text("one")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("=\n[[\n")
    given = settings(
        tmp_path,
        {
            "store": s3(bucket.endpoint, keys),
            "second": s3(bucket.endpoint, second),
            "both": {"type": "combine", "upstreams": "a=store:bkt b=second:bkt"},
            "other": {"type": "swift", "user": "me", "key": {"file": str(tmp_path / "key")}},
            "unrelated": {"type": "swift", "user": "me", "key": {"file": str(tmp_path / "key")}},
            "over": {"type": "union", "upstreams": "store:bkt other:x:nc"},
        },
        "both:",
    )
    foreign = {"AWS_ACCESS_KEY_ID": "FOREIGN", "AWS_SECRET_ACCESS_KEY": "f", "AWS_PROFILE": "f", "HOME": str(tmp_path)}
    async with mounted(tmp_path, given, foreign) as mount:
        assert await asyncio.to_thread(cat, mount.mount.path / "a" / "f00") == b"content 0"
        assert await asyncio.to_thread(cat, mount.mount.path / "b" / "f01") == b"content 1"
        await asyncio.to_thread(bucket.set_keys, *NEW)
        put(keys, *NEW)
        put(second, *NEW)
        assert await mount.refresh() is SecretChange.LIVE
        for place, number in (("a", 2), ("b", 3)):
            path = mount.mount.path / place / f"f{number:02}"
            found = await asyncio.to_thread(until, lambda path=path: cat(path), TAKEN_S, "new keys", 0.5)
            assert found == f"content {number}".encode()

        (tmp_path / "key").write_text("two")
        assert await mount.refresh() is SecretChange.NOTHING, "not a secret of this mount"
        over = (await mount.conf.write(given))["over"]
        (tmp_path / "key").write_text("three")
        put(keys, "ROTATEDKEY0000003", "a-third-secret-00003")
        refreshed = await mount.conf.refresh(given, "over", over)
        assert refreshed.change is SecretChange.REMOUNT
        assert "a-third-secret-00003" in mount.conf.path.with_name("aws-store.json").read_text()
        assert (await mount.conf.refresh(given, "over", refreshed.has)).change is SecretChange.REMOUNT, (
            "until it is done"
        )


async def test_a_new_secret_of_the_same_key_id_may_need_a_new_rclone(
    tmp_path: Path, bucket: RcloneS3, keys: Path
) -> None:
    """Its SDK goes on signing with the old one, known by the key id: when the store refuses, that is why."""
    given = settings(tmp_path, {"store": s3(bucket.endpoint, keys)})
    conf = conf_file(tmp_path)
    has = (await conf.write(given))["store"]
    assert not (await conf.refresh(given, "store", has)).resigned
    put(keys, bucket.access_key_id, "another-secret-0002")
    first = await conf.refresh(given, "store", has)
    assert (first.change, first.resigned) == (SecretChange.LIVE, True)
    assert (await conf.refresh(given, "store", first.has)).resigned, "as long as it goes with that rclone"
    put(keys, *NEW)
    other = await conf.refresh(given, "store", first.has)
    assert (other.change, other.resigned) == (SecretChange.LIVE, False)
    assert not (await conf.refresh(given, "store", other.has)).resigned


# -- through the daemon -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_daemon_passes_rotated_keys_on_without_a_restart_of_anything(
    make_daemon: Callable[..., Daemon], store: RcloneS3
) -> None:
    daemon = make_daemon()
    directory = daemon.root / "keys"
    directory.mkdir(mode=0o700)
    put(directory, store.access_key_id, store.secret_access_key)
    remote = daemon.config["remotes"]["store"]
    remote["access_key_id"] = {"file": str(directory / "id")}
    remote["secret_access_key"] = {"file": str(directory / "secret")}
    before = daemon.start_ready()
    unread = iter(
        path.relative_to(store.directory / hub.BUCKET)
        for path in sorted((store.directory / hub.BUCKET / "cache_hub_v22").rglob("*"))
        if path.is_file()
    )

    def reads(path: Path) -> bool:
        return cat(daemon.mount / path) == (store.directory / hub.BUCKET / path).read_bytes()

    assert reads(next(unread))
    secrets_used = [store.secret_access_key]
    for pair in (NEW, ("ROTATEDKEY0000003", "a-third-secret-00003")):
        store.set_keys(*pair)
        put(directory, *pair)
        changed = time.monotonic()
        path = next(unread)
        until(
            partial(reads, path),
            TAKEN_S,
            "reads with the new keys",
            every_s=0.25,
        )
        print(f"reads work {time.monotonic() - changed:.1f} s after the keys were changed")
        secrets_used.append(pair[1])
    after = daemon.until_ready()
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    assert after["mounts"]["storage"]["restarts"] == 0
    assert after["apps"]["webui"]["pid"] == before["apps"]["webui"]["pid"]

    argv = b"".join(daemon.command_lines().values()).decode()
    said = argv + daemon.log_text() + daemon.cli("logs", "storage").out
    readable = [path for path in (daemon.root / "run").rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    for secret in secrets_used:
        assert secret not in said
        assert all(secret not in path.read_text(errors="replace") for path in readable)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_new_secret_of_the_same_key_id_is_used_after_a_remount(daemon: Daemon, store: RcloneS3) -> None:
    daemon.start_ready()
    pair = (store.access_key_id, "another-secret-0002")
    store.set_keys(*pair)
    daemon.secret.write_text(pair[1])
    root = store.directory / hub.BUCKET
    path = next(each for each in (root / "cache_hub_v22").rglob("*") if each.is_file())
    seen = daemon.mount / path.relative_to(root)
    until(lambda: cat(seen) == path.read_bytes(), 60, "what was not cached to be read", every_s=1.0)
    # It can be read a moment before the start is over, which counts the restart.
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "one restart")
    daemon.until_ready(60)
