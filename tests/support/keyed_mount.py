"""A mount whose keys are in files, by an rclone that is started and given new keys as mountd does it."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mountd.rclone import binary
from mountd.rclone.command import CacheSize, Launch, RcAddress, mount_command
from mountd.rclone.conf_file import ConfFile, RemoteSecrets, SecretChange
from mountd.settings.schema import Settings
from tests.support import dies_with_us
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.wait import until

TAKEN_S = 60.0
FILES = 200


def put(directory: Path, access_key_id: str, secret_access_key: str) -> None:
    (directory / "id").write_text(access_key_id + "\n")
    (directory / "secret").write_text(secret_access_key + "\n")


def s3(endpoint: str, keys: Path, **more: Any) -> dict[str, Any]:
    return {
        "type": "s3",
        "provider": "Other",
        "endpoint": endpoint,
        "access_key_id": {"file": str(keys / "id")},
        "secret_access_key": {"file": str(keys / "secret")},
        **more,
    }


def settings(tmp_path: Path, remotes: dict[str, dict[str, Any]], source: str = "store:bkt") -> Settings:
    mount = {"remote": source, "path": str(tmp_path / "mnt"), "cache": {"dir": str(tmp_path / "cache")}}
    own = {"control": {"socket": "/run/x/s"}, "state": str(tmp_path / "state"), "runtime": str(tmp_path / "run")}
    return Settings.model_validate({**own, "remotes": remotes, "mounts": {"m": mount}})


def conf_file(tmp_path: Path) -> ConfFile:
    # A path that the shell and the AWS SDK take apart unless it is quoted.
    return ConfFile(tmp_path / "run it's #1" / "private" / "rclone.conf", binary.find(BUNDLED_RCLONE))


class Mounted:
    """An rclone over the files of a ConfFile, as `Engine` starts and refreshes it."""

    def __init__(self, conf: ConfFile, given: Settings, environment: dict[str, str]) -> None:
        self.conf, self.settings = conf, given
        self.mount = given.mounts["m"]
        self._environment = environment
        self._read = 0
        self.given = RemoteSecrets()

    async def start(self) -> None:
        self.given = (await self.conf.write(self.settings))[self.mount.remote_name]
        found = binary.find(BUNDLED_RCLONE)
        self.mount.path.mkdir(exist_ok=True)
        launch = Launch(
            binary=found,
            conf=self.conf.path,
            devname=f"mountd:{secrets.token_hex(4)}:m",
            allow_other=False,
            rc=RcAddress("mountd", secrets.token_hex(8), self.mount.path.with_name("rc")),
            cache=CacheSize(1 << 30, 1 << 20),
        )
        command = mount_command(self.settings, "m", launch, self._environment)
        self.argv = " ".join(command.argv)
        self.log = self.conf.path.with_name("log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                dies_with_us(list(command.argv)), env=dict(command.environment), stderr=log, cwd="/"
            )
        await asyncio.to_thread(until, self.is_mounted, 60, "the mount")

    def is_mounted(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return f" {self.mount.path} " in Path("/proc/self/mountinfo").read_text()

    def stop(self) -> None:
        self.process.kill()
        subprocess.run(["fusermount3", "-uzq", str(self.mount.path)], check=False, capture_output=True)
        self.process.wait()

    def read(self) -> bool:
        """Whether a file that was never read gives its bytes; each try takes another one."""
        number = self._read
        self._read += 1
        assert number < FILES, f"no file left to try:\n{self.log.read_text()[-3000:]}"
        return cat(self.mount.path / f"f{number:02}") == f"content {number}".encode()

    async def refresh(self) -> SecretChange:
        refreshed = await self.conf.refresh(self.settings, self.mount.remote_name, self.given)
        self.given = refreshed.has
        return refreshed.change

    async def reads_again(self, since: float) -> float:
        """How long after `since` (monotonic) a read of an uncached file worked."""
        await asyncio.to_thread(until, self.read, TAKEN_S - (time.monotonic() - since), "a read with new keys", 0.5)
        return time.monotonic() - since


def cat(path: Path) -> bytes:
    """In a child with a deadline: a mount that hangs must not hang the test."""
    return subprocess.run(["cat", str(path)], capture_output=True, timeout=60, check=True).stdout


@asynccontextmanager
async def mounted(tmp_path: Path, given: Settings, environment: dict[str, str] | None = None) -> AsyncIterator[Mounted]:
    mount = Mounted(conf_file(tmp_path), given, {**os.environ, **(environment or {})})
    await mount.start()
    try:
        yield mount
    finally:
        await asyncio.to_thread(mount.stop)
