"""What a benchmark plays on: a store, a proxy before it, a daemon with its app, and a reader of the mount."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.control import Control
from bench.reads import Copying, Reads
from mountd.demo import hub
from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.machine import Tmpfs
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.wall_clock import Clock, library

FILE = "cache_hub_v23/models/gpt.pth"
VERSION = FILE.partition("/")[0]
FRESH = "fresh"
SCALE = 1 / 10_000
"""Of the hub: 1 MB a version, as small hubs are what the marks are set for."""
START_S = 60.0
SETTLE_S = 90.0
POLL_S = 0.01
CALM_S = 2.5
"""Longer than mountd's own idea of a start that lasted."""
CALM_POLL_S = 0.1
LOG_TAIL = 2000

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """`fresh`: directories with files that nothing has read yet; `keys`: how many keys the store takes, one by one."""

    fresh: int = 0
    fresh_files: int = 1
    fresh_bytes: int = 16 * 1024
    cache_mib: int = 0
    """a disk of its own for the cache, 0: none"""
    keys: int = 1
    pause_s: float = 0.01
    """of the reader between two reads"""
    phase_s: float = 1.0
    """the period of the question that notices the fault"""
    rclone: Path = BUNDLED_RCLONE
    webui: tuple[str, ...] = ()
    """further words for the app's command line"""
    scripted: bool = False
    """an rclone that does what `stage.rclone` says"""
    clock: bool = False
    """a wall clock of the daemon's own: `stage.clock`"""
    bare: bool = False
    """no daemon: each run has one of its own, see `Stage.renew`"""
    prepare: Callable[[Daemon], None] = lambda daemon: None
    """changes its configuration before it starts"""


class Stage:
    """Everything runs and serves inside a `with`; raises AssertionError when it does not come up."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._stack, self._daemon_stack = ExitStack(), ExitStack()
        self._fresh = 0
        self.dice = random.Random(0)  # noqa: S311 (no secret)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            if isinstance(error, AssertionError) and (log := self._log()):
                error.args = (f"{error}; the end of its log: {log.read_text(errors='replace')[-LOG_TAIL:]}",)
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        setup, stack = self.setup, self._stack
        self._root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mountd-b-")))
        hub.build(self._root / "store", scale=SCALE)
        self.source = self._root / "store" / hub.BUCKET
        self._make_fresh()
        self.store = RcloneS3(self._root / "store")
        stack.callback(self.store.close)
        self.keys = [(self.store.access_key_id, self.store.secret_access_key)]
        self.keys += [(f"MOUNTDBENCHKEY{n:04}", f"mountd-bench-secret-{n:04}") for n in range(1, setup.keys)]
        if setup.keys > 1:
            self.store.set_keys(*self.keys[0], *self.keys[1:])
        self.proxy = stack.enter_context(Proxy(self.store.endpoint))
        if setup.cache_mib:
            self.disk = stack.enter_context(Tmpfs(self._root / "disk", setup.cache_mib))
        if not setup.bare:
            self.renew().start()
            self.settle(START_S)
            self._list_fresh()
            self.reads = stack.enter_context(Reads(self.daemon.mount / FILE, self.source / FILE, setup.pause_s))
            self.reads.first_good(0.0, START_S)

    def renew(self) -> Daemon:
        """Another daemon over the same bucket, not started yet; the former one ends, and nothing of it is left."""
        setup = self.setup
        self._daemon_stack.close()
        stack = self._daemon_stack = self._stack.enter_context(ExitStack())
        daemon = Daemon(self.proxy.endpoint, *self.keys[0], rclone=setup.rclone, webui=setup.webui)
        self.daemon = stack.enter_context(daemon)
        self._key_id = daemon.root / "key-id"
        self.use_key(0)
        daemon.config["remotes"]["store"]["access_key_id"] = {"file": str(self._key_id)}
        self.cache = daemon.root / "cache"
        if setup.cache_mib:
            self.cache = self._root / "disk" / "cache"
            daemon.config["mounts"]["storage"]["cache"]["dir"] = str(self.cache)
        if setup.scripted:
            self.rclone = ScriptedRclone(daemon.root, setup.rclone)
            daemon.config["rclone"]["binary"] = str(self.rclone.path)
        if setup.clock:
            found = library()
            assert found is not None, "no libfaketime: sudo apt-get install faketime"
            self.clock = Clock(daemon, found)
        setup.prepare(daemon)
        self.control = stack.enter_context(Control(daemon.socket))
        return daemon

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with contextlib.suppress(RuntimeError):
            self.proxy.faults.clear()  # what hangs in it would wait for its own deadlines
            self.proxy.up()
        self._stack.close()

    # -- the bucket -----------------------------------------------------------------------------------------------

    def _make_fresh(self) -> None:
        for number in range(self.setup.fresh):
            directory = self.source / FRESH / f"{number:03}"
            directory.mkdir(parents=True)
            for each in range(self.setup.fresh_files):
                content = random.Random(f"{number}/{each}").randbytes(self.setup.fresh_bytes)  # noqa: S311 (no secret)
                (directory / f"{each:03}").write_bytes(content)

    def _list_fresh(self) -> None:
        """So that rclone knows what is there, as it knows a model's files; their bytes it does not."""
        if self.setup.fresh:
            subprocess.run(["ls", "-R", self.daemon.mount / FRESH], check=True, timeout=60, capture_output=True)

    def read_fresh(self, patience_s: float = 0.0) -> Copying:
        """Begins to read a directory of files that were never read before."""
        assert self._fresh < self.setup.fresh, "no fresh files are left"
        name = f"{FRESH}/{self._fresh:03}"
        self._fresh += 1
        copying = Copying(self.source / name, self.daemon.mount / name, patience_s)
        self._stack.callback(copying.close)
        return copying

    def read_model(self, patience_s: float = 0.0) -> Copying:
        """Begins to read all files of the live version once."""
        copying = Copying(self.source / VERSION, self.daemon.mount / VERSION, patience_s)
        self._stack.callback(copying.close)
        return copying

    def use_key(self, number: int) -> None:
        """Writes a key into the files that the configuration refers to, as a rotation does: a new file, renamed."""
        for path, text in zip((self._key_id, self.daemon.secret), self.keys[number], strict=True):
            new = path.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(text)
            os.replace(new, path)

    # -- looking --------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Raises AssertionError when mountd does not answer."""
        status = self.control.status()
        assert status is not None, "mountd does not answer"
        return status

    def until(self, condition: Callable[[Status], bool], timeout_s: float, what: str) -> tuple[float, Status]:
        """When it was seen first (monotonic seconds), and the status then. Raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.control.status()
            now = time.monotonic()
            process = self.daemon.process
            assert process is None or process.poll() is None, f"mountd ended with {process.poll()}"
            if status is not None and condition(status):
                return now, status
            seen = "nobody answers" if status is None else "; ".join(each["text"] for each in status["reasons"])
            assert now < deadline, f"waited {timeout_s:g} s for {what}: {seen or 'Healthy'}"
            time.sleep(POLL_S)

    def settle(self, timeout_s: float = SETTLE_S) -> Status:
        """All as it should be, the app as well, and for a while: one fault at a time, and no hot loop of starts."""
        deadline = time.monotonic() + timeout_s
        while True:
            since, before = self.until(is_well, deadline - time.monotonic(), "all to be well")
            while is_well(status := self.status()) and app(status)["pid"] == app(before)["pid"]:
                if time.monotonic() >= since + CALM_S:
                    return status
                time.sleep(CALM_POLL_S)

    def at_random(self) -> Status:
        """All well still, at some moment of the period of mountd's own questions: a fault must not always come just
        before one, nor just after."""
        time.sleep(self.dice.uniform(0.0, self.setup.phase_s))
        return self.until(is_well, SETTLE_S, "all to be well")[1]

    def poll(self, seconds: float, every_s: float = 0.2) -> Iterator[tuple[Status, float]]:
        """The status repeatedly, and how long mountd took to answer. Raises AssertionError."""
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            status = self.status()
            yield status, time.monotonic() - began
            time.sleep(max(0.0, min(every_s, end - time.monotonic())))

    def running(self, word: str) -> list[int]:
        """The daemon's processes whose command line has `word` in it."""
        found = []
        for pid in self.daemon.processes():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def keep_log(self, directory: Path) -> Path | None:
        """A copy of the daemon's log, for somebody who wants to know why; None when there is none."""
        if not (log := self._log()):
            return None
        directory.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(log, directory / f"{log.parent.name}.log"))

    def _log(self) -> Path | None:
        """None when no daemon was started."""
        log = self.daemon.log if hasattr(self, "daemon") else None
        return log if log and log.exists() else None


def mount(status: Status) -> Status:
    found: Status = status["mounts"]["storage"]
    return found


def app(status: Status) -> Status:
    found: Status = status["apps"]["webui"]
    return found


def codes(status: Status) -> set[str]:
    return {reason["code"] for reason in status["reasons"]}


def is_well(status: Status) -> bool:
    return bool(status["ready"] and status["health"] == "Healthy" and mount(status)["state"] == "running")
