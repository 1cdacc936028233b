"""A daemon with an outbox: its directory, its bucket as a directory, what was announced, and the proxy between them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until, until_gone

BUCKET = "results"
PREFIX = "outputs"
SOON_S = 60.0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Results:
    daemon: Daemon
    bucket: Path
    proxy: Proxy

    @property
    def directory(self) -> Path:
        return self.daemon.root / "outputs"

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.config["outbox"]["results"]
        return found

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.status()["outbox"]["results"]
        return found

    def write(self, name: str, data: bytes | None = None, size: int = 20_000) -> str:
        """A file that appears as a whole; its sha256."""
        data = os.urandom(size) if data is None else data
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}")
        part.write_bytes(data)
        part.replace(path)
        return sha256(data)

    def stored(self) -> dict[str, str]:
        """What the bucket holds: name → sha256."""
        root = self.bucket / PREFIX
        found = {}
        for base, _, names in os.walk(root):
            for name in names:
                path = Path(base, name)
                found[str(path.relative_to(root))] = sha256(path.read_bytes())
        return found

    def journal(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.daemon.root / "state" / "mountd.db", timeout=30)) as db:
            return db.execute(sql).fetchall()

    def journal_write(self, sql: str) -> None:
        """While mountd does not run."""
        with closing(sqlite3.connect(self.daemon.root / "state" / "mountd.db")) as db:
            db.execute(sql)
            db.commit()

    def events(self, code: str = "result-uploaded") -> list[dict[str, Any]]:
        """Their data, each with the id of the event."""
        rows = self.journal(f"SELECT id, object, data FROM events WHERE code = '{code}' ORDER BY id")
        assert {row[1] for row in rows} <= {"results"}
        return [{**json.loads(data or "{}"), "id": id_} for id_, _, data in rows]

    def announced(self) -> Counter[tuple[str, str]]:
        """How often each content was announced under each name."""
        return Counter((each["key"].removeprefix(f"{PREFIX}/"), each["digest"]) for each in self.events())

    def until_stored(self, files: dict[str, str], timeout_s: float = SOON_S) -> None:
        """Exactly these, and each announced."""
        wanted = {(name, f"sha256:{digest}") for name, digest in files.items()}
        until(lambda: self.stored() == files and wanted <= self.announced().keys(), timeout_s, f"{len(files)} results")

    def until_status(self, timeout_s: float = SOON_S, **wanted: object) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            status = self.status
            return status if all(status[key] == value for key, value in wanted.items()) else None

        return until(found, timeout_s, f"the outbox with {wanted}")

    def kill(self, *, children: bool = True) -> None:
        """mountd, and all that it has started, as when the machine loses its power; or only mountd itself."""
        assert self.daemon.process is not None
        own = [int(self.daemon.status()["pid"]), self.daemon.process.pid]
        killed = [*own, *(self.daemon.processes() if children else ())]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemon.wait_exit()
        for pid in killed:  # until then the journal is locked, and a child may go on
            until_gone(pid)


def making(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Results]:
    """Makes a daemon with an outbox; its only mount is of another bucket, with no proxy between."""

    def made(*, directory: bool = True, **outbox: Any) -> Results:
        bucket = store.directory / BUCKET
        bucket.mkdir()
        daemon = make_daemon()
        del daemon.config["models"], daemon.config["apps"]
        daemon.config["remotes"]["results"] = {**daemon.config["remotes"]["store"], "endpoint": proxy.endpoint}
        results = Results(daemon, bucket, proxy)
        if directory:
            results.directory.mkdir()
        daemon.config["outbox"] = {
            "results": {
                "directory": str(results.directory),
                "remote": f"results:{BUCKET}/{PREFIX}",
                "settle": "300ms",
                "keep": "forever",
                "min_free": "0",
                **outbox,
            }
        }
        return results

    return made
