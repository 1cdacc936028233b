"""OAuth tokens that rclone renews and writes down itself: none is lost, whatever mountd rewrites or restarts."""

from __future__ import annotations

import asyncio
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mountd.rclone import binary
from mountd.rclone.binary import dump
from mountd.rclone.conf_file import ConfFile, RemoteSecrets
from mountd.settings.schema import Settings
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.keyed_mount import settings

pytestmark = pytest.mark.fuse


class TokenServer(http.server.ThreadingHTTPServer):
    """An OAuth server that gives a new token each time, as those do that take a refresh token once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.given = 0


class TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        self.server.given += 1
        number = self.server.given
        token = {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}", "expires_in": 1}
        body = json.dumps({**token, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def token_server() -> Iterator[str]:
    server = TokenServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


EXPIRED = '{"access_token":"access-0","refresh_token":"refresh-0","expiry":"2020-01-01T00:00:00Z"}'


async def test_a_token_that_rclone_renewed_outlasts_a_rewrite_a_restart_and_a_reboot(tmp_path: Path) -> None:
    found = binary.find(BUNDLED_RCLONE)
    path, record = tmp_path / "run" / "private" / "rclone.conf", tmp_path / "state" / "private" / "written.json"
    with token_server() as url:
        drive = {"type": "drive", "client_id": "id", "client_secret": "cs", "token_url": url, "token": EXPIRED}

        def made(**more: Any) -> Settings:
            return settings(tmp_path, {"d": drive | more, "f": {"type": "sftp", "pass": "x"}}, "d:")

        async def token(conf: ConfFile) -> str:
            refresh_token = json.loads((await dump(found, conf.path))["d"]["token"])["refresh_token"]
            assert isinstance(refresh_token, str)
            return refresh_token

        def renew() -> None:
            """rclone asks for a new token and saves it; Google itself cannot be reached."""
            argv = [str(BUNDLED_RCLONE), "--config", str(path), "--retries=1", "--low-level-retries=1", "lsd", "d:"]
            environment = {**binary.clean_environment(), "HTTPS_PROXY": "http://127.0.0.1:1"}
            subprocess.run(argv, env=environment, capture_output=True, timeout=30, check=False)

        conf = ConfFile(path, found, record=record)
        await conf.write(made())
        assert await token(conf) == "refresh-0"
        await asyncio.to_thread(renew)
        first = await token(conf)
        assert first != "refresh-0"

        before = path.stat().st_ino
        await conf.write(made())
        assert path.stat().st_ino == before, "the same settings"
        assert await token(conf) == first
        await conf.write(made(root_folder_id="other"))
        assert path.stat().st_ino != before
        assert await token(conf) == first
        assert first in record.read_text()
        assert "cs" not in json.loads(record.read_text())["remotes"]["d"]["kept"].values()
        assert record.stat().st_mode & 0o777 == 0o600
        assert record.parent.stat().st_mode & 0o777 == 0o700
        assert any(first in each for each in conf.secrets), "hidden in logs"

        await asyncio.to_thread(renew)
        second = await token(conf)
        assert second not in ("refresh-0", first)
        conf = ConfFile(path, found, record=record)  # mountd was killed and is back
        await conf.write(made())
        assert await token(conf) == second

        await asyncio.to_thread(renew)
        third = await token(conf)
        await conf.refresh(made(), "d", RemoteSecrets())  # while it runs
        path.unlink()  # a reboot
        conf = ConfFile(path, found, record=record)
        await conf.write(made())
        assert await token(conf) == third

        renewed = EXPIRED.replace("refresh-0", "by-the-admin")
        await conf.write(made(token=renewed))
        assert await token(conf) == "by-the-admin"
        conf = ConfFile(path, found, record=record)
        await conf.write(made(token=renewed))
        assert await token(conf) == "by-the-admin"
