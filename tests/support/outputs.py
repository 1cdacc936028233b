"""A daemon with a mount that is written to, the programs that write, and what of it has reached the bucket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until, until_gone

BUCKET = "outputs"
TOUCH_S = 60.0
SOON_S = 60.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """A daemon with one outputs mount, its bucket as a directory, and the proxy between them."""

    daemon: Daemon
    bucket: Path
    proxy: Proxy

    @property
    def mount(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.status()["mounts"]["outputs"]
        return found

    @property
    def pid(self) -> int:
        return int(self.mount["pid"])

    def write(self, name: str, size: int = 200_000) -> str:
        """A new file, through the mount, by a process that can be killed; its sha256."""
        data = os.urandom(size)
        copy = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
        target = str(self.daemon.mount / name)
        subprocess.run([sys.executable, "-c", copy, target], input=data, timeout=TOUCH_S, check=True)
        return hashlib.sha256(data).hexdigest()

    def read_back(self, name: str) -> str:
        done = subprocess.run(
            ["sha256sum", str(self.daemon.mount / name)], capture_output=True, text=True, timeout=TOUCH_S, check=True
        )
        return done.stdout.split()[0].removeprefix("\\")

    def uploaded(self, name: str) -> str | None:
        """The sha256 of the object."""
        try:
            return hashlib.sha256((self.bucket / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    def until_uploaded(self, files: dict[str, str], timeout_s: float = SOON_S) -> None:
        until(
            lambda: all(self.uploaded(name) == sha for name, sha in files.items()), timeout_s, f"{len(files)} objects"
        )

    @contextlib.contextmanager
    def open_for_writing(self, name: str, writes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """A process that writes 1,000 zeros, that many times, and keeps the file open until its stdin is closed."""
        hold = (
            "import sys; f = open(sys.argv[1], 'wb', 0); [f.write(bytes(1000)) for _ in range(int(sys.argv[2]))]; "
            "print(1, flush=True); sys.stdin.read()"
        )
        argv = [sys.executable, "-c", hold, str(self.daemon.mount / name), str(writes)]
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"1\n"
            yield holder
        finally:
            holder.kill()
            holder.wait()
            for pipe in (holder.stdin, holder.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def kill_everything(self) -> None:
        """mountd, its parent and all that they have started, as when the machine loses its power."""
        assert self.daemon.process is not None
        daemon_pid = int(self.daemon.status()["pid"])
        killed = [daemon_pid, self.daemon.process.pid, *self.daemon.processes()]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemon.wait_exit()
        for pid in killed:  # until then rclone may still write to the cache
            until_gone(pid)

    def waiting(self) -> int:
        """Files that rclone's metadata calls dirty."""
        metas = (self.daemon.root / "cache" / "vfsMeta").rglob("*.wav")
        return sum(json.loads(meta.read_text())["Dirty"] for meta in metas)

    def ask_to_stop(self) -> None:
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGTERM)


def making(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Outputs]:
    def made(**mount: Any) -> Outputs:
        bucket = store.directory / BUCKET
        bucket.mkdir()
        daemon = make_daemon(endpoint=proxy.endpoint)
        del daemon.config["models"], daemon.config["apps"]
        storage = daemon.config["mounts"].pop("storage")
        daemon.config["mounts"]["outputs"] = {**storage, "remote": f"store:{BUCKET}", "profile": "outputs", **mount}
        return Outputs(daemon, bucket, proxy)

    return made
