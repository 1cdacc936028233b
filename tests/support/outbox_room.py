"""An outbox in the process of the test, on a bucket that is a directory; and what programs do to its files."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from mountd.outbox.outbox import Outbox
from mountd.settings.load import load
from mountd.settings.schema import Settings
from mountd.status.results import OutboxStatus
from tests.support.outbox import sha256
from tests.support.reloader import Bench
from tests.support.s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.support.wait import until_async

SOON_S = 60.0


class Room:
    """An outbox on a bucket that is a directory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.directory, self.bucket = bench.root / "outputs", bench.root / "results"
        for each in (self.directory, self.bucket):
            each.mkdir()

    def use_s3(self, endpoint: str, **options: str) -> None:
        """Adds the remote `s3`, for `remote` of `begin`."""
        keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
        remote = {"type": "s3", "provider": "Other", "endpoint": endpoint, **keys, **options}
        self.bench.config["remotes"]["s3"] = remote
        self.bench.config["allow_plain_secrets"] = True

    def settings(self, **more: object) -> Settings:
        section = {"directory": str(self.directory), "remote": f"store:{self.bucket}", "min_free": "0"}
        self.bench.config["outbox"] = {"results": {**section, "settle": "100ms", "keep": "forever", **more}}
        self.bench.write()
        return load(self.bench.file).settings

    def begin(self, **more: object) -> Outbox:
        self.bench.members.outboxes.begin(self.settings(**more))
        return self.bench.members.outboxes._running["results"][0]

    def stored(self, name: str) -> bytes:
        path = self.bucket / name
        return path.read_bytes() if path.is_file() else b""

    @property
    def status(self) -> OutboxStatus:
        return self.bench.board.snapshot.outbox["results"]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.bench.root / "state" / "mountd.db", timeout=30)) as db:
            return db.execute(sql).fetchall()

    def announced(self) -> list[str]:
        """The sha256 of each upload."""
        rows = self.rows("SELECT data FROM events WHERE code = 'result-uploaded' ORDER BY id")
        return [json.loads(data)["digest"].removeprefix("sha256:") for (data,) in rows]

    async def until_announced(self, *contents: bytes) -> None:
        wanted = [sha256(each) for each in contents]
        await until_async(lambda: self.announced() == wanted, SOON_S, f"{contents} to be announced")


def rewrite(path: Path, content: bytes) -> None:
    """In place, and with the time of before, as programs do that change the tags or the gain of an audio file."""
    seen = path.stat()
    assert len(content) == seen.st_size
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@contextmanager
def leased(*paths: Path) -> Iterator[None]:
    """As Samba leases files: who opens one without waiting is refused."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with ExitStack() as files:
            for path in paths:
                file = files.enter_context(path.open("r+b"))
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            yield
    finally:
        signal.signal(signal.SIGIO, before)
