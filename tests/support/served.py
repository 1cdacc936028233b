"""An rclone whose remote control gives objects of a bucket (`--rc-serve`), without a mount."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path

from mountd.errors import Unavailable
from mountd.rclone.command import RcAddress
from tests.support import dies_with_us
from tests.support.s3 import RCLONE, S3Server, environment
from tests.support.wait import until

START_S = 60.0


class ServedBucket:
    """Of `server`, asked at `endpoint`, as the remote `store:`; `address` is that of the process of now."""

    def __init__(self, server: S3Server, endpoint: str, home: Path) -> None:
        self._home = home
        home.mkdir()
        (home / "rclone.conf").write_text(
            f"[store]\ntype = s3\nprovider = Other\nendpoint = {endpoint}\nforce_path_style = true\n"
            f"access_key_id = {server.access_key_id}\nsecret_access_key = {server.secret_access_key}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def address(self) -> RcAddress:
        if self._process is None:
            raise Unavailable("no rclone runs")
        return self._address

    def start(self) -> None:
        """With another password each time."""
        self._address = RcAddress("mountd", secrets.token_hex(8), self._home / "rc")
        self._address.socket.unlink(missing_ok=True)
        argv = [str(RCLONE), "rcd", "--rc-serve", "--rc-addr", f"unix://{self._address.socket}"]
        argv += ["--config", str(self._home / "rclone.conf"), "--s3-no-check-bucket", "--use-server-modtime"]
        argv += ["--contimeout", "10s", "--timeout", "60s", "--low-level-retries", "3"]
        rc = {"RCLONE_RC_USER": self._address.user, "RCLONE_RC_PASS": self._address.password}
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                dies_with_us(argv), env=environment(self._home) | rc, stdout=log, stderr=log, cwd="/"
            )
        until(self._accepts, START_S, "the remote control")

    def _accepts(self) -> bool:
        """Its socket is there before it listens."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._address.socket))
        return True

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def argv_and_environment_of(self, pid: int) -> bytes:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))
