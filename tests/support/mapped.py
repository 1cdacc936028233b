"""A daemon whose app keeps its model mapped; what then happens to their processes; and what is fetched for it again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.wait import until, until_gone

APP = Path(__file__).with_name("mapping_app.py")
DIRECTORY = "cache_hub_v23"
LARGE = "models/large.safetensors"
SOON_S = 60.0


def add_large(bucket: Path, size: int, *, manifest: bool = True, seed: int = 0) -> None:
    """A file of `size` bytes to the version that is live."""
    directory = bucket / DIRECTORY
    (directory / LARGE).write_bytes(random.Random(seed).randbytes(size))
    (directory / hub.MANIFEST).unlink(missing_ok=True)
    if manifest:
        (directory / hub.MANIFEST).write_bytes(hub.manifest(directory, "v23"))


class Mapped:
    """Of a daemon over `proxy` that was not started yet. `bucket` is the directory that its bucket is served from."""

    def __init__(self, daemon: Daemon, bucket: Path, proxy: Proxy) -> None:
        self.daemon, self.proxy = daemon, proxy
        self.source = bucket / DIRECTORY
        app = daemon.config["apps"]["webui"]
        app["command"] = [sys.executable, "-I", "-S", str(APP), str(daemon.web_port), str(daemon.link)]
        daemon.config["apps"]["webui"]["stop"] = {"signal": "SIGTERM", "grace": "1s"}
        daemon.config["models"]["cache_hub"]["required"] = [LARGE]
        self._pid = 0

    @property
    def cache(self) -> Path:
        return Path(self.daemon.config["mounts"]["storage"]["cache"]["dir"])

    def cached(self, below: str = "vfs", name: str = LARGE) -> Path:
        """The data of a file in the cache, or with `vfsMeta` what rclone knows of it."""
        (found,) = (self.cache / below).rglob(f"{DIRECTORY}/{name}")
        return found

    @property
    def bytes(self) -> int:
        """Of the model."""
        return sum(path.stat().st_size for path in self.source.rglob("*") if path.is_file())

    def start(self) -> None:
        self.daemon.start()
        self.until_mapped()

    def until_mapped(self) -> None:
        """By another app than before, right to the last byte."""

        def page() -> dict[str, Any] | None:
            process = self.daemon.process
            assert process is not None
            assert process.poll() is None, f"mountd ended with {process.poll()}"
            found = self.daemon.page()
            return found if found["pid"] != self._pid else None

        found = until(page, SOON_S, "the model to be mapped")
        assert found is not None
        assert found["digests"] == self.digests()
        self._pid = found["pid"]

    def digests(self) -> dict[str, str]:
        files = (path for path in self.source.rglob("*") if path.is_file())
        return {str(each.relative_to(self.source)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}

    def fetched(self, fault: Callable[[], None]) -> int:
        """Bytes of objects that come from the bucket for a fault, until another app has mapped all of its model."""
        self.proxy.reset_counts()
        fault()
        self.until_mapped()
        return self.proxy.counts.object_bytes

    # -- what may happen --------------------------------------------------------------------------------------------

    def stop_and_start(self) -> None:
        assert self.daemon.stop() == 0
        self.daemon.start()

    def kill_rclone(self) -> None:
        os.kill(self.rclone, signal.SIGKILL)

    def kill_mountd(self) -> None:
        """rclone and the app live on, until the next one ends them."""
        self._kill([])
        self.daemon.start()

    def kill_both(self) -> None:
        self._kill([self.rclone])
        self.daemon.start()

    def reload_flag(self) -> None:
        """A planned remount."""
        options = self.daemon.config["mounts"]["storage"].setdefault("options", {})
        options["vfs-read-ahead"] = "64M" if options.get("vfs-read-ahead") == "128M" else "128M"
        self.daemon.write_config()
        assert self.daemon.cli("reload").code == 0

    def restart_machine(self) -> None:
        """All processes at once; what lies below /run goes with them."""
        self.power_off()
        self.daemon.start()

    def power_off(self) -> None:
        self._kill(self.daemon.processes())
        for point in self.daemon.mounts():
            subprocess.run(["fusermount3", "-uz", point], timeout=60, check=True)
        shutil.rmtree(self.daemon.root / "run")

    @property
    def rclone(self) -> int:
        return int(self.daemon.status()["mounts"]["storage"]["pid"])

    def _kill(self, more: list[int]) -> None:
        """mountd, both of its processes, and `more`."""
        process = self.daemon.process
        assert process is not None
        daemon = int(self.daemon.status()["pid"])
        for pid in (process.pid, daemon, *more):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemon.wait_exit()
        until_gone(daemon)  # it holds the lock until then

    # -- and to the cache, while no mountd runs ---------------------------------------------------------------------

    def boot(self) -> None:
        """As if the kernel had been started meanwhile."""
        path = self.cache / "index.json"
        document = json.loads(path.read_text())
        document["boot"] = "another"
        path.write_text(json.dumps(document))

    def spoil(self) -> None:
        """One byte, and the time of the last change stays."""
        path = self.cached()
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(before.st_size // 2)
            byte = file.read(1)[0]
            file.seek(before.st_size // 2)
            file.write(bytes([byte ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def lose_data(self) -> None:
        """The second half: the index has reached the disk, the data have not."""
        path, meta = self.cached(), self.cached("vfsMeta")
        size = path.stat().st_size
        os.truncate(path, size // 2)
        os.truncate(path, size)
        record = json.loads(meta.read_text())
        meta.write_text(json.dumps({**record, "Rs": [{"Pos": 0, "Size": size}]}))

    def stop_spoil_start(self) -> None:
        assert self.daemon.stop() == 0
        self.spoil()
        self.daemon.start()

    def kill_spoil_start(self) -> None:
        self.power_off()
        self.spoil()
        self.daemon.start()

    def kill_lose_start(self) -> None:
        self.power_off()
        self.lose_data()
        self.daemon.start()

    def lose_power(self) -> None:
        self.power_off()
        self.boot()
        self.daemon.start()

    def lose_power_and_data(self) -> None:
        self.power_off()
        self.boot()
        self.lose_data()
        self.daemon.start()


CASES: dict[str, Callable[[Mapped], None]] = {
    "clean stop and start": Mapped.stop_and_start,
    "rclone SIGKILL": Mapped.kill_rclone,
    "mountd SIGKILL": Mapped.kill_mountd,
    "rclone and mountd SIGKILL": Mapped.kill_both,
    "reload of a flag": Mapped.reload_flag,
    "restart of the machine": Mapped.restart_machine,
    "loss of power": Mapped.lose_power,
}
PLANTED: dict[str, Callable[[Mapped], None]] = {
    "wrong bytes after a clean stop": Mapped.stop_spoil_start,
    "wrong bytes after SIGKILL": Mapped.kill_spoil_start,
    "wrong index after SIGKILL": Mapped.kill_lose_start,
    "loss of power, data not on disk": Mapped.lose_power_and_data,
}
"""What must not be served is fetched again."""
